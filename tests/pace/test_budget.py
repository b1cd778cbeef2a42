"""Whose turn it is: tables for each rule, and a property that holds them all together against a hostile world."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slproxy.http import MINUTE
from slproxy.pace import PROBE_TIMEOUT, RateLimitHeaders, Reservation
from slproxy.pace.account import SEEN_MINUTES, Account
from slproxy.pace.budget import Budget
from slproxy.pace.queue import BULK_SHARE
from slproxy.pace.rules import Rules

# A whole clock minute, in Unix time.
UNIX = 1_795_000_020.0
FOREVER = math.inf
PAGES = {1: 1, 101: 3, 151: 8, 251: 10, 501: 30}
PAGE_OF = {cost: page for page, cost in PAGES.items()}


@dataclass
class Desk:
    """A budget at a time that the test sets, and short names for what one does with it."""

    budget: Budget
    now: float = 0.0
    unix: float = UNIX

    @property
    def account(self) -> Account:
        return self.budget.account

    def ask(self, cost: int = 1, *, bulk: bool = False, max_wait: float = FOREVER, client: str = "") -> Reservation:
        return self.budget.reservation(
            "GET", f"/v2/x?page={PAGE_OF[cost]}", client=client, bulk=bulk, now=self.now, max_wait=max_wait
        )

    def enqueue(self, cost: int = 1, *, bulk: bool = False, max_wait: float = FOREVER) -> Reservation:
        reservation = self.ask(cost, bulk=bulk, max_wait=max_wait)
        assert self.budget.enqueue(reservation, self.now) is None
        return reservation

    def go(self) -> list[Reservation]:
        """Send all whose turn it is."""
        gone: list[Reservation] = []
        while (reservation := self.budget.due(self.now)) is not None:
            self.budget.send(reservation, self.now)
            gone.append(reservation)
        return gone

    def send(self, cost: int = 1) -> Reservation:
        """Send one whatever there is."""
        reservation = self.ask(cost)
        self.budget.account.book(reservation, self.now)
        return reservation

    def reply(self, reservation: Reservation, remaining: int | None = None, **more: Any) -> tuple[int, int | None]:
        date = float(math.floor(self.unix + self.now))
        return self.budget.account.replied(
            reservation, self.now, RateLimitHeaders(remaining=remaining, **({"date": date} | more))
        )

    def spend(self, cost: int = 1, *, left: int) -> None:
        """Send one that tells what is left."""
        self.reply(self.send(cost), left)

    def spend_all(self) -> None:
        """Spend the minute, by ourselves."""
        while left := self.left():
            cost = 30 if left >= 30 else 1
            self.spend(cost, left=left - cost)

    def left(self) -> int:
        return self.budget.account.remaining(self.now)


def desk(second: float = 0.0, **rules: Any) -> Desk:
    """Return a budget at a second of a minute that it has seen begin."""
    made = Desk(Budget(Rules(**rules), unix=UNIX, now=0.0))
    first = made.budget.reservation("GET", "/v2/first", client="", bulk=False, now=0.0, max_wait=FOREVER)
    made.budget.account.book(first, 0.0)
    made.reply(first, cost=0)
    made.now = second
    return made


# What a reply tells.


@pytest.mark.parametrize(
    ("status", "headers", "what"),
    [
        (200, {}, RateLimitHeaders()),
        (200, {"x-ratelimit-endpoint-cost": "5"}, RateLimitHeaders(cost=5)),
        (200, {"x-ratelimit-endpoint-cost": "0"}, RateLimitHeaders(cost=0)),
        (200, {"x-ratelimit-remaining-minute": "0"}, RateLimitHeaders(remaining=0)),
        (200, {"x-ratelimit-remaining-minute": "-3"}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "many"}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "12.5"}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "9" * 10}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "٣"}, RateLimitHeaders()),
        (200, {"x-ratelimit-limit-minute": "900"}, RateLimitHeaders(limit=900)),
        (200, {"x-ratelimit-limit-minute": "0"}, RateLimitHeaders()),
        (200, {"Date": formatdate(UNIX, usegmt=True)}, RateLimitHeaders(date=UNIX)),
        (200, {"Date": "yesterday"}, RateLimitHeaders()),
        (200, {"Date": formatdate(UNIX, usegmt=True), "Age": "7"}, RateLimitHeaders()),
        (401, {}, RateLimitHeaders(unauthorized=True)),
        (429, {}, RateLimitHeaders(refused=True)),
        (429, {"Retry-After": "7"}, RateLimitHeaders(refused=True, retry_after=7.0)),
        (
            429,
            {"Retry-After": formatdate(UNIX + 9, usegmt=True), "Date": formatdate(UNIX, usegmt=True)},
            RateLimitHeaders(refused=True, retry_after=9.0, date=UNIX),
        ),
        (429, {"Retry-After": formatdate(UNIX + 109, usegmt=True)}, RateLimitHeaders(refused=True, retry_after=9.0)),
        (503, {"Retry-After": "7"}, RateLimitHeaders()),
    ],
)
def test_what_a_reply_tells(status: int, headers: dict[str, str], what: RateLimitHeaders) -> None:
    lower = {name.lower(): value for name, value in headers.items()}
    assert RateLimitHeaders.parse(status, lambda name: lower.get(name.lower()), now=UNIX + 100) == what


# Foresight.


def test_what_is_sent_is_spent_at_once_and_corrected_by_its_reply() -> None:
    it = desk()
    reservation = it.send(30)
    assert it.left() == 570
    assert it.reply(reservation, cost=5) == (5, None)
    assert (it.left(), it.account.minute.spent) == (595, 5)
    # The next one on that page is foreseen to cost 5.
    assert it.ask(30).cost == 5


@pytest.mark.parametrize(
    ("more", "spent"),
    [
        ({"cost": 3}, 3),
        ({}, 1),
        ({"cost": 0}, 0),
        ({"refused": True, "retry_after": 0.0}, 0),
        ({"unauthorized": True}, 0),
        ({"unauthorized": True, "cost": 1}, 1),
    ],
)
def test_what_a_reply_has_cost(more: dict[str, Any], spent: int) -> None:
    it = desk()
    assert it.reply(it.send(), **more)[0] == spent
    assert it.account.minute.spent == spent


@pytest.mark.parametrize(("maybe_sent", "spent"), [(True, 10), (False, 0)])
def test_what_may_have_reached_the_upstream_was_spent(maybe_sent: bool, spent: int) -> None:
    it = desk()
    it.spend(left=500)
    it.account.lost(it.send(10), it.now, maybe_sent=maybe_sent)
    assert (it.account.minute.spent, it.left(), it.account.in_flight) == (1 + spent, 500 - spent, 0)


def test_what_remains_is_the_least_that_was_told_less_what_is_in_flight() -> None:
    it = desk()
    first, second = it.send(), it.send()
    it.reply(second, 300)
    assert it.left() == 299
    it.reply(first, 301)
    assert it.left() == 300
    it.send(30)
    assert it.left() == 270


def test_what_others_spend_is_taken_note_of() -> None:
    it = desk()
    it.spend(left=500)
    assert (it.left(), it.account.minute.external_spend, it.account.minute.spent) == (500, 99, 1)
    it.now = 60.0
    it.spend(left=599)
    # That was at once, so that no more than a fortieth is kept back.
    assert (it.account.headroom, it.left()) == (15, 584)


def test_the_next_minutes_keep_back_what_others_spend_in_three_seconds() -> None:
    it = desk(10.0)
    it.spend(left=579)
    assert it.account.headroom == 0
    it.now = 60.0
    it.spend(left=599)
    # Two a second, until they are seen to stop: then half of it in each minute.
    assert (it.account.headroom, it.left()) == (6, 593)
    it.now = 120.0
    it.spend(left=599)
    assert it.account.headroom == 3


def test_what_was_missing_of_a_limit_that_is_none_was_not_spent_by_others() -> None:
    it = desk(10.0)
    reservation = it.send()
    it.account.note_external_spend(570, it.now)  # another replica was told that 29 remain
    it.reply(reservation, 29, limit=30)
    assert (it.account.limit, it.account.minute.external_spend, it.left()) == (30, 0, 29)
    it.now = 60.0
    it.spend(left=29)
    assert it.account.headroom == 0


def test_a_limit_that_somebody_has_set_far_too_high_keeps_nothing_back() -> None:
    it = desk(10.0, limit=10**9, is_cap=True)
    it.spend(left=599)
    it.now = 60.0
    it.spend(left=599)
    assert (it.account.headroom, it.left()) == (15, 584)


def test_a_request_between_two_minutes_tells_of_neither() -> None:
    it = desk(59.9)
    reservation = it.send()
    it.now = 60.2
    assert it.reply(reservation, 7) == (1, None)
    # It may have been counted in either.
    assert it.left() == 599


def test_a_reply_of_the_last_minute_tells_nothing_of_this_one() -> None:
    it = desk(30.0)
    it.reply(it.send())
    reservation = it.send()
    it.now = 61.0
    assert it.reply(reservation, 3, date=UNIX + 59) == (1, 3)
    assert it.left() == 600


@pytest.mark.parametrize("is_cap", [True, False])
def test_the_limit_is_told(is_cap: bool) -> None:
    it = desk(limit=100, is_cap=is_cap)
    before = it.account.is_told
    it.reply(it.send(), 99, limit=100)
    assert (before, it.account.is_told) == (False, True)
    it.reply(it.send(), 899, limit=900)
    assert (it.account.limit, it.account.quota) == (900, 100 if is_cap else 900)
    it.reply(it.send(), 49, limit=50)
    assert (it.account.limit, it.account.quota) == (50, 50)


def test_a_limit_that_no_header_tells_is_seen() -> None:
    it = desk()
    for minute in range(SEEN_MINUTES):
        it.now = minute * MINUTE + 0.5
        assert it.account.limit == 600
        it.spend(left=299)
    it.now = SEEN_MINUTES * MINUTE + 0.5
    assert it.left() == 300
    # A higher one is believed at once: so much was there.
    it.spend(left=1199)
    assert it.account.limit == 1200


@pytest.mark.parametrize(
    ("rules", "quota"),
    [
        ({}, 600), ({"reserve": 0.25}, 450), ({"reserve": 0.999}, 1), ({"limit": 100, "is_cap": True}, 100),
        ({"limit": 100, "is_cap": True, "reserve": 0.5}, 50), ({"limit": 1}, 1),
    ],
)  # fmt: skip
def test_what_we_may_spend_of_a_minute(rules: dict[str, Any], quota: int) -> None:
    it = desk(**rules)
    assert it.account.quota == it.left() == quota
    for _ in range(quota + 1):
        it.enqueue()
    gone = it.go()
    assert len(gone) == quota
    # Our part is spent, whatever SalesLoft has left.
    for reservation in gone:
        it.reply(reservation, it.account.limit - 1)
    assert it.go() == []


def test_other_rules_keep_what_is_known() -> None:
    it = desk()
    it.spend(left=400)
    it.account.set_rules(Rules(reserve=0.5))
    assert (it.account.quota, it.left()) == (300, 299)
    it.account.set_rules(Rules())
    assert it.left() == 400


def test_another_team_has_the_queue_and_nothing_else() -> None:
    it = desk()
    it.spend(left=0)
    flying, first, second = it.send(), it.enqueue(), it.enqueue()
    it.budget = it.budget.for_another_team(it.now)
    assert it.left() == 600
    assert it.go() == [first, second]
    it.reply(flying, 0)
    assert (it.left(), it.account.in_flight) == (598, 2)
    assert it.ask().ticket > second.ticket


# The queue.


def test_nobody_overtakes_not_even_one_that_would_fit() -> None:
    it = desk()
    it.spend(left=9)
    first, second = it.enqueue(10), it.enqueue(1)
    assert it.go() == []
    it.now = 60.0
    assert it.go() == [first]
    it.reply(first, 590)
    assert it.go() == [second]


def test_a_repeat_keeps_its_place() -> None:
    it = desk()
    early, late = it.ask(), it.enqueue()
    assert it.budget.enqueue(early, it.now) is None
    assert it.go() == [early, late]


def test_interactive_goes_first_and_bulk_is_not_starved() -> None:
    it = desk(59.0)
    it.spend(left=0)
    bulk = [it.enqueue(bulk=True) for _ in range(100)]
    interactive = [it.enqueue() for _ in range(400)]
    it.now = 60.0
    (scout,) = it.go()
    assert scout is interactive[0]
    it.reply(scout, 599)
    gone = it.go()
    contested = gone[: gone.index(interactive[-1])]
    assert sum(reservation.bulk for reservation in contested) == pytest.approx(len(contested) * BULK_SHARE, abs=1)
    for queue in (bulk, interactive):
        assert [reservation for reservation in [scout, *gone] if reservation.bulk == queue[0].bulk] == queue


def test_who_leaves_has_cost_nothing() -> None:
    it = desk(30.0)
    it.spend(left=0)
    first, second = it.enqueue(), it.enqueue()
    it.budget.queue.cancel(first)
    assert (list(it.budget.queue), it.account.minute.spent) == ([second], 1)
    it.now = 60.0
    assert it.go() == [second]


def test_who_may_wait_no_longer_is_told() -> None:
    it = desk(30.0)
    it.spend(left=0)
    patient, hasty = it.enqueue(), it.ask(max_wait=29.0)
    assert it.budget.enqueue(hasty, it.now) == pytest.approx(30.0, abs=0.02)
    hasty = it.enqueue(max_wait=31.0)
    it.now = 60.5
    assert it.budget.expire(it.now) == []
    it.now = 61.0
    assert it.budget.expire(it.now) == [hasty]
    assert list(it.budget.queue) == [patient]


def test_who_waits_in_vain_is_told_at_once() -> None:
    it = desk(30.0)
    it.spend(left=0)
    patient, hasty = it.enqueue(), it.enqueue(max_wait=31.0)
    it.account.block_until(it.now + 35.0)
    assert it.budget.expire(it.now) == [hasty]
    assert list(it.budget.queue) == [patient]


@pytest.mark.parametrize(
    ("second", "ahead", "cost", "wait"),
    [
        (30.0, 0, 1, 30.0),
        (30.0, 599, 1, 30.0),
        (30.0, 600, 1, 90.0),
        (30.0, 1200, 1, 150.0),
        (30.0, 590, 30, 90.0),
        (59.5, 10, 1, 0.5),
    ],
)
def test_the_wait_is_known_at_arrival(second: float, ahead: int, cost: int, wait: float) -> None:
    it = desk(second)
    it.spend_all()
    for _ in range(ahead // 10):
        it.enqueue(10)
    for _ in range(ahead % 10):
        it.enqueue(1)
    assert it.budget.estimated_wait(it.ask(cost), it.now) == pytest.approx(wait, abs=0.02)
    # And so it comes about.
    last = it.enqueue(cost)
    began = it.now
    while True:
        it.now += it.budget.wake_in(it.now) or 0.0
        for reservation in it.go():
            it.reply(reservation)
        gone = it.go()
        if last.sent is not None:
            break
        for reservation in gone:
            it.reply(reservation)
    assert last.sent - began == pytest.approx(wait, abs=0.02)


def test_what_costs_more_than_a_minute_goes_when_nothing_is_spent_of_one() -> None:
    it = desk(limit=10)
    it.spend(left=9)
    great = it.enqueue(30)
    assert it.go() == []
    it.now = 60.0
    assert it.go() == [great]
    assert it.left() == 0


# The minute.


def test_a_spent_minute_is_followed_by_a_scout() -> None:
    it = desk(30.0)
    it.spend(left=0)
    reservations = [it.enqueue() for _ in range(5)]
    it.now = 60.0
    assert it.go() == reservations[:1]
    assert it.budget.wake_in(it.now) == pytest.approx(PROBE_TIMEOUT)
    it.reply(reservations[0], 599)
    assert it.go() == reservations[1:]


def test_nobody_waits_for_a_scout_that_does_not_return() -> None:
    it = desk(30.0)
    it.spend(left=0)
    reservations = [it.enqueue() for _ in range(5)]
    it.now = 60.0
    it.go()
    it.now = 60.0 + PROBE_TIMEOUT
    assert it.go() == reservations[1:]


def test_a_429_closes_the_minute() -> None:
    it = desk(30.0)
    refused = it.send()
    it.reply(refused, refused=True)
    assert (it.left(), it.account.minute.spent, it.account.minute.refused) == (0, 0, 1)
    assert it.budget.estimated_wait(it.ask(), it.now) == pytest.approx(30.0, abs=0.02)
    it.enqueue()
    it.now = 59.9
    assert it.go() == []
    it.now = 60.0
    assert len(it.go()) == 1
    # From then on a little is kept back, until it is forgotten.
    assert it.account.headroom == 2
    for minute in range(2, 12):
        it.now = minute * MINUTE
        assert it.left() > 0
    assert it.account.headroom == 0


def awaited(*, count: int = 5) -> tuple[Desk, list[Reservation]]:
    """Return a spent minute at second 10, and those who wait for the next one."""
    it = desk(10.0)
    it.spend_all()
    return it, [it.enqueue(max_wait=75.0) for _ in range(count)]


def test_a_429_to_the_first_of_a_minute_is_asked_again_before_it_holds() -> None:
    """That the clock that counts is the one that Date tells is inferred only: here it is half a second behind."""
    it, reservations = awaited()
    it.now = 60.1
    assert it.go() == reservations[:1]
    it.reply(reservations[0], refused=True)
    again = it.budget.reservation(
        "GET", "/v2/x", client="", bulk=False, now=it.now, max_wait=75.0, ticket=reservations[0].ticket
    )
    assert it.budget.enqueue(again, it.now) is None
    assert it.budget.expire(it.now) == it.go() == []
    it.now = 61.2
    assert it.go() == [again]
    it.reply(again, 599)
    # It is learned, in whole seconds: the others go, and the next minute begins later.
    assert it.go() == reservations[1:]
    assert it.account.resets_in(it.now) == pytest.approx(59.8, abs=0.02)


def test_a_minute_that_is_spent_as_it_begins_is_closed_after_three_429s() -> None:
    it, reservations = awaited()
    it.now = 60.1
    refusals = 0
    while scouts := it.go():
        assert len(scouts) == 1
        it.reply(scouts[0], refused=True)
        refusals += 1
        it.now = it.now + 1.05
    assert refusals == 3
    # Now it is known that those who have waited for long would wait in vain.
    assert it.budget.expire(it.now) == reservations[3:]
    assert it.account.resets_in(it.now) == pytest.approx(60.0 - 3.25, abs=0.02)


def test_what_is_refused_for_another_reason_teaches_no_more_than_two_seconds_of_lag() -> None:
    it = desk(10.0)
    for _ in range(12):
        it.spend_all()
        first, second = it.enqueue(max_wait=75.0), it.enqueue(max_wait=75.0)
        it.now += it.account.resets_in(it.now) + 0.1
        # Each minute's first is refused, and its next is not.
        assert it.go() == [first]
        it.reply(first, refused=True)
        it.now += 1.1
        assert it.go() == [second]
        it.reply(second, 599)
    begins = (it.now + it.account.resets_in(it.now)) % MINUTE
    # Less what two clocks may drift apart in the time.
    assert begins == pytest.approx(2.0, abs=0.1)


def test_one_minute_that_begins_with_little_sends_nobody_away() -> None:
    it = desk(10.0)
    it.spend_all()
    first = it.enqueue()
    it.now = 60.0
    assert it.go() == [first]
    it.reply(first, 219)  # another one's burst
    assert it.account.remaining(it.now) > 200
    for _ in range(it.account.remaining(it.now) + 299):
        it.enqueue(max_wait=75.0)
    assert it.budget.estimated_wait(it.ask(), it.now) == pytest.approx(60.0, abs=0.1)


def test_a_429_to_the_first_of_a_minute_closes_it_where_the_last_one_was_not_spent() -> None:
    it = desk(10.0)
    it.spend(left=400)
    it.now = 60.1
    it.reply(it.send(), refused=True)
    assert it.budget.estimated_wait(it.ask(), it.now) == pytest.approx(59.9, abs=0.02)


def test_several_429s_of_one_moment_are_one() -> None:
    it = desk(10.0)
    it.spend_all()
    it.now = 60.1
    flood = [it.send() for _ in range(20)]
    for reservation in flood:
        it.now += 0.01
        it.reply(reservation, refused=True)
    assert not it.budget.expire(it.now)
    assert it.budget.estimated_wait(it.ask(), it.now) == pytest.approx(1.0, abs=0.02)


def test_a_limit_below_that_no_header_tells_is_foreseen_once_it_was_seen() -> None:
    it = desk(10.0)
    for left in range(39, -1, -1):
        it.spend(left=left)
    it.now = 11.0
    first = it.enqueue()
    it.now = 60.0
    assert it.go() == [first]
    it.reply(first, 39)
    for left in range(38, -1, -1):
        it.spend(left=left)
    second = it.enqueue()
    it.now = 120.0
    assert it.go() == [second]
    it.reply(second, 39)
    it.now = 121.0
    for _ in range(39 + 40):
        it.enqueue()
    # Two minutes are full: forty and no more go into each.
    assert it.budget.estimated_wait(it.ask(), it.now) >= 59 + MINUTE


def test_a_429_of_the_last_minute_closes_nothing() -> None:
    it = desk(59.0)
    reservation = it.send()
    it.now = 60.5
    it.reply(reservation, refused=True, date=UNIX + 59)
    assert it.left() > 590


@pytest.mark.parametrize(("seconds", "held"), [(7.0, 7.0), (60.0, 60.0), (61.0, 0.0), (3600.0, 0.0)])
def test_a_429_that_says_how_long(seconds: float, held: float) -> None:
    """Longer than a minute it is not about this budget."""
    it = desk(30.0)
    it.reply(it.send(), refused=True, retry_after=seconds)
    assert it.budget.estimated_wait(it.ask(), it.now) == pytest.approx(held, abs=0.02)


def test_a_reply_tells_that_the_minute_is_another() -> None:
    """Our own clock is 40 s ahead: what is spent goes with the minute of the upstream."""
    it = Desk(Budget(Rules(), unix=UNIX + 50.0, now=0.0), unix=UNIX + 10.0)
    reservation = it.send()
    it.now = 0.2
    it.reply(reservation, 0)
    assert it.account.minute.number == UNIX // MINUTE
    assert it.account.resets_in(it.now) == pytest.approx(50.0, abs=0.3)
    it.enqueue()
    it.now = 10.0
    assert it.go() == []


def test_a_sliding_minute_is_found_out_and_paced_evenly() -> None:
    it = desk()
    for left in range(599, -1, -1):
        it.spend(left=left)
    reservations = [it.enqueue() for _ in range(10)]
    it.now = 60.0
    assert it.go() == reservations[:1]
    it.reply(reservations[0], 0)
    assert it.account.sliding
    gone: list[float] = []
    while len(gone) < 9:
        it.now += max(it.budget.wake_in(it.now) or 0.0, 0.001)
        for reservation in it.go():
            gone.append(it.now)
            it.reply(reservation, 0)
    gaps = [after - before for before, after in itertools.pairwise(gone)]
    assert all(gap == pytest.approx(0.1, abs=0.02) for gap in gaps)


def test_a_team_that_spends_it_all_itself_is_no_sliding_minute() -> None:
    it = desk()
    it.spend(left=0)
    it.now = 60.5
    # Others were faster; but what was gone had not been ours alone.
    it.spend(left=250)
    assert not it.account.sliding


@pytest.mark.parametrize("burst", [0.1, 0.5])
def test_a_burst_is_smoothed(burst: float) -> None:
    it = desk(burst=burst)
    reservations = [it.enqueue() for _ in range(600)]
    gone = [(0.0, reservation) for reservation in it.go()]
    assert len(gone) == pytest.approx(600 * burst, abs=1)
    wakes = 0
    while len(gone) < 600:
        it.now += max(it.budget.wake_in(it.now) or 0.0, 0.001)
        wakes += 1
        gone += [(it.now, reservation) for reservation in it.go()]
    assert [reservation for _, reservation in gone] == reservations
    assert it.now <= MINUTE
    assert wakes <= 2 * len(gone)
    for second in range(60):
        allowed = 600 * (burst + (1 - burst) * (second + 1) / 60)
        assert sum(at < second + 1 for at, _ in gone) <= allowed + 1


def test_what_is_told_to_people() -> None:
    it = desk()
    for client in ("a", "a", "b"):
        reservation = it.ask(client=client)
        it.account.book(reservation, it.now)
        it.reply(reservation)
    for number in range(200):
        it.account.book(it.ask(client=f"c{number}"), it.now)
    minute = it.account.minute
    assert (minute.by_client["a"], minute.by_client["b"], len(minute.by_client)) == (2, 1, 101)
    assert sum(minute.by_client.values()) == minute.spent == 203
    assert minute.by_endpoint["GET /v2/x"] == 203
    it.now = 60.0
    assert it.left() == 400
    assert [each.spent for each in it.account.history] == [203]


# All of it at once.


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
        assert reservation is not None
        case = self.case
        into = (UNIX + case.second + self.now) % MINUTE
        # The clock is known to a second and the ways; a scout is out for as long; a reply may be of the last minute.
        if into < 1.0 + 2 * 1.5 + PROBE_TIMEOUT or self._first_told > self.now - MINUTE:
            return
        if case.external_spend or case.burst < 1.0 or not all(all(tells) for tells in case.tells):
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
            elif passage.knew_the_minute and not self.foreign_of.get(self.minute):
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
                lambda: self.arrive(cost, reservation.bulk, reservation.deadline - self.now, reservation.ticket),
            )
        else:
            self.ended.append(reservation)
        self.pump()

    def check(self) -> None:
        assert not self.faults, self.faults
        assert self.budget.account.in_flight == 0
        assert not self.budget.queue
        assert len(self.ended) + len(self.told_off) == len(self.case.asks)
        for at, reservation in self.sent:
            assert at <= reservation.deadline + 0.002
        for bulk in (True, False):
            numbers = [reservation.ticket for _, reservation in self.sent if reservation.bulk == bulk]
            if not any(self.foreign_of.values()) and self.budget.account.minute.refused == 0:
                firsts = list(dict.fromkeys(numbers))
                assert firsts == sorted(firsts)


COMMON = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@COMMON
@given(cases(others=False, headers=True))
def test_alone_and_told_all_it_never_overdraws_and_never_waits_in_vain(case: Case) -> None:
    world = World(case)
    world.run()
    world.check()


@COMMON
@given(cases(others=False, headers=False))
def test_alone_with_headers_missing_it_never_overdraws(case: Case) -> None:
    world = World(case)
    world.run()
    world.check()


@COMMON
@given(cases(others=True, headers=False))
def test_with_others_it_ends_and_keeps_the_order(case: Case) -> None:
    world = World(case)
    world.run()
    world.check()
