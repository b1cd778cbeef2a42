"""Reservation: one physical send, on its way through the budget."""

from __future__ import annotations

from dataclasses import dataclass

from slproxy.pace.refusal import Refusal


@dataclass(eq=False, slots=True)
class Reservation:
    """One physical send: it waits, is in flight, and is settled. The lowest ``ticket`` came first.

    ``arrived``, ``deadline`` and ``sent`` are monotonic: when it came, until when it may wait, and when it went.
    ``waited`` is how long it has waited, in seconds.
    """

    ticket: int
    endpoint: str
    page_cost: int
    client: str
    bulk: bool
    arrived: float
    deadline: float
    cost: int = 1
    # What its client may spend a minute, whatever there is of the team's.
    budget: int | None = None
    waited: float = 0.0
    sent: float | None = None
    minute: int | None = None
    # The minute in which Redis counts it for all replicas, if it does.
    reserved_in: int | None = None
    # What it was refused for, if it was (429).
    refusal: Refusal | None = None
    # Whether its reply tells if the budget is spent, which is in doubt.
    is_probe: bool = False
    # As of when it was sent: what of its minute was certainly counted, and the cost of all that had reported nothing.
    counted: int = 0
    unreported: int = 0
