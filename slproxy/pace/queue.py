"""Queue: who waits for the budget, in order, interactive requests before bulk ones.

First come, first served within a priority. Nobody overtakes, not even with a request that would still fit.
"""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Callable, Iterator

from slproxy.pace.reservation import Reservation

# What bulk requests get of each stretch in which interactive ones wait as well.
BULK_SHARE = 0.1


class Queue:
    """The reservations that wait; a ticket says who came first."""

    def __init__(self) -> None:
        self.interactive: deque[Reservation] = deque()
        self.bulk: deque[Reservation] = deque()
        # Those whose endpoint is held: nobody waits behind them.
        self.parked: list[Reservation] = []
        self.tickets = itertools.count()
        # What both priorities, and bulk alone, have spent while both waited.
        self._contested = self._contested_bulk = 0

    def __len__(self) -> int:
        return len(self.interactive) + len(self.bulk) + len(self.parked)

    def __iter__(self) -> Iterator[Reservation]:
        return itertools.chain(self.interactive, self.bulk, self.parked)

    def add(self, reservation: Reservation) -> None:
        """Queue a reservation by its ticket: a request that was refused keeps its place."""
        queue = self.bulk if reservation.bulk else self.interactive
        if not queue or queue[-1].ticket < reservation.ticket:
            queue.append(reservation)
        else:
            queue.insert(bisect.bisect_left(queue, reservation.ticket, key=lambda each: each.ticket), reservation)

    def cancel(self, reservation: Reservation) -> None:
        """Take a reservation out, if it is in; nothing was spent on it."""
        for queue in (self.bulk if reservation.bulk else self.interactive, self.parked):
            if reservation in queue:
                queue.remove(reservation)

    def park(self, reservation: Reservation) -> None:
        """Let others pass a reservation, whether or not it waits already."""
        self.cancel(reservation)
        self.parked.append(reservation)

    def unpark(self, is_held: Callable[[Reservation], bool]) -> None:
        """Put those back at their places that are no longer held."""
        for reservation in [each for each in self.parked if not is_held(each)]:
            self.parked.remove(reservation)
            self.add(reservation)

    def first(self) -> Reservation | None:
        """Return who is next: interactive, unless bulk has had less than its share while both waited."""
        if not self.bulk or not self.interactive:
            return self.interactive[0] if self.interactive else self.bulk[0] if self.bulk else None
        bulk = self.bulk[0]
        owed = self._contested_bulk + bulk.cost <= BULK_SHARE * (self._contested + bulk.cost)
        return bulk if owed else self.interactive[0]

    def pop(self, reservation: Reservation) -> None:
        """Take out who is sent now, and count it against the share of its priority."""
        if self.interactive and self.bulk:
            self._contested += reservation.cost
            self._contested_bulk += reservation.cost if reservation.bulk else 0
        else:
            self._contested = self._contested_bulk = 0
        self.cancel(reservation)

    def expire(self, now: float, blocked_until: Callable[[Reservation], float]) -> list[Reservation]:
        """Take out, and return, those that have waited for as long as they may, or would in vain."""
        late = [each for each in self if each.deadline <= now or each.deadline < blocked_until(each)]
        for reservation in late:
            self.cancel(reservation)
        return late

    def ahead_of(self, reservation: Reservation) -> list[int]:
        """Return the costs of those who go before a reservation, in their order."""
        ahead = [each.cost for each in self.interactive if reservation.bulk or each.ticket < reservation.ticket]
        return ahead + [each.cost for each in self.bulk if reservation.bulk and each.ticket < reservation.ticket]

    def share_of(self, reservation: Reservation) -> float:
        """Return the share of the budget that the priority of a reservation gets while both wait."""
        return 1.0 - BULK_SHARE if self.bulk and not reservation.bulk else 1.0
