"""A hostile world: a property that holds all rules of the budget together."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import example, given
from hypothesis import strategies as st

from slproxy.pace import PROBE_TIMEOUT, RateLimitHeaders, Reservation
from slproxy.pace.budget import Budget
from slproxy.pace.rules import Rules
from slproxy.retry import MINUTE
from tests.support.desk import FOREVER, PAGE_OF, UNIX


@dataclass(frozen=True, kw_only=True)
class Case:
    """A world: what is asked, by whom else, and how the replies come."""

    limit: int
    offset: float
    second: float
    asks: list[tuple[float, int, bool, float]]  # the pause before it, its cost, bulk, max_wait
    ways: list[tuple[float, float]]  # there and back, in seconds, one after the other
    tells: list[tuple[bool, bool, bool]]  # cost, remaining, date
    lost: set[int]
    external_spend: list[tuple[float, int]]
    burst: float = 1.0
    reserve: float = 0.0


def cases(*, others: bool, headers: bool) -> st.SearchStrategy[Case]:
    way = st.floats(0.001, 1.5)
    every = st.just(True)
    sometimes = st.booleans()
    return st.builds(
        Case,
        limit=st.integers(30, 80),
        offset=st.floats(-90.0, 90.0),
        second=st.floats(0.0, 59.999),
        asks=st.lists(
            st.tuples(
                st.one_of(st.just(0.0), st.floats(0.0, 20.0)),
                st.sampled_from([1, 1, 1, 3, 8, 10, 30]),
                sometimes,
                st.one_of(st.just(FOREVER), st.floats(0.0, 150.0)),
            ),
            min_size=1,
            max_size=60,
        ),
        ways=st.lists(st.tuples(way, way), min_size=1, max_size=20),
        tells=st.lists(st.tuples(*([every if headers else sometimes] * 3)), min_size=1, max_size=10),
        lost=st.just(set()) if headers else st.sets(st.integers(0, 100), max_size=10),
        external_spend=st.lists(st.tuples(st.floats(0.0, 240.0), st.integers(1, 40)), max_size=40)
        if others
        else st.just([]),
        burst=st.sampled_from([1.0, 1.0, 0.3]),
        reserve=st.sampled_from([0.0, 0.0, 0.2]),
    )


@dataclass
class Passage:
    """One physical send, as the upstream saw it."""

    reservation: Reservation
    cost: int
    knew_the_minute: bool
    arrived: bool = False


@dataclass
class World:
    """Time, the upstream and its ways, and what ``pacing`` and ``forward`` do around a budget."""

    case: Case
    now: float = 0.0
    sent: list[tuple[float, Reservation]] = field(default_factory=list)
    ended: list[Reservation] = field(default_factory=list)
    told_off: list[Reservation] = field(default_factory=list)
    spent_of: dict[int, int] = field(default_factory=dict)
    foreign_of: dict[int, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    events: int = 0

    def __post_init__(self) -> None:
        case = self.case
        rules = Rules(limit=case.limit, burst=case.burst, reserve=case.reserve)
        self.budget = Budget(rules, unix=UNIX + case.second + case.offset, now=0.0)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = itertools.count()
        self._ways = itertools.cycle(case.ways)
        self._tells = itertools.cycle(case.tells)
        self._sends = itertools.count()
        self._alarm = 0
        self._in_flight: dict[Reservation, Passage] = {}
        self._cost_of: dict[int, int] = {}
        self._first_told = math.inf

    @property
    def minute(self) -> int:
        """The upstream's."""
        return int((UNIX + self.case.second + self.now) // MINUTE)

    def at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(moment, self.now), next(self._counter), what))

    def run(self) -> None:
        at = 0.0
        for pause, cost, bulk, max_wait in self.case.asks:
            at += pause
            self.at(at, lambda cost=cost, bulk=bulk, max_wait=max_wait: self.arrive(cost, bulk, max_wait))  # type: ignore[misc]
        for moment, cost in self.case.external_spend:
            self.at(moment, lambda cost=cost: self.others(cost))  # type: ignore[misc]
        while self._heap:
            self.now, _, what = heapq.heappop(self._heap)
            self.events += 1
            assert self.events < 100 * (len(self.case.asks) + len(self.case.external_spend) + 10), "it spins"
            assert self.now < 3600 * 2, "it does not end"
            what()

    def others(self, cost: int) -> None:
        left = self.case.limit - self.spent_of.get(self.minute, 0)
        self.foreign_of[self.minute] = self.foreign_of.get(self.minute, 0) + cost
        self.spent_of[self.minute] = self.spent_of.get(self.minute, 0) + min(cost, left)

    def arrive(self, cost: int, bulk: bool, max_wait: float, ticket: int | None = None) -> None:
        reservation = self.budget.reservation(
            "GET",
            f"/v2/x?page={PAGE_OF[cost]}",
            client="",
            bulk=bulk,
            now=self.now,
            max_wait=max_wait,
            ticket=ticket,
        )
        self._cost_of[reservation.ticket] = cost
        if self.budget.try_send(reservation, self.now):
            self.go(reservation)
            return
        wait = self.budget.enqueue(reservation, self.now)
        if wait is not None:
            assert max_wait < FOREVER
            self.told_off.append(reservation)
            return
        self.pump()

    def pump(self) -> None:
        while (reservation := self.budget.due(self.now)) is not None:
            self.budget.send(reservation, self.now)
            self.go(reservation)
        if late := self.budget.expire(self.now):
            self.told_off += late
            self.pump()
            return
        if (wait := self.budget.wake_in(self.now)) is not None:
            self._alarm = alarm = self._alarm + 1
            self.at(self.now + max(wait, 0.001), lambda: self.pump() if alarm == self._alarm else None)
            self.look()

    def look(self) -> None:
        """See that whoever is first waits for a reason."""
        reservation = self.budget.queue.first()
        if reservation is None:
            assert self.budget.queue.parked
            return
        case = self.case
        into = (UNIX + case.second + self.now) % MINUTE
        # The clock is known to a second and the ways; a probe is out for as long; a reply may be of the last minute.
        if into < 1.0 + 2 * 1.5 + PROBE_TIMEOUT or self._first_told > self.now - MINUTE:
            return
        # Of a request that was lost nobody knows whether it was counted, nor when.
        if case.external_spend or case.burst < 1.0 or case.lost or not all(all(tells) for tells in case.tells):
            return
        quota = math.floor(case.limit * (1 - case.reserve)) - self.spent_of.get(self.minute, 0)
        flying = sum(passage.cost for passage in self._in_flight.values())
        if reservation.cost <= quota - flying:
            self.faults.append(f"{self.now}: waits for {reservation.cost} of {quota} less {flying}")

    def go(self, reservation: Reservation) -> None:
        number = next(self._sends)
        there, back = next(self._ways)
        passage = self._in_flight[reservation] = Passage(
            reservation, self._cost_of[reservation.ticket], self.budget.account.time.is_known
        )
        assert reservation.sent == self.now
        self.sent.append((self.now, reservation))

        def counted() -> None:
            spent = self.spent_of.get(self.minute, 0)
            refused = spent + passage.cost > self.case.limit
            if not refused:
                self.spent_of[self.minute] = spent + passage.cost
            elif passage.knew_the_minute and not self.case.external_spend:
                self.faults.append(f"{self.now}: overdrawn by {spent + passage.cost - self.case.limit}")
            passage.arrived = True
            minute = self.minute
            tells_cost, tells_remaining, tells_date = next(self._tells)
            reply = RateLimitHeaders(
                cost=passage.cost if tells_cost else None,
                remaining=self.case.limit - self.spent_of.get(minute, 0) if tells_remaining else None,
                date=float(math.floor(UNIX + self.case.second + self.now)) if tells_date else None,
                refused=refused,
            )
            self.at(
                self.now + back, lambda: self.answered(reservation, passage.cost, reply, lost=number in self.case.lost)
            )

        self.at(self.now + there, counted)

    def answered(self, reservation: Reservation, cost: int, reply: RateLimitHeaders, *, lost: bool) -> None:
        del self._in_flight[reservation]
        if lost:
            self.budget.account.lost(reservation, self.now, maybe_sent=True)
        else:
            self.budget.account.replied(reservation, self.now, reply)
            if reply.date is not None:
                self._first_told = min(self._first_told, self.now)
        if reply.refused and not lost:
            self.at(
                self.now + 1.0,
                lambda: self.arrive(
                    cost, reservation.bulk, max(0.0, reservation.deadline - self.now), reservation.ticket
                ),
            )
        else:
            self.ended.append(reservation)
        self.pump()

    def run_and_check(self) -> None:
        self.run()
        assert not self.faults, self.faults
        assert len(self.budget.account.in_flight) == 0
        assert not self.budget.queue
        assert len(self.ended) + len(self.told_off) == len(self.case.asks)
        for at, reservation in self.sent:
            assert at <= reservation.deadline + 0.002
        for bulk in (True, False):
            numbers = [reservation.ticket for _, reservation in self.sent if reservation.bulk == bulk]
            if not any(self.foreign_of.values()) and self.budget.account.minute.refused == 0:
                firsts = list(dict.fromkeys(numbers))
                assert firsts == sorted(firsts)


