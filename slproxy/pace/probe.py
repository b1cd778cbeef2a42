"""Probe: the single request that finds out whether a new minute has restored the budget.

A 429 at the beginning of a minute may still be about the last one, for the clock that counts need not be the one that
``Date`` tells. It is asked again before it holds; from one that is then accepted, the skew of the clocks is learned.
"""

from __future__ import annotations

import math

# How long the others wait for a probe's reply, in seconds.
PROBE_TIMEOUT = 3.0
# How long after its refusal another one is sent, in seconds; and how far the clock that counts is believed to be behind
# the one that ``Date`` tells, at most. That both are one is inferred only (docs/salesloft.md, Rate limit).
PROBE_INTERVAL = 1.0
MAX_CLOCK_SKEW = 2.0
# A minute is exhausted when so little of it is left, as a share.
EXHAUSTED_SHARE = 0.05


class Probe:
    """Whether this minute's budget is still to be probed, and what refusals at its beginning say of the clocks."""

    def __init__(self) -> None:
        # Whether the budget may not be back, since the last minute was spent; and so may a refusal tell.
        self.is_wanted = self.previous_exhausted = False
        # Whether the replicas have one probe among them, and not each its own.
        self.is_shared = False
        # The most that was refused as too early.
        self._too_early = 0

    def begin(self, *, wanted: bool, exhausted: bool) -> None:
        """Begin a minute that follows a spent one, or another."""
        self.is_wanted, self.previous_exhausted, self._too_early = wanted, exhausted, 0

    def done(self) -> None:
        """The budget is known to be back, or to be spent."""
        self.is_wanted, self._too_early = False, 0

    def refused(self, cost: int, into: float) -> bool:
        """Tell whether a refusal so many seconds into the minute may be about the last one, and is asked again."""
        if not self.previous_exhausted or into >= MAX_CLOCK_SKEW:
            return False
        self.is_wanted = True
        self._too_early = max(self._too_early, cost)
        return True

    def skew(self, opening: int, into: float, *, known: float) -> float:
        """Return by how many seconds more the clock that counts is behind ``Date``.

        A request so many seconds into the minute was accepted, of a budget that the minute was said not to have.
        """
        if not self._too_early or opening < self._too_early:
            return 0.0
        # In whole seconds, as Dates are.
        return min(float(math.floor(into)), MAX_CLOCK_SKEW - known)

    def waited_for_until(self, first_sent: float | None, began_at: float, now: float) -> float:
        """Return until when all wait for the first of this minute that is in flight; ``now`` if they need not.

        One that is sent later in the minute tells nothing of its beginning.
        """
        if not self.is_wanted or self.is_shared or first_sent is None or first_sent >= began_at + PROBE_TIMEOUT:
            return now
        return max(now, first_sent + PROBE_TIMEOUT)
