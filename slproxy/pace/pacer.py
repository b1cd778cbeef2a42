"""Pacer: who waits for the team's budget; the futures, timers and log lines around ``Budget``, which decides.

Each physical send takes a reservation (``take``, ``wait``) and says what came of it (``replied``, ``lost``).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from slproxy.config import PaceSettings
from slproxy.errors import Draining, OverBudget, Problem
from slproxy.http import Fields
from slproxy.observe import BudgetReading
from slproxy.pace.budget import Budget
from slproxy.pace.costs import page_cost
from slproxy.pace.estimate import room_in
from slproxy.pace.headers import RateLimitHeaders
from slproxy.pace.preferences import Preferences
from slproxy.pace.probe import PROBE_INTERVAL
from slproxy.pace.refusal import Refusal
from slproxy.pace.replicas import Replicas
from slproxy.pace.report import reading, report, waiting_by_client
from slproxy.pace.reservation import Reservation
from slproxy.pace.rules import Rules
from slproxy.pace.shared import RedisBudget

log = logging.getLogger("slproxy.pace")

# The log says who waits at most so often, in seconds, and names so many clients.
LOG_INTERVAL, MAX_CLIENTS_LOGGED = 1.0, 5


class Timer(Protocol):
    """What ``call_later`` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


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
        call_later: CallLater,
    ) -> None:
        self._pace = pace
        self._now, self._monotonic, self._call_later = now, monotonic, call_later
        rules = _rules(pace, limit_given=limit_given, is_shared=shared is not None)
        self.budget = Budget(rules, unix=now(), now=monotonic())
        self._replicas = Replicas(
            shared, self.budget, monotonic=monotonic, granted=self._wake, done=self._dispatch_and_log
        )
        self._waiting: dict[Reservation, asyncio.Future[None]] = {}
        self._timer: Timer | None = None
        self._logged_at = -math.inf
        self._log_timer: Timer | None = None

    @property
    def shared(self) -> RedisBudget | None:
        """The budget that replicas share, if there is one."""
        return self._replicas.redis

    def reconfigure(
        self, pace: PaceSettings, *, limit_given: bool, shared: RedisBudget | None, is_same_team: bool
    ) -> None:
        """Go on under other rules with those who wait and, for the same team, with what is known."""
        self._pace = pace
        if not is_same_team:
            self.budget = self.budget.for_another_team(self._monotonic())
        self._replicas.reconfigure(shared, self.budget)
        self.budget.account.set_rules(_rules(pace, limit_given=limit_given, is_shared=shared is not None))
        self._dispatch_due()

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
        """Return the reservation of one physical send; ``None`` where nothing is counted.

        Where it is not ``sent`` at once, ``wait`` waits for it. A request that was sent before names its ``ticket``,
        for how long it has ``waited`` in all, of that ``held`` by pacing, and, where it was refused, for how long it
        may wait now.

        Raises:
            OverBudget: it would have to wait for longer than it may.
        """
        if self._pace.mode == "off":
            return None
        now = self._monotonic()
        longest = self._pace.max_wait - held if requeue_timeout is None else requeue_timeout
        if preferences.max_wait - waited < longest:
            longest = preferences.max_wait - waited
        reservation = self.budget.reservation(
            method,
            target,
            client=preferences.client,
            bulk=preferences.bulk,
            now=now,
            max_wait=longest if longest > 0.0 else 0.0,
            ticket=ticket,
            budget=preferences.budget,
        )
        if self._pace.mode == "observe":
            self.budget.account.book(reservation, now)
        elif self._replicas.redis is None or not self._replicas.share(now):
            self.budget.try_send(reservation, now)
        if reservation.sent is None and (wait := self.budget.enqueue(reservation, now)) is not None:
            raise self._over_budget(reservation, wait)
        return reservation

    async def wait(self, reservation: Reservation) -> None:
        """Wait until a reservation is sent; then, or if it never is, it says for how long it has ``waited``.

        Raises:
            OverBudget: it has waited for as long as it may.
        """
        future = self._waiting[reservation] = asyncio.get_running_loop().create_future()
        try:
            self._dispatch_and_log()
            await future
            self.budget.account.minute.note_wait(self._monotonic() - reservation.arrived)
        except asyncio.CancelledError:
            # The client has left: it costs nothing.
            if self._replicas.cancel(reservation):
                pass
            elif reservation.sent is None:
                self.budget.queue.cancel(reservation)
                self._dispatch_due()
            else:
                self.lost(reservation, maybe_sent=False)
            raise
        finally:
            reservation.waited = self._monotonic() - reservation.arrived
            self._waiting.pop(reservation, None)

    def is_revoked(self, reservation: Reservation | None) -> bool:
        """Tell whether a reservation that is not on its way yet is void: a 429 came meanwhile."""
        if reservation is None or self._pace.mode != "pace":
            return False
        return self.budget.account.is_revoked(reservation, self._monotonic())

    def replied(self, reservation: Reservation | None, headers: RateLimitHeaders, *, target: str) -> Refusal | None:
        """Learn from the reply to what was sent to ``target``; return what it was refused for, if it was."""
        if reservation is None:
            if not headers.refused:
                return None
            return Refusal.BUDGET if headers.is_about_budget(page_cost(target.partition("?")[2])) else Refusal.OTHER
        now, account = self._monotonic(), self.budget.account
        cost, remaining = account.replied(reservation, now, headers)
        if self._replicas.redis is not None:
            settle = functools.partial(self._settle, reservation, cost=cost, remaining=remaining)
            # A refused probe answers for every replica: none of the others needs to ask until it probes again.
            if headers.refused and account.is_probing(now):
                self._call_later(PROBE_INTERVAL, settle)
            else:
                settle()
        if self._waiting:
            self._dispatch_due()
        if (refusal := reservation.refusal) is not None and self._pace.mode != "pace":
            return Refusal.BUDGET if refusal is Refusal.REQUEUED else refusal
        return refusal

    def lost(self, reservation: Reservation | None, *, maybe_sent: bool) -> None:
        """Settle what was sent and got no reply; ``maybe_sent`` if a byte of it may have left."""
        if reservation is None:
            return
        self.budget.account.lost(reservation, self._monotonic(), maybe_sent=maybe_sent)
        cost = reservation.cost if maybe_sent else 0
        self._settle(reservation, cost=cost, remaining=None)
        self._dispatch_due()

    def fields(self) -> Fields:
        """Return the headers that tell a client of the budget (draft-ietf-httpapi-ratelimit-headers-11)."""
        if self._pace.mode == "off":
            return []
        now, account = self._monotonic(), self.budget.account
        remaining, reset = account.remaining(now), math.ceil(account.resets_in(now))
        return [
            ("RateLimit-Policy", f'"team";q={account.quota};w=60'),
            ("RateLimit", f'"team";r={remaining};t={reset}'),
        ]

    def spent_by(self, client: str) -> int:
        """Return what a client has spent of its own budget in this minute."""
        self.budget.account.roll(self._monotonic())
        return self.budget.account.minute.by_budget[client]

    def room_in(self, inside: int) -> int:
        """Return the seconds after which the first of so many requests that the proxy has will have ended."""
        budget = self.budget
        first = budget.queue.first()
        return room_in(
            inside,
            waiting=len(budget.queue),
            in_flight=len(budget.account.in_flight),
            first_wait=0.0 if first is None else budget.estimated_wait(first, self._monotonic()),
        )

    def drain(self, grace: float) -> None:
        """Tell those at once who could not be sent within ``grace`` seconds; the others go on waiting."""
        now = self._monotonic()
        for reservation in [each for each in self.budget.queue if self.budget.estimated_wait(each, now) > grace]:
            self.budget.queue.cancel(reservation)
            self._wake(reservation, Draining("The proxy is shutting down.", hint="Send the request again."))

    async def close(self) -> None:
        """Stop; what replicas share is told the last of it."""
        await self._replicas.close()
        for timer in (self._timer, self._log_timer):
            if timer is not None:
                timer.cancel()

    def state(self, client: str | None = None) -> dict[str, object] | None:
        """Return what ``status.json`` tells of the budget; ``None`` where nothing is counted.

        A ``client`` sees nothing of the others.
        """
        if self._pace.mode == "off":
            return None
        shared = self._replicas.redis
        return {
            "mode": self._pace.mode,
            **report(self.budget, self._monotonic(), client),
            "shared": None if shared is None else f"redis {shared.host}",
            "alone": shared is not None and shared.is_alone,
        }

    def reading(self) -> BudgetReading | None:
        """Return what metrics tell of the budget; ``None`` where nothing is counted."""
        return None if self._pace.mode == "off" else reading(self.budget, self._monotonic())

    # Who is sent next.

    def _dispatch_due(self) -> None:
        """Send those who are due, tell those whose time is up, and look again when that may change."""
        now, budget, replicas = self._monotonic(), self.budget, self._replicas
        is_pacing = self._pace.mode == "pace"
        budget.account.probe.is_shared = is_pacing and replicas.share(now)
        if not is_pacing:
            for reservation in list(budget.queue):
                budget.send(reservation, now)
                self._wake(reservation)
        elif replicas.share(now):
            replicas.reserve_due()
        else:
            while (due := budget.due(now)) is not None:
                budget.send(due, now)
                self._wake(due)
        if not replicas.is_reserving:
            late = budget.expire(now)
            for reservation in late:
                estimated = max(1.0, budget.estimated_wait(reservation, now))
                self._wake(reservation, self._over_budget(reservation, estimated))
            if late:
                # Those behind them may be due.
                self._dispatch_due()
                return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not replicas.is_reserving and (wait := budget.wake_in(now)) is not None:
            # Not at once: what is due has gone, so that a wait of 0 would be asked for again and again.
            self._timer = self._call_later(max(wait, 0.001), self._dispatch_due)

    def _wake(self, reservation: Reservation, error: Problem | None = None) -> None:
        future = self._waiting.get(reservation)
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def _settle(self, reservation: Reservation, *, cost: int, remaining: int | None) -> None:
        if self._pace.mode == "pace" or reservation.reserved_in is not None:
            self._replicas.settle(reservation, cost=cost, remaining=remaining)

    # What is said.

    def _over_budget(self, reservation: Reservation, wait: float) -> OverBudget:
        account, client = self.budget.account, reservation.client
        retry_after = (("Retry-After", str(math.ceil(wait))),) if math.isfinite(wait) else ()
        if self.budget.waits_for_own(reservation, self._monotonic()):
            if retry_after:
                detail = (
                    f"The budget of the client {client}, {reservation.budget} a minute, has less left than the request"
                    f" costs ({reservation.cost}), which may not wait for more."
                )
                hint = "Send it again after Retry-After; whoever runs this proxy sets the budget."
            else:
                detail = (
                    f"The request costs {reservation.cost}, and the client {client} may spend {reservation.budget} a"
                    " minute."
                )
                hint = "Ask for less, such as a page that is not as deep; whoever runs this proxy sets the budget."
            return OverBudget(
                detail,
                hint=hint,
                headers=retry_after,
                members={"client": client, "rule": f"client.{client}.budget"},
            )
        whose = "The team's budget" if account.quota == account.limit else "This proxy's part of the team's budget"
        return OverBudget(
            f"{whose}, {account.quota} a minute, is spent, and the request may not wait for more.",
            hint="Send it again after Retry-After, or let it wait: pace.max_wait, and Prefer: wait=SECONDS.",
            headers=retry_after,
        )

    def _dispatch_and_log(self) -> None:
        self._dispatch_due()
        if self._log_timer is not None or self._replicas.is_reserving:
            return
        if (early := self._logged_at + LOG_INTERVAL - self._monotonic()) > 0:
            self._log_timer = self._call_later(early, self._log_waiting)
        else:
            self._log_waiting()

    def _log_waiting(self) -> None:
        self._log_timer = None
        now = self._monotonic()
        if not (waiting := list(self.budget.queue)):
            return
        self._logged_at = now
        named = ", ".join(
            f"{name} {count}" for name, count in waiting_by_client(self.budget).most_common(MAX_CLIENTS_LOGGED)
        )
        wait = self.budget.estimated_wait(waiting[-1], now)
        at = time.strftime("%H:%M:%S", time.localtime(self._now() + wait))
        requests = "1 request" if len(waiting) == 1 else f"{len(waiting)} requests"
        log.info("%s waiting for the rate limit, the last is sent at %s (in %.1f s): %s", requests, at, wait, named)


def _rules(pace: PaceSettings, *, limit_given: bool, is_shared: bool) -> Rules:
    """Return the rules of the budget; a limit that somebody has set is kept, whatever SalesLoft allows."""
    return Rules(limit=pace.limit, is_cap=limit_given, reserve=pace.reserve, burst=pace.burst, is_shared=is_shared)
