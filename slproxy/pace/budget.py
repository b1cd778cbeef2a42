"""Budget: whose request is sent next, and when, decided without a clock or IO.

``account`` says what may be spent, ``queue`` who is next; ``now`` is monotonic, in seconds, and never runs backwards.
"""

from __future__ import annotations

import math

from slproxy.pace.account import Account
from slproxy.pace.estimate import estimated_wait
from slproxy.pace.probe import PROBE_INTERVAL, PROBE_TIMEOUT
from slproxy.pace.queue import Queue
from slproxy.pace.reservation import Reservation
from slproxy.pace.rules import Rules
from slproxy.retry import MINUTE


class Budget:
    """The team's budget as this process knows it, and who waits for it."""

    def __init__(self, rules: Rules, *, unix: float, now: float, queue: Queue | None = None) -> None:
        """``unix`` is our own clock's time at ``now``."""
        self.queue = Queue() if queue is None else queue
        self.account = Account(rules, self.queue, unix=unix, now=now)

    def for_another_team(self, now: float) -> Budget:
        """Return the budget of another team, for the same queue; what is in flight teaches it nothing."""
        return Budget(self.account.rules, unix=self.account.time.earliest(now), now=now, queue=self.queue)

    def reservation(
        self,
        method: str,
        target: str,
        *,
        client: str,
        bulk: bool,
        now: float,
        max_wait: float,
        ticket: int | None = None,
        budget: int | None = None,
    ) -> Reservation:
        """Return the reservation of a request that may wait ``max_wait`` seconds; a repeat keeps its ``ticket``.

        ``budget`` is what its client may spend a minute.
        """
        endpoint, page_cost, cost = self.account.costs.predict(method, target)
        if ticket is None:
            ticket = next(self.queue.tickets)
        return Reservation(ticket, endpoint, page_cost, client, bulk, now, now + max_wait, cost, budget)

    def try_send(self, reservation: Reservation, now: float) -> bool:
        """Send a reservation that nothing holds: nobody waits, and there is budget."""
        account = self.account
        if now >= account.ends_at:
            account.roll(now)
        if self.queue.interactive or self.queue.bulk or account.sliding is not None:
            return False
        if now < account.blocked_until or account.probe.is_wanted or reservation.cost > account.left(now):
            return False
        if account.endpoints.until and self._is_held(reservation, now):
            return False
        if reservation.budget is not None and self._is_over_own(reservation):
            return False
        account.book(reservation, now)
        return True

    def enqueue(self, reservation: Reservation, now: float) -> float | None:
        """Queue a reservation; or, if it cannot be sent in time, return the seconds after which it could."""
        self.account.roll(now)
        wait = self.estimated_wait(reservation, now)
        if wait > reservation.deadline - now or wait == math.inf:
            return max(wait, 1.0)
        if now < self._blocked_until(reservation, now) > self.account.blocked_until:
            self.queue.park(reservation)
        else:
            self.queue.add(reservation)
        return None

    def _blocked_until(self, reservation: Reservation, now: float) -> float:
        """Return until when nobody is sent, or a reservation is held alone."""
        return max(self.account.blocked_until, self._held_alone_until(reservation, now))

    def _held_alone_until(self, reservation: Reservation, now: float) -> float:
        """Return until when a reservation is held that nobody waits behind: by its endpoint, or its client's budget."""
        until = self.account.endpoints.held_until(reservation.endpoint)
        return max(until, self.account.ends_at, now + PROBE_INTERVAL) if self._is_over_own(reservation) else until

    def _is_over_own(self, reservation: Reservation) -> bool:
        """Tell whether its client may not spend so much more of this minute."""
        if reservation.budget is None:
            return False
        return self.account.minute.by_budget[reservation.client] + reservation.cost > reservation.budget

    def _wait_for_own(self, reservation: Reservation, now: float) -> float:
        """Return the seconds until its client may spend so much, after what it has waiting; without end if never."""
        if reservation.budget is None:
            return 0.0
        if reservation.cost > reservation.budget:
            return math.inf
        account = self.account
        # Without a budget it is somebody who only calls itself so.
        of_client = (each for each in self.queue if each.client == reservation.client and each.budget is not None)
        ahead = sum(each.cost for each in of_client if each.ticket < reservation.ticket)
        spent = account.minute.by_budget[reservation.client] + ahead + reservation.cost
        minutes = math.ceil(spent / reservation.budget) - 1
        return account.time.until(account.minute.number + 1, now) + (minutes - 1) * MINUTE if minutes > 0 else 0.0

    def _is_held(self, reservation: Reservation, now: float) -> bool:
        """Tell whether its endpoint is held, or it can wait for the one that finds out why some endpoint is."""
        account = self.account
        if now < account.endpoints.held_until(reservation.endpoint):
            return True
        return now < account.held_until(now) and reservation.deadline - now > PROBE_TIMEOUT

    def expire(self, now: float) -> list[Reservation]:
        """Take out, and return, those that have waited for as long as they may, or would in vain."""
        return self.queue.expire(now, lambda each: self._blocked_until(each, now))

    def due(self, now: float) -> Reservation | None:
        """Return who is to be sent now, if anybody is; ``send`` says that it is."""
        account, queue = self.account, self.queue
        account.roll(now)
        if queue.parked:
            queue.unpark(lambda each: now < self._held_alone_until(each, now))
        while (reservation := queue.first()) is not None and now < self._held_alone_until(reservation, now):
            queue.park(reservation)
        if reservation is None:
            return None
        if now < account.held_until(now) or (account.sliding is not None and now < account.sliding.next_at):
            return None
        if account.endpoints.have_stopped_all and account.endpoints.gives_way(reservation.endpoint):
            reservation = self._first_of_others(now) or reservation
        return reservation if self._lacking(reservation, now) <= 0 or self._is_untouched() else None

    def _lacking(self, reservation: Reservation, now: float) -> float:
        """Return what is missing for a reservation: one for more than our part needs all of that, and the team's."""
        account, cost = self.account, reservation.cost
        return max(
            min(cost, account.quota) - account.left(now),
            min(cost, account.limit) - account.team_left(now) if cost > account.quota else -math.inf,
        )

    def _is_untouched(self) -> bool:
        """Tell whether nothing is known to be spent of this minute: then anything may go, were it over the limit."""
        account, minute = self.account, self.account.minute
        untouched = minute.remaining is None and minute.spent == minute.early == 0
        return untouched and account.sliding is None and not account.in_flight

    def _first_of_others(self, now: float) -> Reservation | None:
        """Return the first to an endpoint that has not stopped all, if it can go: it must not wait for one that has."""
        queue, endpoints, left = self.queue, self.account.endpoints, self.account.left(now)
        waiting = (each for each in (*queue.interactive, *queue.bulk) if not endpoints.gives_way(each.endpoint))
        first = next((each for each in waiting if now >= endpoints.held_until(each.endpoint)), None)
        return first if first is not None and first.cost <= left else None

    def send(self, reservation: Reservation, now: float) -> None:
        """Spend what a reservation costs: it has waited, and goes now."""
        self.account.roll(now)
        self.queue.pop(reservation)
        self.account.book(reservation, now)
        if self.account.sliding is not None:
            self.account.sliding.sent(reservation.cost, self.account.quota, now)

    def requeue(self, reservation: Reservation, now: float) -> None:
        """Take back a ``send``, since other replicas were faster: it waits on, at its place."""
        self.account.take_back(reservation, now)
        self.queue.add(reservation)

    def estimated_wait(self, reservation: Reservation, now: float) -> float:
        """Return after how many seconds a reservation that comes now would be sent, as things stand."""
        blocked = self._blocked_until(reservation, now) - now
        return max(self._wait_for_team(reservation, now, blocked), self._wait_for_own(reservation, now))

    def waits_for_own(self, reservation: Reservation, now: float) -> bool:
        """Tell whether it is its client's own budget that a reservation waits for, and not the team's for longer."""
        blocked = max(self.account.blocked_until, self.account.endpoints.held_until(reservation.endpoint)) - now
        own = self._wait_for_own(reservation, now)
        return 0 < own >= self._wait_for_team(reservation, now, blocked)

    def _wait_for_team(self, reservation: Reservation, now: float, blocked: float) -> float:
        account, ahead = self.account, self.queue.ahead_of(reservation)
        blocked = max(0.0, blocked)
        left = account.left(now, at_best=True)
        if account.sliding is not None:
            return max(
                blocked,
                account.sliding.estimated_wait(sum(ahead), reservation.cost, quota=account.quota, left=left, now=now),
            )
        if not blocked and not ahead and (reservation.cost <= left or self._is_untouched()):
            return 0.0
        share = self.queue.share_of(reservation)
        per_minute = account.external.next_quota(
            account.minute, limit=account.limit, quota=account.quota, headroom=account.headroom
        )
        return estimated_wait(
            (*ahead, reservation.cost),
            blocked=blocked,
            opening=account.time.until(account.minute.number + 1, now),
            left=left * share,
            team=account.team_left(now, at_best=True),
            growth=account.rules.growth(account.quota) * share,
            per_minute=per_minute * share,
        )

    def wake_in(self, now: float) -> float | None:
        """Return the seconds until time alone may change who is due or who expires; ``None`` if nobody waits."""
        account, reservation = self.account, self.queue.first()
        if not self.queue:
            return None
        account.roll(now)
        waits = [max(0.0, min(each.deadline for each in self.queue) - now)]
        waits += [max(0.0, self._blocked_until(each, now) - now) for each in self.queue.parked]
        if reservation is None:
            return min(waits) if min(waits) < math.inf else None
        lacking = self._lacking(reservation, now)
        held = account.held_until(now) - now
        if held > 0:
            waits.append(held)
        elif account.sliding is not None:
            waits.append(max(account.sliding.next_at - now, lacking * MINUTE / account.limit, 0.0))
        else:
            # It may be over already, before the first reply; then only that brings the next one.
            if now < account.ends_at:
                waits.append(account.time.until(account.minute.number + 1, now))
            price = min(reservation.cost, account.limit)
            if (growth := account.rules.growth(account.quota)) and price <= account.team_left(now) - account.headroom:
                waits.append(max(0.0, lacking / growth))
        soonest = min(waits)
        return soonest if soonest < math.inf else None
