"""Token: an access token, what renews it, and when it expires."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Two clocks that differ by less are taken to agree, in seconds: a `Date` has a grain, and its reply took a while.
CLOCK_TOLERANCE = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """An access token and what renews it. Times are Unix times in seconds; ``expires_at`` ``None`` is never.

    Both times are the issuer's, and ``clock_offset`` is how far its clock was ahead of ours when the token was
    obtained: nothing, where they agreed.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    obtained_at: float
    expires_at: float | None = None
    clock_offset: float = 0.0
    scope: str = ""

    @property
    def lifetime(self) -> float:
        """Seconds from when it was obtained to its expiry."""
        return math.inf if self.expires_at is None else self.expires_at - self.obtained_at

    def remaining(self, now: float) -> float:
        """Return the seconds until its expiry, below zero once it has expired.

        Our clock may be as wrong as it was when the token was obtained, or right by now: no token is left for longer
        than its lifetime, which tells one from the other. Where both are possible, it is as wrong as it was.
        """
        if self.expires_at is None:
            return math.inf
        left = self.expires_at - now
        possible = [each for each in (left - self.clock_offset, left) if each <= self.lifetime + CLOCK_TOLERANCE]
        if possible and possible[0] > 0.0:
            return possible[0]
        return max(possible, default=min(left, left - self.clock_offset))

    def is_from_the_future(self, now: float) -> bool:
        """Tell whether our clock has gone back since the token was obtained: then nothing tells when it expires."""
        return self.remaining(now) > self.lifetime + CLOCK_TOLERANCE
