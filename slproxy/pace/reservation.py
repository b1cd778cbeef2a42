"""One physical send, on its way through the budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True, eq=False, slots=True)
class Turn:
    """One physical send: it waits, is in flight, and is settled. ``number`` says who came first.

    ``until`` is how long it may wait; ``since`` when it came; both monotonic.
    """

    number: int
    endpoint: str
    page_cost: int
    client: str
    bulk: bool
    since: float
    until: float
    cost: int = 1
    sent: float | None = None
    minute: int | None = None
    # Whether it was refused, and goes again once those who wait do.
    closes: bool = False
    # How many had been sent before it, where none of them was in flight: its reply tells exactly what remains.
    alone: int | None = None
