"""Upstream clock, as its ``Date`` headers tell it: its minute is the one that counts, not ours.

A ``Date`` has a resolution of one second and arrives late. Each one bounds the difference between the two clocks, and
many of them narrow it.
"""

from __future__ import annotations

from slproxy.retry import MINUTE

# Two quartz clocks drift apart by less than this share of the time (100 ppm).
DRIFT = 1e-4
# What was known is taken for exact for so long, in seconds.
FRESH = 1.0


class ServerTime:
    """What is known of the upstream's clock. Times of ours are monotonic, its own are Unix; both in seconds."""

    def __init__(self, *, unix: float, now: float) -> None:
        """``unix`` is our own clock's time at ``now``: all there is to go by before the first reply."""
        self._low = self._high = unix - now
        self._at = now
        self.is_known = False
        # By how many seconds the clock that counts is behind the one that Date tells.
        self.skew = 0.0

    def learn(self, date: float, *, sent: float, received: float) -> bool:
        """Narrow what is known by the ``Date`` of a reply; return ``False`` if it contradicts what was known.

        Then a clock was set, or ours has slept: only this reply counts.
        """
        low, high = date - received, date + 1.0 - sent
        if self.is_known and low <= self._low and high >= self._high and received - self._at < FRESH:
            return True  # it narrows nothing
        drift = DRIFT * max(0.0, received - self._at)
        agrees = self.is_known and low <= self._high + drift and high >= self._low - drift
        if agrees:
            low, high = max(low, self._low - drift), min(high, self._high + drift)
        self._low, self._high = low, high
        self._at = max(received, self._at)
        self.is_known = True
        return agrees

    def set_back(self, seconds: float) -> None:
        """Believe that the clock that counts is so far behind the one that ``Date`` tells, besides what was known.

        Before the first ``Date`` it is ours that is ahead.
        """
        self.skew += seconds if self.is_known else 0.0
        self._low -= seconds
        self._high -= seconds

    def earliest(self, now: float) -> float:
        """Return a time that the upstream's clock has certainly reached."""
        return now + self._low

    def latest(self, now: float) -> float:
        """Return a time that the upstream's clock has certainly not passed."""
        return now + self._high

    def minute(self, now: float) -> int:
        """Return the last minute that has certainly begun, counted from 1970."""
        return int(self.earliest(now) // MINUTE)

    def beginning(self, minute: int) -> float:
        """Return when a minute has certainly begun, by our clock."""
        return minute * MINUTE - self._low

    def until(self, minute: int, now: float) -> float:
        """Return the seconds until a minute has certainly begun."""
        return max(0.0, self.beginning(minute) - now)
