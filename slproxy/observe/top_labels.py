"""Top labels: a count for each of the labels that come most, and one for all others.

A metric has a series for each value of its labels, for as long as the process runs, and clients name themselves: a
label for each of them would be without end.
"""

from __future__ import annotations

# The shared label.
OTHER = "other"
# How many of those without a cell are counted, in the hope of one: none is missed that sends more than one in so many
# of their requests (Misra and Gries, Finding repeated elements, 1982).
CANDIDATES = 1000
# How many times the requests of the least one with a cell another must have sent to take its place: of two alike
# neither would keep it for long.
OVERTAKES = 2


class Cell:
    """What was counted for a label since it got its cell; ``rank`` is how many requests it had sent before."""

    __slots__ = ("cost", "rank", "requests")

    def __init__(self, rank: int = 0) -> None:
        self.rank, self.requests, self.cost = rank, 0, 0

    @property
    def weight(self) -> int:
        """What decides whether it keeps its cell."""
        return self.rank + self.requests


class TopLabels:
    """The cells of at most ``size`` labels, and of ``OTHER``.

    A label that loses its cell takes its count away, and one that gets a cell starts at nothing, as counters do after a
    restart: none of the counts ever decreases while it is there, and no request is in the rates of two.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.cells: dict[str, Cell] = {}
        self.other = Cell()
        self._candidates: dict[str, int] = {}
        # The least weight there was when it was last looked for: since then they have only grown.
        self._least = 0

    def count(self, label: str, cost: int = 0) -> None:
        """Count a request of a label, and what it has cost."""
        cell = self.cells.get(label) or self._cell(label)
        cell.requests += 1
        cell.cost += cost

    def _cell(self, label: str) -> Cell:
        """Return where to count for a label without a cell, which may get one now."""
        if label == OTHER:
            return self.other
        if len(self.cells) < self._size:
            return self._settle(label, 0)
        count = self._candidates.get(label, 0) + 1
        if count > OVERTAKES * self._least:
            least = min(self.cells, key=lambda each: self.cells[each].weight)
            self._least = self.cells[least].weight
            if count > OVERTAKES * self._least:
                self._candidates.pop(label, None)
                self._note(least, self.cells.pop(least).weight)
                return self._settle(label, count - 1)
        self._note(label, count)
        return self.other

    def _settle(self, label: str, rank: int) -> Cell:
        cell = self.cells[label] = Cell(rank)
        return cell

    def _note(self, label: str, count: int) -> None:
        """Remember a candidate; where there are too many, all lose one, and who has nothing left is forgotten."""
        if label not in self._candidates and len(self._candidates) >= CANDIDATES:
            self._candidates = {each: left - 1 for each, left in self._candidates.items() if left > 1}
        if len(self._candidates) < CANDIDATES or label in self._candidates:
            self._candidates[label] = count
