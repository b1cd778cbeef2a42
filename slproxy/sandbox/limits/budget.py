"""Team budget: its cost per clock minute (docs/salesloft.md, Rate limit)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 60.0

# Deep pages cost more: docs/salesloft.md, Rate limit.
PAGE_COSTS = ((500, 30), (250, 10), (150, 8), (100, 3))


def cost(pages: Sequence[str]) -> int:
    """Return what a request costs, from the values of its `page` parameter; the last one counts, as in Rails."""
    try:
        page = int(pages[-1]) if pages else 1
    except ValueError:
        return 1
    return next((price for above, price in PAGE_COSTS if page > above), 1)


@dataclass
class MinuteBudget:
    """Own what the team has spent in the current clock minute."""

    limit: int
    _minute: int = -1
    _spent: int = 0

    def remaining(self, now: float) -> int:
        """Return what is left of this minute."""
        return max(0, self.limit - (self._spent if self._minute == now // WINDOW else 0))

    def spend(self, price: int, now: float) -> bool:
        """Spend, or return False and spend nothing where that would exceed the limit."""
        left = self.remaining(now)
        if price > left:
            return False
        self._minute, self._spent = int(now // WINDOW), self.limit - left + price
        return True
