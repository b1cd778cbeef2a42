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
from slproxy.observe import Exchange
from slproxy.pace.budget import SCOUT_AGAIN, Budget, Minute, Rules
from slproxy.pace.headers import Told
from slproxy.pace.preferences import Wish
from slproxy.pace.reservation import Turn
from slproxy.pace.shared import ALONE, RedisBudget, Settlement

log = logging.getLogger("slproxy.pace")

# When replicas compete for the last of a minute, how long until Redis is asked again, in seconds.
AGAIN = 0.1
# How many reservations are asked for in one go.
AT_ONCE = 100
# The log says who waits at most so often, in seconds, and names so many clients.
SAY_EVERY, NAMED = 1.0, 5


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
        self._waiting: dict[Turn, asyncio.Future[None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        # The turns that a reservation is asked for, and those of them whose clients have left meanwhile.
        self._reserving: asyncio.Task[None] | None = None
        self._asked_for: list[Turn] = []
        self._gone: set[Turn] = set()
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
        self._pump()

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

    async def take(self, method: str, target: str, wish: Wish, exchange: Exchange) -> Turn | None:
        """Wait for the turn of one physical send; ``None`` where nothing is counted.

        Raises:
            OverBudget: it would have to wait for longer than it may.
        """
        if self._pace.mode == "off":
            return None
        now = self._monotonic()
        cure, exchange.cure = exchange.cure, None
        longest = self._pace.max_wait - exchange.held if cure is None else cure
        turn = self.budget.turn(
            method,
            target,
            client=wish.client,
            bulk=wish.bulk,
            now=now,
            patience=max(0.0, min(longest, wish.patience - exchange.wait)),
            number=exchange.place,
        )
        exchange.place = turn.number
        if self._pace.mode == "observe":
            self.budget.book(turn, now)
            return turn
        if not self._is_sharing(now) and self.budget.pass_at_once(turn, now):
            return turn
        if (wait := self.budget.enter(turn, now)) is not None:
            raise self._over_budget(wait)
        try:
            await self._wait(turn)
        finally:
            held = self._monotonic() - turn.since
            exchange.wait += held
            # To be refused by SalesLoft is no fault of the request's: retry.deadline bounds the wait for its cure.
            exchange.held += held if cure is None else 0.0
        return turn

    async def _wait(self, turn: Turn) -> None:
        future = self._waiting[turn] = asyncio.get_running_loop().create_future()
        try:
            self._pump()
            self._say_who_waits()
            await future
            self.budget.waited(self._monotonic() - turn.since)
        except asyncio.CancelledError:
            # The client has left: it costs nothing.
            if turn in self._asked_for:
                self._gone.add(turn)
            elif turn.sent is None:
                self.budget.leave(turn)
                self._pump()
            else:
                self.lost(turn, reached=False)
            raise
        finally:
            self._waiting.pop(turn, None)

    def is_over(self, turn: Turn | None) -> bool:
        """Whether a turn that has not been sent yet is not to be: a 429 came meanwhile."""
        return self._pace.mode == "pace" and turn is not None and self.budget.is_over(turn, self._monotonic())

    def replied(self, turn: Turn | None, told: Told) -> bool:
        """Learn from the reply to what was sent; tell whether it was refused, and waits with the others."""
        if turn is None:
            return False
        reserved, minute = turn.cost, turn.minute
        now = self._monotonic()
        cost, remaining = self.budget.replied(turn, now, told)
        if self.shared is not None:
            settle = functools.partial(self._settle, minute, reserved=reserved, cost=cost, remaining=remaining)
            # Who was refused as a scout has found it out for all: until it asks again, the others need not.
            if told.refused and self.budget.is_scouting(now):
                asyncio.get_running_loop().call_later(SCOUT_AGAIN, settle)
            else:
                settle()
        if self.budget.is_waited_for:
            self._pump()
        return turn.closes and self._pace.mode == "pace"

    def lost(self, turn: Turn | None, *, reached: bool) -> None:
        """Take note that what was sent got no reply; ``reached`` if a byte of it may have left."""
        if turn is None:
            return
        self.budget.lost(turn, self._monotonic(), reached=reached)
        self._settle(turn.minute, reserved=turn.cost, cost=turn.cost if reached else 0, remaining=None)
        self._pump()

    def fields(self) -> Fields:
        """Return the headers that tell a client of the budget (draft-ietf-httpapi-ratelimit-headers-11)."""
        if self._pace.mode == "off":
            return []
        now = self._monotonic()
        remaining, reset = self.budget.remaining(now), math.ceil(self.budget.resets_in(now))
        return [
            ("RateLimit-Policy", f'"team";q={self.budget.ours};w=60'),
            ("RateLimit", f'"team";r={remaining};t={reset}'),
        ]

    def drain(self, grace: float) -> None:
        """Tell those at once who could not be sent within ``grace`` seconds; the others go on waiting."""
        now = self._monotonic()
        for turn in [each for each in self.budget.waiting() if self.budget.wait_of(each, now) > grace]:
            self.budget.leave(turn)
            self._wake(turn, Draining("The proxy is shutting down.", hint="Send the request again."))

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

    def _pump(self) -> None:
        """Let those go whose turn it is, tell those whose time is up, and look again when that may change."""
        now, budget = self._monotonic(), self.budget
        budget.scouts_together = self._is_sharing(now)
        if self._pace.mode != "pace":
            for turn in list(budget.waiting()):
                budget.send(turn, now)
                self._wake(turn)
        elif self._is_sharing(now):
            if self._reserving is None and budget.due(now) is not None:
                self._reserving = asyncio.create_task(self._reserve(), name="slproxy: reserve budget")
                self._reserving.add_done_callback(self._reserved)
        else:
            self._send_due(now)
        if self._reserving is None:
            late = budget.expired(now)
            for turn in late:
                self._wake(turn, self._over_budget(max(1.0, budget.wait_of(turn, now))))
            if late:
                # Who stood behind them may be due.
                self._pump()
                return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._reserving is None and (wait := budget.wake_in(now)) is not None:
            # Not at once: what is due has gone, so that a wait of 0 would be asked for again and again.
            self._alarm = asyncio.get_running_loop().call_later(max(wait, 0.001), self._pump)

    def _send_due(self, now: float) -> None:
        while (turn := self.budget.due(now)) is not None:
            self.budget.send(turn, now)
            self._wake(turn)

    def _wake(self, turn: Turn, error: Problem | None = None) -> None:
        future = self._waiting.get(turn)
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
            while len(asked) < AT_ONCE and (turn := budget.due(now)) is not None:
                budget.send(turn, now)
                asked.append(turn)
            if not asked:
                return
            minute = budget.minute.number
            answer = await shared.reserve(
                minute,
                [turn.cost for turn in asked],
                limit=budget.limit,
                ours=budget.ours,
                kept_back=budget.kept_back,
                scouting=budget.is_scouting(now),
            )
            now, budget = self._monotonic(), self.budget
            if answer is None:
                self._alone_until = now + ALONE
            elif answer.others is not None and minute == budget.minute.number:
                budget.heard_of_others(answer.others, now)
            granted = len(asked) if answer is None else answer.granted
            lowest = min((turn.cost for turn in asked[granted:]), default=0)
            for number, turn in enumerate(asked):
                if turn in self._gone:
                    budget.lost(turn, now, reached=False)
                    if answer is not None and number < granted:
                        self._settle(minute, reserved=turn.cost, cost=0, remaining=None)
                elif number < granted:
                    self._wake(turn)
                else:
                    budget.put_back(turn, now)
            asked.clear()
            self._gone.clear()
            if answer is not None and lowest:
                # Spent; or in flight elsewhere, and then it may still come back in this minute.
                budget.hold(now + (AGAIN if lowest <= answer.left else budget.time.until(minute + 1, now)))
            if answer is None or lowest:
                return

    def _reserved(self, task: asyncio.Task[None]) -> None:
        self._reserving = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a defect in slproxy, while reserving budget", exc_info=error)
            now = self._monotonic()
            self._alone_until = now + ALONE
            for turn in self._asked_for:
                if turn in self._gone:
                    self.budget.lost(turn, now, reached=False)
                elif (future := self._waiting.get(turn)) is not None and not future.done():
                    self.budget.put_back(turn, now)
            self._asked_for.clear()
            self._gone.clear()
        self._pump()
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
        whose = "The team's budget" if budget.ours == budget.limit else "This proxy's part of the team's budget"
        return OverBudget(
            f"{whose}, {budget.ours} a minute, is spent, and the request may not wait for more.",
            hint="Send it again after Retry-After, or let it wait: pace.max_wait, and Prefer: wait=SECONDS.",
            headers=(("Retry-After", str(math.ceil(wait))),),
        )

    def _say_who_waits(self) -> None:
        if self._saying is not None or self._reserving is not None:
            return
        now = self._monotonic()
        if (early := self._said_at + SAY_EVERY - now) > 0:
            self._saying = asyncio.get_running_loop().call_later(early, self._say_it)
        else:
            self._say_it()

    def _who_waits(self) -> Counter[str]:
        return Counter(f"{turn.client} (bulk)" if turn.bulk else turn.client for turn in self.budget.waiting())

    def _say_it(self) -> None:
        self._saying = None
        now = self._monotonic()
        if not (waiting := list(self.budget.waiting())):
            return
        self._said_at = now
        named = ", ".join(f"{name} {count}" for name, count in self._who_waits().most_common(NAMED))
        wait = self.budget.wait_of(waiting[-1], now)
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
            "ours": budget.ours,
            "remaining": remaining,
            "resets_in": round(budget.resets_in(now), 1),
            "window": "sliding" if budget.is_sliding else "minute",
            "shared": None if self.shared is None else f"redis {self.shared.host}",
            "alone": self.shared is not None and self.shared.is_alone,
            "queue": {
                "interactive": sum(not turn.bulk for turn in budget.waiting()),
                "bulk": sum(turn.bulk for turn in budget.waiting()),
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
        "by_others": minute.foreign,
        "refused": minute.refused,
        "waited": minute.waited,
        "longest_wait": round(minute.longest_wait, 1),
    }
