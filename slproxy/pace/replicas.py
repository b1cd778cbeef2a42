"""Replicas: what is due here is reserved in Redis as well before it goes, and settled there afterwards."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable

from slproxy.pace.budget import Budget
from slproxy.pace.reservation import Reservation
from slproxy.pace.shared import FALLBACK_SECONDS, GRANTED, OVER_OWN, WAITS, RedisBudget, Settlement

log = logging.getLogger("slproxy.pace")

# When replicas compete for the last of a minute, how long until Redis is asked again, in seconds.
POLL_INTERVAL = 0.1
# How many reservations are asked for in one go.
BATCH_SIZE = 100
# How many settlements are kept while Redis does not answer.
MAX_KEPT = 1000


def own(reservation: Reservation) -> str:
    """Return the client of whose own budget a reservation is, or nothing."""
    return reservation.client if reservation.budget is not None else ""


class Replicas:
    """The one that asks Redis, a batch of reservations at a time."""

    def __init__(
        self,
        redis: RedisBudget | None,
        budget: Budget,
        *,
        monotonic: Callable[[], float],
        granted: Callable[[Reservation], None],
        done: Callable[[], None],
    ) -> None:
        """``granted`` is told of each reservation that may go, and ``done`` when no more are asked for."""
        self.redis, self.budget = redis, budget
        self._monotonic, self._granted, self._done = monotonic, granted, done
        self._reserving: asyncio.Task[None] | None = None
        # What is asked for, and those of it whose clients have left meanwhile.
        self._asked: list[Reservation] = []
        self._cancelled: set[Reservation] = set()
        self._settling: asyncio.Task[None] | None = None
        self._settlements: list[Settlement] = []
        self._fallback_until = -math.inf

    def reconfigure(self, redis: RedisBudget | None, budget: Budget) -> None:
        """Go on with these; what another Redis has reserved, or another team has sent, is not settled in them."""
        if redis is not self.redis or budget is not self.budget:
            self._settlements.clear()
            for each in self.budget.account.in_flight.reservations:
                each.reserved_in, each.minute = None, each.minute if budget is self.budget else None
        self.redis, self.budget = redis, budget

    def share(self, now: float) -> bool:
        """Tell whether Redis decides: it answers, and a minute that slides is none that replicas could share."""
        return self.redis is not None and self.budget.account.sliding is None and now >= self._fallback_until

    @property
    def is_reserving(self) -> bool:
        """Whether Redis is being asked."""
        return self._reserving is not None

    def reserve_due(self) -> None:
        """Ask Redis for all who are due, unless it is being asked."""
        if self._reserving is None and self.budget.due(self._monotonic()) is not None:
            self._reserving = asyncio.create_task(self._reserve(), name="slproxy: reserve budget")
            self._reserving.add_done_callback(self._reserved)

    def cancel(self, reservation: Reservation) -> bool:
        """Give up a reservation whose client has left; return whether it is being asked for."""
        if reservation not in self._asked:
            return False
        self._cancelled.add(reservation)
        return True

    def settle(self, reservation: Reservation, *, cost: int, remaining: int | None) -> None:
        """Tell Redis soon what came of a reservation, or once it answers again.

        Also of a minute that slides: what was reserved of it would stay in flight, and what is not told the other
        replicas take for spent by others.
        """
        minute, reserved_in = reservation.minute, reservation.reserved_in
        if minute is None or self.redis is None:
            return
        reserved, client = 0 if reserved_in is None else reservation.cost, own(reservation)
        reservation.reserved_in = None
        if reserved_in not in (None, minute):
            # That minute was none of the upstream's, as its first reply has told.
            self._settlements.append(Settlement(reserved_in, reserved, 0, None, client))
            reserved = 0
        self._settlements.append(Settlement(minute, reserved, cost, remaining, client))
        del self._settlements[:-MAX_KEPT]
        self._settle_soon()

    def _settle_soon(self) -> None:
        """Tell Redis what there is to tell, unless it is being told, or did not answer lately."""
        if self._settlements and self._settling is None and self._monotonic() >= self._fallback_until:
            self._settling = asyncio.create_task(self._settle(), name="slproxy: settle budget")

    async def close(self) -> None:
        """Tell Redis the last of it, and close the connections."""
        while (task := self._reserving or self._settling) is not None:
            await asyncio.wait({task})
        if self.redis is not None:
            if self._settlements:
                await self.redis.settle(self._settlements, limit=self.budget.account.limit)
            await self.redis.close()

    async def _reserve(self) -> None:
        """Reserve for all who are due here, as long as there are any and there is budget in Redis."""
        asked = self._asked
        while (redis := self.redis) is not None:
            now, budget = self._monotonic(), self.budget
            while len(asked) < BATCH_SIZE and (reservation := budget.due(now)) is not None:
                budget.send(reservation, now)
                asked.append(reservation)
            if not asked:
                return
            account = budget.account
            minute = account.minute.number
            answer = await redis.reserve(
                minute,
                [each.cost for each in asked],
                own=[None if each.budget is None else (each.client, each.budget) for each in asked],
                limit=account.limit,
                quota=account.quota,
                headroom=account.headroom,
                probing=account.is_probing(now),
            )
            now, budget = self._monotonic(), self.budget
            account = budget.account
            if answer is None:
                self._fallback_until = now + FALLBACK_SECONDS
            elif answer.others is not None and minute == account.minute.number and redis is self.redis:
                account.note_external_spend(answer.others, now)
            verdicts = GRANTED * len(asked) if answer is None else answer.verdicts
            waiting = [each.cost for each, verdict in zip(asked, verdicts, strict=True) if verdict == WAITS]
            lowest = min(min(waiting, default=0), account.quota)
            for verdict in verdicts:
                reservation = asked.pop(0)
                is_counted = verdict == GRANTED and answer is not None and redis is self.redis
                reservation.reserved_in = minute if is_counted else None
                if reservation in self._cancelled:
                    account.lost(reservation, now, maybe_sent=False)
                    if reservation.reserved_in is not None:
                        self.settle(reservation, cost=0, remaining=None)
                elif verdict == GRANTED:
                    self._granted(reservation)
                else:
                    budget.requeue(reservation, now)
                if verdict == OVER_OWN and minute == account.minute.number:
                    account.minute.note_own_spent(reservation.client, reservation.budget)
            self._cancelled.clear()
            self._settle_soon()
            if account.sliding is not None:
                return  # no minute that replicas share, and nothing comes back at its end
            if answer is not None and lowest:
                # Spent; or in flight elsewhere, and then it may still come back in this minute.
                again = POLL_INTERVAL if lowest <= answer.left else account.time.until(minute + 1, now)
                account.block_until(now + again)
            if answer is None or lowest:
                return

    def _reserved(self, task: asyncio.Task[None]) -> None:
        self._reserving = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a defect in slproxy, while reserving budget", exc_info=error)
            now = self._monotonic()
            self._fallback_until = now + FALLBACK_SECONDS
            for reservation in self._asked:
                if reservation in self._cancelled:
                    self.budget.account.lost(reservation, now, maybe_sent=False)
                else:
                    self.budget.requeue(reservation, now)
            self._asked.clear()
            self._cancelled.clear()
        self._done()

    async def _settle(self) -> None:
        """Tell Redis what came of reservations, those of a moment together."""
        try:
            while self._settlements and (redis := self.redis) is not None:
                settlements, self._settlements = self._settlements, []
                answer = await redis.settle(settlements, limit=self.budget.account.limit)
                self._note_others(zip(settlements, answer, strict=False), is_ours=redis is self.redis)
        finally:
            self._settling = None

    def _note_others(self, told: Iterable[tuple[Settlement, int | None]], *, is_ours: bool) -> None:
        """Note what no replica has spent: whoever has heard that nothing remains does not ask, and learns it here."""
        account = self.budget.account
        was_sliding = account.sliding is not None
        for settlement, others in told:
            if others is not None and is_ours and settlement.minute == account.minute.number and not account.sliding:
                account.note_external_spend(others, self._monotonic())
        if account.sliding is not None and not was_sliding and self._reserving is None:
            self._done()
