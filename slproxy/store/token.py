"""Token: an access token, what renews it, and when it expires."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """An access token and what renews it. Times are Unix times in seconds; ``expires_at`` ``None`` is never."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    obtained_at: float
    expires_at: float | None = None
    scope: str = ""

    @property
    def lifetime(self) -> float:
        """Seconds from when it was obtained to its expiry."""
        return math.inf if self.expires_at is None else self.expires_at - self.obtained_at

    def remaining(self, now: float) -> float:
        """Return the seconds until its expiry, below zero once it has expired."""
        return math.inf if self.expires_at is None else self.expires_at - now
