"""Seen limit: what a minute has brought, where no header tells the limit."""

from __future__ import annotations

from collections import deque

# It is believed once it was the same in so many minutes running: in one, others may have been faster.
SEEN_MINUTES = 3


class SeenLimit:
    """What the last minutes opened with, of those where that is certain."""

    def __init__(self) -> None:
        self._openings: deque[int] = deque(maxlen=SEEN_MINUTES)

    def note(self, opening: int | None) -> int | None:
        """Note what a minute that is over had opened with, if that is certain; return the limit if it is now."""
        if opening is None:
            return None
        self._openings.append(opening)
        return opening if self._openings.count(opening) == SEEN_MINUTES else None
