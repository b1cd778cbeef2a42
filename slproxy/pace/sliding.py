"""Sliding window: an upstream that counts the last 60 seconds, not the clock minute.

SalesLoft documents a clock minute (docs/salesloft.md, Rate limit). Where a new minute does not bring back what the last
one has spent, the limit slides: then each cost comes back a minute after it was spent, and all is sent evenly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from slproxy.pace.minute import Minute
from slproxy.retry import MINUTE

# This share of the budget is sent evenly: all of it would be over by the least delay.
SMOOTHING_SHARE = 0.97
# So many seconds into a minute it may be others who have spent what is missing.
TELLING_SECONDS = 10.0


def is_sliding(history: Sequence[Minute], number: int, opening: int, since_beginning: float) -> bool:
    """Tell whether minute ``number``, which opened with so much, has not brought back what the last one has spent."""
    last = history[-1] if history and since_beginning < TELLING_SECONDS else None
    if last is None or last.number != number - 1 or last.opening is None or last.remaining is None:
        return False
    missing = last.opening - last.remaining
    # Others may have been faster, but hardly with two thirds of it.
    return missing >= last.opening / 2 and opening < last.remaining + missing / 3


class SlidingWindow:
    """What remains of a minute that slides: the last that was told, in the order of sending, and what comes back."""

    def __init__(self, remaining: int, now: float) -> None:
        self.told_at = self.next_at = self._since = now
        self._remaining = remaining
        self._told_sent = -math.inf
        # What was spent in each second, for as long as it may still come back.
        self._spent: deque[tuple[int, int]] = deque()

    def spend(self, cost: int, now: float) -> None:
        """Note what is spent now, or was spent too much."""
        self._spent.append((math.floor(now), cost))
        while self._spent[0][0] < now - 2 * MINUTE:
            self._spent.popleft()

    def take_off(self, cost: int) -> None:
        """Take off what was spent by a request whose reply does not tell what remains."""
        self._remaining -= cost

    def sent(self, cost: int, quota: int, now: float) -> None:
        """Let the next one go as much later as this one costs."""
        self.next_at = max(now, self.next_at) + cost * MINUTE / (quota * SMOOTHING_SHARE)

    def refused(self, now: float) -> None:
        """Nothing remains: a 429 is the last word."""
        self._remaining, self.told_at = 0, now

    def learn(self, remaining: int, *, cost: int, sent: float, limit: int, now: float) -> bool:
        """Learn from the reply to what was ``sent`` then; return whether the minute still slides.

        It does not where more came back at once than was spent a minute ago.
        """
        if sent < self._told_sent:
            return True
        if now - self._since > MINUTE:
            gained = remaining + cost - self._remaining
            earliest, latest = self.told_at - MINUTE - 1, now - MINUTE + 1
            came_back = sum(spent for second, spent in self._spent if earliest <= second <= latest)
            if gained - came_back > limit / 2:
                return False
        self._remaining, self.told_at, self._told_sent = remaining, now, sent
        return True

    def remaining(self, limit: int, now: float) -> float:
        """Return what remains to the team: what comes back does so evenly, since nobody says when it was spent."""
        return min(self._remaining + (now - self.told_at) * limit / MINUTE, limit)

    def estimated_wait(self, ahead: int, cost: int, *, quota: int, left: float, now: float) -> float:
        """Return after how many seconds a request would be sent that has a cost of ``ahead`` before it."""
        return max(self.next_at - now + ahead * MINUTE / quota, (ahead + cost - left) * MINUTE / quota, 0.0)
