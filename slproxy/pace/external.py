"""External spend: what others take of the team's budget, and what is left to them until a reply reports it."""

from __future__ import annotations

import math
from collections import deque

from slproxy.pace.minute import Minute

# The headroom is what others spend in so many seconds, up to a share of the limit: whoever spends faster does so in
# bursts, and is done.
HEADROOM_SECONDS = 3.0
MAX_HEADROOM_SHARE = 0.025


class ExternalSpend:
    """What others spend a minute, on average over the last ones; a rise is followed at once."""

    def __init__(self) -> None:
        self._usual = 0.0
        # In a second.
        self.rate = 0.0
        # In all, of the minutes that have ended.
        self.total = 0
        # What 429s have taught to leave besides.
        self.margin = 0.0
        # What there was of the last minutes that somebody has waited for, as they began.
        self._openings: deque[int] = deque(maxlen=2)

    def note_opening(self, opening: int) -> None:
        """Note what there was of an awaited minute, by its first reply."""
        self._openings.append(opening)

    def note_refused(self, limit: int) -> None:
        """Leave more to others: they were faster."""
        self.margin = min(max(2 * self.margin, 2.0), limit / 10)

    def note_lower_limit(self, missing: int) -> None:
        """Forget what was taken for external spend, since the limit is lower by so much."""
        self._usual = max(0.0, self._usual - missing)

    def note_end(self, minute: Minute, *, exhausted: bool) -> None:
        """Take a minute that is over into the averages; ``exhausted`` if the next one was waited for."""
        self.total += minute.external_spend
        if not exhausted:
            self._openings.clear()
        if not minute.refused:
            self.margin = self.margin * 0.9 if self.margin > 1.0 else 0.0
        usual = max(float(minute.external_spend), (self._usual + minute.external_spend) / 2)
        self._usual = usual if usual >= 1.0 else 0.0
        rate = minute.external_spend / minute.external_seconds
        self.rate = max(rate, (self.rate + rate) / 2) if self._usual else 0.0

    def headroom(self, limit: float) -> int:
        """Return what is left to others: what they may spend before we hear of it, and what 429s have taught."""
        return math.floor(min(HEADROOM_SECONDS * self.rate, limit * MAX_HEADROOM_SHARE) + self.margin)

    def next_quota(self, minute: Minute, *, limit: int, quota: int, headroom: int) -> float:
        """Return what will be ours of a minute to come, at best: nobody who could be served is to be sent away."""
        # Whoever spends more than half is met at the next minute's beginning, and then it is anybody's.
        usual = max(quota / 2, limit - max(self._usual, minute.external_spend) - headroom)
        # Two that began with less are no accident, such as another's burst.
        opening = max(self._openings) if len(self._openings) == 2 else math.inf
        return max(1.0, min(quota, usual, opening - headroom))
