"""SalesLoft without sockets: one team's state, and the order in which a request meets it.

An API request is recorded, authenticated, charged, failed where a fault waits for it, and routed. A 401 costs nothing,
and comes before a 404; every other request within the budget costs, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate

from slproxy.sandbox.api.call import ApiResponse
from slproxy.sandbox.api.query import parse_query
from slproxy.sandbox.api.routing import IncomingRequest, respond
from slproxy.sandbox.data.definition import Definition, definition
from slproxy.sandbox.data.records import CrmRecords
from slproxy.sandbox.data.seed import seeded
from slproxy.sandbox.limits.budget import MinuteBudget, cost
from slproxy.sandbox.limits.faults import ArmedFault, Fault, FaultError, Faults, Side
from slproxy.sandbox.oauth.endpoints import OAuth
from slproxy.sandbox.oauth.tokens import TokenPair, Tokens
from slproxy.sandbox.options import Options
from slproxy.sandbox.request_log import RecordedRequest, RecordedTokenRequest, RequestLog

# The bodies of docs/salesloft.md, API and Rate limit.
NO_TOKEN = "No Bearer Token attached to request, please see documentation at developers.salesloft.com"  # noqa: S105
BAD_TOKEN = "Invalid Bearer token"  # noqa: S105
OVER_BUDGET = "API rate limit exceeded"


class SalesLoft:
    """Own one team's tokens, records, budget, faults and the log of its requests."""

    def __init__(self, options: Options, *, clock: Callable[[], float]) -> None:
        """Start as `reset` leaves it."""
        self.options = options
        self._clock = clock
        self._definition: Definition = definition()
        self.reset()

    def reset(self) -> None:
        """Start anew: no tokens, writes, faults, recorded requests, spending or moved clock."""
        self._offset = 0.0
        self._tokens = Tokens(self.options.rotation)
        self.oauth = OAuth(self.options, self._tokens)
        self._records: CrmRecords = seeded(self._definition)
        self._budget = MinuteBudget(self.options.budget)
        self.faults = Faults()
        self.request_log: RequestLog[RecordedRequest] = RequestLog()
        self.token_request_log: RequestLog[RecordedTokenRequest] = RequestLog()

    @property
    def requests(self) -> list[RecordedRequest]:
        """Return the very list of API requests, the latest 10,000."""
        return self.request_log.entries

    @property
    def token_requests(self) -> list[RecordedTokenRequest]:
        """Return the very list of calls of the token endpoint, the latest 10,000."""
        return self.token_request_log.entries

    def now(self) -> float:
        """Return the sandbox's time, in seconds since the epoch."""
        return self._clock() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock, forward or back."""
        self._offset += seconds

    def issue(self, *, lifetime: float | None = None) -> TokenPair:
        """Log in without a browser; the lifetime is in seconds, by default the options' own."""
        lifetime = self.options.token_lifetime if lifetime is None else lifetime
        return self._tokens.issue(now=self.now(), lifetime=lifetime, scope=self.options.scope)

    def accepts(self, token: str) -> bool:
        """Tell whether a token is good; a good access token ends the pairs that it replaced."""
        return token == self.options.api_key or self._tokens.use(token, self.now())

    def expire(self, token: str) -> None:
        """Expire an access token; its refresh token stays good."""
        self._tokens.expire(token, self.now())

    def revoke(self, token: str) -> None:
        """Revoke an access or refresh token, and the other one of its pair."""
        self._tokens.revoke(token)

    def revoke_all(self) -> None:
        """Revoke every token; the API key stays good."""
        self._tokens.revoke_all()

    def spend(self, price: int) -> None:
        """Spend from the team's budget, as another integration would; at most what is left of this minute."""
        self._budget.spend(min(price, self.remaining()), self.now())

    def remaining(self) -> int:
        """Return what is left of this minute's budget."""
        return self._budget.remaining(self.now())

    def alive(self) -> int:
        """Return how many access tokens are good."""
        return sum(1 for _ in self._tokens.alive(self.now()))

    def fault(self, spec: str, *, on: Side = "api", path: str | None = None) -> ArmedFault:
        """Arm a fault for the next request, or the next N. Raises FaultError (a ValueError) for an unknown one."""
        return self.faults.arm(spec, on=on, path=path)

    def clear_faults(self) -> None:
        """Disarm all faults."""
        self.faults.clear()

    def admit(
        self, request: RecordedRequest, header: str | None
    ) -> tuple[ApiResponse | Fault | None, Mapping[str, str]]:
        """Return what stops a request, or None, and its response headers; `header` is the fault that it asks for.

        A request outside `/v2` has no team, so it is neither authenticated nor charged.
        """
        now = self.now()
        path, _, query = request.target.partition("?")
        headers = {"Date": formatdate(now, usegmt=True)}
        try:
            if path == "/v2" or path.startswith("/v2/"):
                objection = self._objection(request.token)
                if objection:
                    self.faults.let_pass(method=request.method, target=request.target, header=header)
                    return ApiResponse(401, {"error": objection}), headers
                price = cost([value for bracket, value in parse_query(query).named("page") if not bracket])
                paid = self._budget.spend(price, now)
                headers |= {
                    "x-ratelimit-endpoint-cost": str(price),
                    "x-ratelimit-remaining-minute": str(self._budget.remaining(now)),
                    "x-ratelimit-limit-minute": str(self._budget.limit),
                }
                if not paid:
                    return ApiResponse(429, {"error": OVER_BUDGET}), headers
            fault = self.faults.fault_for(on="api", method=request.method, target=request.target, header=header)
        except FaultError as bad:
            return ApiResponse(400, {"error": str(bad), "accepted": bad.accepted}), headers
        if fault and fault.name in ("expire-token", "revoke-token"):
            (self.expire if fault.name == "expire-token" else self.revoke)(request.token or "")
            return ApiResponse(401, {"error": BAD_TOKEN}), {"Date": headers["Date"]}
        return fault, headers

    def respond(self, incoming: IncomingRequest) -> ApiResponse:
        """Return the response to a request that was admitted."""
        return respond(self._definition, self._records, incoming, self.now())

    def _objection(self, token: str | None) -> str | None:
        if token is None:
            return NO_TOKEN
        return None if self.accepts(token) else BAD_TOKEN