def asked(*costs: int, pauses: dict[int, float] | None = None) -> list[tuple[float, int, bool, float]]:
    """Return what is asked: so much each, at once or after a pause, however long it waits."""
    return [((pauses or {}).get(number, 0.0), cost, False, FOREVER) for number, cost in enumerate(costs)]


ALL, NOTHING, ONLY_REMAINING, ONLY_DATE = (True, True, True), (False,) * 3, (False, True, False), (False, False, True)
ALONE = Case(limit=32, offset=0.0, second=0.0, asks=[], ways=[(1.0, 1.0)], tells=[ALL], lost=set(), external_spend=[])


@given(cases(others=False, headers=True))
@example(
    # More than our part, while something of the last minute is on its way.
    replace(
        ALONE, offset=-4.0, second=43.1, reserve=0.2, ways=[(1.0, 1.0), (1.5, 0.1), (0.04, 1.5)],
        asks=[(10.4, 1, False, FOREVER), (0.0, 30, True, FOREVER), (7.0, 3, False, FOREVER)],
    )
)  # fmt: skip
def test_alone_and_told_all_it_never_overdraws_and_never_waits_in_vain(case: Case) -> None:
    World(case).run_and_check()


@given(cases(others=False, headers=False))
@example(
    # Found by CI: the first that tells what remains was counted before another that was lost.
    replace(
        ALONE, limit=33, asks=asked(1, 1, 30, 1, 8, 30, pauses={2: 2.0}), ways=[(0.25, 1.0), (1.0, 1.0), (0.5, 0.5)],
        tells=[(False, True, True)], lost={0, 1, 2},
    )
)  # fmt: skip
@example(
    # By our own clock a minute had begun, and the upstream's first date denies it.
    replace(
        ALONE, limit=42, offset=-3.0, reserve=0.2, asks=asked(1, 1, 1, 30, 1, 1, 8),
        tells=[NOTHING, NOTHING, NOTHING, ONLY_REMAINING, (False, True, True)],
    )
)  # fmt: skip
@example(
    # Before the first date, what was spent may have been counted in the minute before.
    replace(
        ALONE, offset=1.0, second=59.0, asks=[*asked(1, 30, 1, 1, 30, pauses={2: 3.0}), (0.0, 3, True, FOREVER)],
        ways=[(1.0, 1.0), (0.5, 1.0)], tells=[NOTHING, ONLY_DATE, ONLY_REMAINING],
    )
)  # fmt: skip
@example(
    # Sent at the end of a minute, counted in the next.
    replace(
        ALONE, limit=48, second=43.0, asks=asked(1, 1, 30, 8, 10, 1, pauses={1: 1.0, 2: 14.5}), ways=[(1.5, 1.0)],
        tells=[(False, True, True), NOTHING, NOTHING, NOTHING],
    )
)  # fmt: skip
@example(
    # One that costs more than our part of the minute, and does not say so.
    replace(ALONE, limit=31, offset=4.0, reserve=0.2, asks=asked(30, 1, 1), tells=[NOTHING, ONLY_DATE])
)
def test_alone_with_headers_missing_it_never_overdraws(case: Case) -> None:
    """How long it waits is not promised: of a request that was lost, nobody knows whether it was counted, nor when."""
    World(case).run_and_check()


@given(cases(others=True, headers=False))
def test_with_others_it_ends_and_keeps_the_order(case: Case) -> None:
    """That it is never refused is not promised: nobody knows what others spend until a reply tells."""
    World(case).run_and_check()
