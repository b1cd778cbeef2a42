"""Who waits for the team's budget: the futures, timers and log lines around ``ratelimit``, which decides.

Each physical send takes a turn (``take``) and says what came of it (``replied``, ``lost``). With a Redis, a turn that
is due here is reserved there as well, before it goes.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable

from slproxy.config import PaceSettings
from slproxy.errors import Draining, OverBudget, Problem
from slproxy.http import MINUTE, Fields
from slproxy.pace.budget import PROBE_INTERVAL, Budget, Minute, Rules
from slproxy.pace.headers import RateLimitHeaders
from slproxy.pace.preferences import Preferences
from slproxy.pace.reservation import Reservation
from slproxy.pace.shared import FALLBACK_SECONDS, RedisBudget, Settlement

log = logging.getLogger("slproxy.pace")

# When replicas compete for the last of a minute, how long until Redis is asked again, in seconds.
POLL_INTERVAL = 0.1
# How many reservations are asked for in one go.
BATCH_SIZE = 100
# The log says who waits at most so often, in seconds, and names so many clients.
LOG_INTERVAL, MAX_CLIENTS_LOGGED = 1.0, 5


class Pacer:
    """The one owner of the budget, and of who waits for it."""

    def __init__(
        self,
        pace: PaceSettings,
        *,
        limit_given: bool,
        shared: RedisBudget | None,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._pace = pace
        self.shared = shared
        self._now, self._monotonic = now, monotonic
        self._limit_given = limit_given
        self.budget = Budget(self._rules(), unix=now(), now=monotonic())
        self._waiting: dict[Reservation, asyncio.Future[None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        # The turns that a reservation is asked for, and those of them whose clients have left meanwhile.
        self._reserving: asyncio.Task[None] | None = None
        self._asked_for: list[Reservation] = []
        self._gone: set[Reservation] = set()
        self._settling: asyncio.Task[None] | None = None
        self._settlements: list[Settlement] = []
        self._alone_until = -math.inf
        self._said_at = -math.inf
        self._saying: asyncio.TimerHandle | None = None

    def reconfigure(
        self, pace: PaceSettings, *, limit_given: bool, shared: RedisBudget | None, is_same_team: bool
    ) -> None:
        """Go on under other rules with who waits and, of the same team, with what is known."""
        self._pace, self._limit_given, self.shared = pace, limit_given, shared
        if not is_same_team:
            self.budget = self.budget.afresh(self._monotonic())
        self.budget.set_rules(self._rules())
        self._dispatch_due()

    def _rules(self) -> Rules:
        """Return the rules of the budget; a limit that somebody has set is kept, whatever SalesLoft allows."""
        pace = self._pace
        return Rules(
            limit=pace.limit,
            is_cap=self._limit_given,
            reserve=pace.reserve,
            burst=pace.burst,
            is_shared=self.shared is not None,
        )

    def take(
        self,
        method: str,
        target: str,
        preferences: Preferences,
        *,
        ticket: int | None = None,
        waited: float = 0.0,
        held: float = 0.0,
        requeue_timeout: float | None = None,
    ) -> Reservation | None:
        """Return the reservation of one physical send, which ``wait`` waits for; ``None`` where nothing is counted.

        A request that was sent before names its ``ticket``, for how long it has ``waited`` in all, of that ``held`` by
        pacing, and, where it was refused, for how long it may wait now.
        """
        if self._pace.mode == "off":
            return None
        now = self._monotonic()
        longest = self._pace.max_wait - held if requeue_timeout is None else requeue_timeout
        reservation = self.budget.reservation(
            method,
            target,
            client=preferences.client,
            bulk=preferences.bulk,
            now=now,
            max_wait=max(0.0, min(longest, preferences.max_wait - waited)),
            ticket=ticket,
        )
        if self._pace.mode == "observe":
            self.budget.book(reservation, now)
        elif not self._is_sharing(now):
            self.budget.try_send(reservation, now)
        return reservation

    async def wait(self, reservation: Reservation) -> None:
        """Wait until a reservation is sent, if it was not sent at once.

        Raises:
            OverBudget: it would have to wait for longer than it may.
        """
        if (wait := self.budget.enqueue(reservation, reservation.arrived)) is not None:
            raise self._over_budget(wait)
        future = self._waiting[reservation] = asyncio.get_running_loop().create_future()
        try:
            self._dispatch_due()
            self._say_who_waits()
            await future
            self.budget.waited(self._monotonic() - reservation.arrived)
        except asyncio.CancelledError:
            # The client has left: it costs nothing.
            if reservation in self._asked_for:
                self._gone.add(reservation)
            elif reservation.sent is None:
                self.budget.cancel(reservation)
                self._dispatch_due()
            else:
                self.lost(reservation, maybe_sent=False)
            raise
        finally:
            reservation.waited = self._monotonic() - reservation.arrived
            self._waiting.pop(reservation, None)

    def is_over(self, reservation: Reservation | None) -> bool:
        """Whether a turn that has not been sent yet is not to be: a 429 came meanwhile."""
        return (
            self._pace.mode == "pace"
            and reservation is not None
            and self.budget.is_over(reservation, self._monotonic())
        )

    def replied(self, reservation: Reservation | None, headers: RateLimitHeaders) -> bool:
        """Learn from the reply to what was sent; tell whether it was refused, and waits with the others."""
        if reservation is None:
            return False
        reserved, minute = reservation.cost, reservation.minute
        now = self._monotonic()
        cost, remaining = self.budget.replied(reservation, now, headers)
        if self.shared is not None:
            settle = functools.partial(self._settle, minute, reserved=reserved, cost=cost, remaining=remaining)
            # Who was refused as a scout has found it out for all: until it asks again, the others need not.
            if headers.refused and self.budget.is_probing(now):
                asyncio.get_running_loop().call_later(PROBE_INTERVAL, settle)
            else:
                settle()
        if self.budget.is_waited_for:
            self._dispatch_due()
        return reservation.requeued and self._pace.mode == "pace"

    def lost(self, reservation: Reservation | None, *, maybe_sent: bool) -> None:
        """Take note that what was sent got no reply; ``maybe_sent`` if a byte of it may have left."""
        if reservation is None:
            return
        self.budget.lost(reservation, self._monotonic(), maybe_sent=maybe_sent)
        self._settle(
            reservation.minute, reserved=reservation.cost, cost=reservation.cost if maybe_sent else 0, remaining=None
        )
        self._dispatch_due()

    def fields(self) -> Fields:
        """Return the headers that tell a client of the budget (draft-ietf-httpapi-ratelimit-headers-11)."""
        if self._pace.mode == "off":
            return []
        now = self._monotonic()
        remaining, reset = self.budget.remaining(now), math.ceil(self.budget.resets_in(now))
        return [
            ("RateLimit-Policy", f'"team";q={self.budget.quota};w=60'),
            ("RateLimit", f'"team";r={remaining};t={reset}'),
        ]

    def drain(self, grace: float) -> None:
        """Tell those at once who could not be sent within ``grace`` seconds; the others go on waiting."""
        now = self._monotonic()
        for reservation in [each for each in self.budget.waiting() if self.budget.estimated_wait(each, now) > grace]:
            self.budget.cancel(reservation)
            self._wake(reservation, Draining("The proxy is shutting down.", hint="Send the request again."))

    async def close(self) -> None:
        """Stop; what replicas share is told the last of it."""
        for task in (self._reserving, self._settling):
            if task is not None:
                await asyncio.wait({task})
        for timer in (self._alarm, self._saying):
            if timer is not None:
                timer.cancel()
        if self.shared is not None:
            await self.shared.close()

    # Whose turn it is.

    def _dispatch_due(self) -> None:
        """Let those go whose turn it is, tell those whose time is up, and look again when that may change."""
        now, budget = self._monotonic(), self.budget
        budget.probes_together = self._is_sharing(now)
        if self._pace.mode != "pace":
            for reservation in list(budget.waiting()):
                budget.send(reservation, now)
                self._wake(reservation)
        elif self._is_sharing(now):
            if self._reserving is None and budget.due(now) is not None:
                self._reserving = asyncio.create_task(self._reserve(), name="slproxy: reserve budget")
                self._reserving.add_done_callback(self._reserved)
        else:
            self._send_due(now)
        if self._reserving is None:
            late = budget.expired(now)
            for reservation in late:
                self._wake(reservation, self._over_budget(max(1.0, budget.estimated_wait(reservation, now))))
            if late:
                # Who stood behind them may be due.
                self._dispatch_due()
                return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._reserving is None and (wait := budget.wake_in(now)) is not None:
            # Not at once: what is due has gone, so that a wait of 0 would be asked for again and again.
            self._alarm = asyncio.get_running_loop().call_later(max(wait, 0.001), self._dispatch_due)

    def _send_due(self, now: float) -> None:
        while (reservation := self.budget.due(now)) is not None:
            self.budget.send(reservation, now)
            self._wake(reservation)

    def _wake(self, reservation: Reservation, error: Problem | None = None) -> None:
        future = self._waiting.get(reservation)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def _is_sharing(self, now: float) -> bool:
        # A minute that slides is none that replicas could share: each goes by what its replies tell.
        together = self._pace.mode == "pace" and not self.budget.is_sliding
        return self.shared is not None and together and now >= self._alone_until

    async def _reserve(self) -> None:
        """Reserve for all who are due here, as long as there are any and there is budget in Redis."""
        asked = self._asked_for
        while (shared := self.shared) is not None:
            now, budget = self._monotonic(), self.budget
            while len(asked) < BATCH_SIZE and (reservation := budget.due(now)) is not None:
                budget.send(reservation, now)
                asked.append(reservation)
            if not asked:
                return
            minute = budget.minute.number
            answer = await shared.reserve(
                minute,
                [reservation.cost for reservation in asked],
                limit=budget.limit,
                quota=budget.quota,
                headroom=budget.headroom,
                probing=budget.is_probing(now),
            )
            now, budget = self._monotonic(), self.budget
            if answer is None:
                self._alone_until = now + FALLBACK_SECONDS
            elif answer.others is not None and minute == budget.minute.number:
                budget.note_external_spend(answer.others, now)
            granted = len(asked) if answer is None else answer.granted
            lowest = min((reservation.cost for reservation in asked[granted:]), default=0)
            for number, reservation in enumerate(asked):
                if reservation in self._gone:
                    budget.lost(reservation, now, maybe_sent=False)
                    if answer is not None and number < granted:
                        self._settle(minute, reserved=reservation.cost, cost=0, remaining=None)
                elif number < granted:
                    self._wake(reservation)
                else:
                    budget.requeue(reservation, now)
            asked.clear()
            self._gone.clear()
            if answer is not None and lowest:
                # Spent; or in flight elsewhere, and then it may still come back in this minute.
                budget.block_until(
                    now + (POLL_INTERVAL if lowest <= answer.left else budget.time.until(minute + 1, now))
                )
            if answer is None or lowest:
                return

    def _reserved(self, task: asyncio.Task[None]) -> None:
        self._reserving = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a defect in slproxy, while reserving budget", exc_info=error)
            now = self._monotonic()
            self._alone_until = now + FALLBACK_SECONDS
            for reservation in self._asked_for:
                if reservation in self._gone:
                    self.budget.lost(reservation, now, maybe_sent=False)
                elif (future := self._waiting.get(reservation)) is not None and not future.done():
                    self.budget.requeue(reservation, now)
            self._asked_for.clear()
            self._gone.clear()
        self._dispatch_due()
        self._say_who_waits()

    def _settle(self, minute: int | None, *, reserved: int, cost: int, remaining: int | None) -> None:
        if minute is None or not self._is_sharing(self._monotonic()):
            return
        self._settlements.append(Settlement(minute, reserved, cost, remaining))
        if self._settling is None:
            self._settling = asyncio.create_task(self._settle_all(), name="slproxy: settle budget")

    async def _settle_all(self) -> None:
        """Tell Redis what came of reservations, those of a moment together."""
        try:
            while self._settlements and self.shared is not None:
                settlements, self._settlements = self._settlements, []
                await self.shared.settle(settlements)
        finally:
            self._settling = None

    # What is said.

    def _over_budget(self, wait: float) -> OverBudget:
        budget = self.budget
        whose = "The team's budget" if budget.quota == budget.limit else "This proxy's part of the team's budget"
        return OverBudget(
            f"{whose}, {budget.quota} a minute, is spent, and the request may not wait for more.",
            hint="Send it again after Retry-After, or let it wait: pace.max_wait, and Prefer: wait=SECONDS.",
            headers=(("Retry-After", str(math.ceil(wait))),),
        )

    def _say_who_waits(self) -> None:
        if self._saying is not None or self._reserving is not None:
            return
        now = self._monotonic()
        if (early := self._said_at + LOG_INTERVAL - now) > 0:
            self._saying = asyncio.get_running_loop().call_later(early, self._say_it)
        else:
            self._say_it()

    def _who_waits(self) -> Counter[str]:
        return Counter(
            f"{reservation.client} (bulk)" if reservation.bulk else reservation.client
            for reservation in self.budget.waiting()
        )

    def _say_it(self) -> None:
        self._saying = None
        now = self._monotonic()
        if not (waiting := list(self.budget.waiting())):
            return
        self._said_at = now
        named = ", ".join(f"{name} {count}" for name, count in self._who_waits().most_common(MAX_CLIENTS_LOGGED))
        wait = self.budget.estimated_wait(waiting[-1], now)
        until = time.strftime("%H:%M:%S", time.localtime(self._now() + wait))
        log.info("%d wait for the team's budget, the last until %s (%.1f s): %s", len(waiting), until, wait, named)

    def state(self) -> dict[str, object] | None:
        """Return what ``status.json`` tells of the budget; ``None`` where nothing is counted."""
        if self._pace.mode == "off":
            return None
        now, budget = self._monotonic(), self.budget
        remaining = budget.remaining(now)
        return {
            "mode": self._pace.mode,
            "limit": budget.limit,
            "told": budget.is_told,
            "ours": budget.quota,
            "remaining": remaining,
            "resets_in": round(budget.resets_in(now), 1),
            "window": "sliding" if budget.is_sliding else "minute",
            "shared": None if self.shared is None else f"redis {self.shared.host}",
            "alone": self.shared is not None and self.shared.is_alone,
            "queue": {
                "interactive": sum(not reservation.bulk for reservation in budget.waiting()),
                "bulk": sum(reservation.bulk for reservation in budget.waiting()),
            },
            "waiting": dict(self._who_waits().most_common()),
            "in_flight": budget.in_flight,
            "this_minute": _shown(budget.minute),
            "last_minutes": [_shown(minute) for minute in budget.history],
        }


def _shown(minute: Minute) -> dict[str, object]:
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(minute.number * MINUTE)),
        "spent": minute.spent,
        "by_client": dict(minute.by_client.most_common()),
        "by_endpoint": dict(minute.by_endpoint.most_common()),
        "by_others": minute.external_spend,
        "refused": minute.refused,
        "waited": minute.waited,
        "longest_wait": round(minute.longest_wait, 1),
    }
