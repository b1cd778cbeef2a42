"""In flight: what was sent and is not answered yet, which counts as spent."""

from __future__ import annotations

import math

from slproxy.pace.reservation import Reservation


class InFlight:
    """The reservations that were sent and are not settled; ``cost`` is that of all of them."""

    def __init__(self) -> None:
        self.reservations: set[Reservation] = set()
        self._cost_of: dict[int | None, int] = {}
        self.cost = 0

    def __len__(self) -> int:
        return len(self.reservations)

    def add(self, reservation: Reservation) -> None:
        """Count a reservation that is sent now."""
        self.reservations.add(reservation)
        self._cost_of[reservation.minute] = self._cost_of.get(reservation.minute, 0) + reservation.cost
        self.cost += reservation.cost

    def remove(self, reservation: Reservation) -> None:
        """Stop counting a reservation."""
        self.reservations.remove(reservation)
        self.cost -= reservation.cost
        if left := self._cost_of.pop(reservation.minute, 0) - reservation.cost:
            self._cost_of[reservation.minute] = left

    def cost_since(self, at: float) -> int:
        """Return the cost of those that were sent after some time."""
        return sum(each.cost for each in self.reservations if each.sent is not None and each.sent > at)

    def cost_of_others(self, minute: int) -> int:
        """Return the cost of those that were sent in another minute."""
        return self.cost - self._cost_of.get(minute, 0)

    def first_sent(self, minute: int) -> float | None:
        """Return when the first of a minute was sent."""
        sent = (each.sent for each in self.reservations if each.minute == minute and each.sent is not None)
        return min(sent, default=None)

    def first_probe_sent(self) -> float:
        """Return when the first probe of a doubtful budget was sent; long ago if there is none."""
        sent = (each.sent for each in self.reservations if each.is_probe and each.sent is not None)
        return min(sent, default=-math.inf)

    def relabel(self, minute: int, number: int) -> None:
        """Call a minute by another number."""
        for reservation in self.reservations:
            reservation.minute = number if reservation.minute == minute else reservation.minute
        if cost := self._cost_of.pop(minute, 0):
            self._cost_of[number] = self._cost_of.get(number, 0) + cost
