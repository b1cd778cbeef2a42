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
# So many paths may be suspected of a limit of their own at a time, whatever the method, before the budget is.
MAX_SUSPECTS = 3


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

    Where nothing had told that there is plenty, such a 429 has closed the minute, and its endpoint has *stopped all*.
    It may do so once: the others go before it then, and when it is refused once more although one of them was served
    since, that is looked into.
    """

    def __init__(self) -> None:
        # Until when each is held, and of those in doubt, whether they were told how long.
        self.until: dict[str, float] = {}
        self.suspects: dict[str, bool] = {}
        # Those which were found to have a limit of their own.
        self._limited: dict[str, None] = {}
        # Those which have stopped all and when, and those of them since whose refusal another was served.
        self._stopped_all: dict[str, float] = {}
        self._outlived: set[str] = set()
        # Those which have served something in this minute.
        self._served: set[str] = set()

    @property
    def have_stopped_all(self) -> bool:
        """Whether there are any that have stopped all, and were not served since."""
        return bool(self._stopped_all)

    def gives_way(self, endpoint: str) -> bool:
        """Tell whether an endpoint has stopped all, and no other was served in this minute."""
        return endpoint in self._stopped_all and endpoint not in self._outlived

    def is_outlived(self, endpoint: str) -> bool:
        """Tell whether another endpoint was served, in this minute, after this one had stopped all."""
        return endpoint in self._outlived

    def held_until(self, endpoint: str) -> float:
        """Return until when an endpoint is held; some time in the past if it is not."""
        return self.until.get(endpoint, -math.inf)

    def is_limited(self, endpoint: str) -> bool:
        """Tell whether an endpoint is known to have a limit of its own."""
        return endpoint in self._limited

    def hold(self, endpoint: str, until: float, now: float) -> None:
        """Hold an endpoint until a time; those whose time has passed are forgotten."""
        self.until = {each: at for each, at in self.until.items() if at > now}
        self.until[endpoint] = max(until, self.held_until(endpoint))

    def suspect(self, endpoint: str, until: float, now: float, *, was_told: bool) -> None:
        """Hold an endpoint, which was or was not told for how long, until it is known what its 429 is about."""
        self.hold(endpoint, until, now)
        self.suspects[endpoint] = was_told

    def is_proof(self, endpoint: str) -> bool:
        """Tell whether the budget is spent if an endpoint refuses as well while there are suspects.

        One that has served nothing in this minute may be like them.
        """
        paths = {each.partition(" ")[2] for each in (*self.suspects, endpoint)}
        return endpoint in self._served or len(paths) > MAX_SUSPECTS

    def note_served(self, endpoint: str, sent: float, now: float, *, is_probe: bool) -> None:
        """Note that a request, which was or was not to find out about the suspects, was not refused."""
        self._served.add(endpoint)
        if is_probe:
            self.acquit_budget(now)
        if self._stopped_all:
            self._stopped_all.pop(endpoint, None)
            self._outlived.discard(endpoint)
            self._outlived.update(each for each, at in self._stopped_all.items() if sent > at)

    def acquit_budget(self, now: float) -> None:
        """The budget is not spent: the suspects have limits of their own."""
        for endpoint, was_told in self.suspects.items():
            if not was_told:
                self.until[endpoint] = now + FIRST_BACKOFF
            self._limited[endpoint] = None
            self._stopped_all.pop(endpoint, None)
            if len(self._limited) > MAX_LIMITED:
                del self._limited[next(iter(self._limited))]
        self.suspects.clear()

    def stop_all(self, endpoint: str, now: float, *, is_told: bool) -> None:
        """Take the budget for spent after an endpoint's 429, which ``is_told`` or may be about something else."""
        for each in () if is_told else (*self.suspects, endpoint):
            self._stopped_all[each] = now
            if len(self._stopped_all) > MAX_LIMITED:
                del self._stopped_all[next(iter(self._stopped_all))]
        self.end_doubt()

    def end_doubt(self) -> None:
        """The budget is known to be spent, or another minute has begun."""
        self.suspects.clear()
        self._outlived.clear()
        self._served.clear()
