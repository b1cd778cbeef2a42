"""Be SalesLoft, without sockets: what a request meets, in the order in which it meets it.

An API request is remembered, then authenticated, then paid for, then struck by a fault, then routed. A 401 costs
nothing, and comes before a 404; everything else that gets past the budget costs, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate

from .api import Arrival, answer
from .budget import Budget, cost
from .crud import Answer
from .definition import Definition, definition
from .faults import Armed, Fault, FaultError, Faults, Side
from .ledger import Ledger, Request, TokenRequest
from .oauth import OAuth
from .options import Options
from .query import parse
from .records import Records
from .seed import seeded
from .tokens import TokenPair, Tokens

# The bodies of docs/salesloft.md, API and Rate limit.
NO_TOKEN = "No Bearer Token attached to request, please see documentation at developers.salesloft.com"  # noqa: S105
BAD_TOKEN = "Invalid Bearer token"  # noqa: S105
OVER_BUDGET = "API rate limit exceeded"


class SalesLoft:
    """Own one team's tokens, records, budget, faults and what was asked."""

    def __init__(self, options: Options, *, clock: Callable[[], float], seed: int) -> None:
        """Start as `reset` leaves it."""
        self.options = options
        self._clock = clock
        self._seed = seed
        self._definition: Definition = definition()
        self.reset()

    def reset(self) -> None:
        """Forget everything: tokens, writes, faults, the ledgers, what was spent and how far the clock was moved."""
        self._offset = 0.0
        self._tokens = Tokens(self.options.rotation)
        self.oauth = OAuth(self.options, self._tokens)
        self._records: Records = seeded(self._definition, self._seed)
        self._budget = Budget(self.options.budget)
        self.faults = Faults()
        self.ledger: Ledger[Request] = Ledger()
        self.token_ledger: Ledger[TokenRequest] = Ledger()

    @property
    def requests(self) -> list[Request]:
        """Return the very list of API requests, the latest 10,000."""
        return self.ledger.entries

    @property
    def token_requests(self) -> list[TokenRequest]:
        """Return the very list of calls of the token endpoint, the latest 10,000."""
        return self.token_ledger.entries

    def now(self) -> float:
        """Return the sandbox's time, in seconds since the epoch."""
        return self._clock() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock, forward or back."""
        self._offset += seconds

    def issue(self, *, lifetime: float | None = None) -> TokenPair:
        """Log in without a browser; the lifetime is in seconds, the options' own if not told."""
        lifetime = self.options.token_lifetime if lifetime is None else lifetime
        return self._tokens.issue(now=self.now(), lifetime=lifetime, scope=self.options.scope)

    def expire(self, token: str) -> None:
        """End an access token's time; its refresh token stays good."""
        self._tokens.expire(token, self.now())

    def revoke(self, token: str) -> None:
        """Revoke an access or refresh token, and the other one of its pair."""
        self._tokens.revoke(token)

    def revoke_all(self) -> None:
        """Revoke every token; the API key stays good."""
        self._tokens.revoke_all()

    def spend(self, price: int) -> None:
        """Spend of the team's budget, as another integration would; at most what is left of this minute."""
        self._budget.spend(min(price, self.remaining()), self.now())

    def remaining(self) -> int:
        """Return what is left of this minute's budget."""
        return self._budget.remaining(self.now())

    def alive(self) -> int:
        """Return how many access tokens are good."""
        return sum(1 for _ in self._tokens.alive(self.now()))

    def fault(self, spec: str, *, on: Side = "api", path: str | None = None) -> Armed:
        """Arm a fault for the next requests, by default for one; raise FaultError (a ValueError) for an unknown one."""
        return self.faults.arm(spec, on=on, path=path)

    def clear_faults(self) -> None:
        """Disarm all faults."""
        self.faults.clear()

    def admit(self, request: Request, header: str | None) -> tuple[Answer | Fault | None, Mapping[str, str]]:
        """Return what stops a request, or None, and the headers of its answer; `header` is the fault that it asks for.

        A request outside `/v2` has no team, so it is neither authenticated nor paid for.
        """
        now = self.now()
        path, _, query = request.target.partition("?")
        headers = {"Date": formatdate(now, usegmt=True)}
        try:
            if path == "/v2" or path.startswith("/v2/"):
                objection = self._objection(request.token, now)
                if objection:
                    self.faults.missed(method=request.method, target=request.target, header=header)
                    return Answer(401, {"error": objection}), headers
                price = cost([value for bracket, value in parse(query).named("page") if not bracket])
                paid = self._budget.spend(price, now)
                headers |= {
                    "x-ratelimit-endpoint-cost": str(price),
                    "x-ratelimit-remaining-minute": str(self._budget.remaining(now)),
                    "x-ratelimit-limit-minute": str(self._budget.limit),
                }
                if not paid:
                    return Answer(429, {"error": OVER_BUDGET}), headers
            fault = self.faults.strike(on="api", method=request.method, target=request.target, header=header)
        except FaultError as bad:
            return Answer(400, {"error": str(bad), "accepted": bad.accepted}), headers
        if fault and fault.name in ("expire-token", "revoke-token"):
            (self.expire if fault.name == "expire-token" else self.revoke)(request.token or "")
            return Answer(401, {"error": BAD_TOKEN}), {"Date": headers["Date"]}
        return fault, headers

    def answer(self, arrival: Arrival) -> Answer:
        """Answer a request that was admitted."""
        return answer(self._definition, self._records, arrival, self.now())

    def _objection(self, token: str | None, now: float) -> str | None:
        if token is None:
            return NO_TOKEN
        return None if token == self.options.api_key or self._tokens.use(token, now) else BAD_TOKEN
