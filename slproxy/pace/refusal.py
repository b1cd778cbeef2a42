"""Refusals: what a 429 is about, and so who waits.

SalesLoft publishes no limit but the team's (docs/salesloft.md, Rate limit), yet a gateway or an endpoint may have one.
Taken for the team's, one client that polls such an endpoint would stop everybody.
"""

from __future__ import annotations

import enum
import math

from slproxy.retry import FIRST_BACKOFF

# How many endpoints with a limit of their own are remembered.
MAX_LIMITED = 100


class Refusal(enum.Enum):
    """What a 429 means for the request that got it."""

    # It is not about the team's budget: the request waits on its own, and nobody else does.
    OTHER = enum.auto()
    # It is: the request waits on its own for the budget.
    BUDGET = enum.auto()
    # The request is to wait in the queue.
    REQUEUED = enum.auto()


class Endpoints:
    """Endpoints that are held back: their 429s tell nothing of a budget of which replies have just told that there is
    plenty.

    They are suspects until another endpoint's request has found out whether the budget is spent. If it is not, a
    ``Retry-After`` was theirs alone. Times are monotonic.
    """

    def __init__(self) -> None:
        # Until when each is held, and of those in doubt, whether they were told how long.
        self._until: dict[str, float] = {}
        self._suspects: dict[str, bool] = {}
        # Those which were found to have a limit of their own.
        self._limited: dict[str, None] = {}

    @property
    def are_held(self) -> bool:
        """Whether there may be any."""
        return bool(self._until)

    @property
    def are_in_doubt(self) -> bool:
        """Whether it is to be found out if the budget is spent."""
        return bool(self._suspects)

    def held_until(self, endpoint: str) -> float:
        """Return until when an endpoint is held; some time in the past if it is not."""
        return self._until.get(endpoint, -math.inf)

    def is_limited(self, endpoint: str) -> bool:
        """Tell whether an endpoint is known to have a limit of its own."""
        return endpoint in self._limited

    def hold(self, endpoint: str, until: float, now: float) -> None:
        """Hold an endpoint until a time; those whose time has passed are forgotten."""
        self._until = {each: at for each, at in self._until.items() if at > now}
        self._until[endpoint] = max(until, self.held_until(endpoint))

    def suspect(self, endpoint: str, until: float, now: float, *, was_told: bool) -> None:
        """Hold an endpoint, which was or was not told for how long, until it is known what its 429 is about."""
        self.hold(endpoint, until, now)
        self._suspects[endpoint] = was_told

    def acquit_budget(self, now: float) -> None:
        """The budget is not spent: the suspects have limits of their own."""
        for endpoint, was_told in self._suspects.items():
            if not was_told:
                self._until[endpoint] = now + FIRST_BACKOFF
            self._limited[endpoint] = None
            if len(self._limited) > MAX_LIMITED:
                del self._limited[next(iter(self._limited))]
        self._suspects.clear()

    def end_doubt(self) -> None:
        """The budget is spent, or another minute has begun."""
        self._suspects.clear()
