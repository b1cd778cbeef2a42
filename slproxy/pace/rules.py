"""Rules: how much of the team's budget is ours, and how much of it may be spent at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slproxy.retry import MINUTE


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """How the budget is to be used: ``limit`` is the cost of a minute: somebody's own cap if ``is_cap``, else assumed.

    ``reserve`` is the share that is left to others; ``burst`` the share of our own part that may be sent at once. With
    ``is_shared``, replicas spend of it as well, so that what is missing was not spent by others.
    """

    limit: int = 600
    is_cap: bool = False
    reserve: float = 0.0
    burst: float = 1.0
    is_shared: bool = False

    def quota(self, limit: int) -> int:
        """Return what we may spend of a minute in which the team has ``limit``."""
        cap = min(limit, self.limit) if self.is_cap else limit
        return max(1, math.floor(cap * (1 - self.reserve)))

    def allowance(self, quota: int, into: float) -> float:
        """Return what we may have spent so many seconds into a minute."""
        share = min(1.0, max(0.0, into / MINUTE))
        return quota * (self.burst + (1.0 - self.burst) * share)

    def growth(self, quota: int) -> float:
        """Return by how much the allowance grows in a second."""
        return quota * (1.0 - self.burst) / MINUTE
