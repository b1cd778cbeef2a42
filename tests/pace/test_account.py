"""Account: what is spent, what remains, and what replies teach of it."""

from __future__ import annotations

from typing import Any

import pytest

from slproxy.pace.budget import Budget
from slproxy.pace.rules import Rules
from slproxy.pace.seen import SEEN_MINUTES
from slproxy.retry import MINUTE
from tests.support.desk import UNIX, Desk, desk


def test_what_is_sent_is_spent_at_once_and_corrected_by_its_reply() -> None:
    it = desk()
    reservation = it.send(30)
    assert it.left() == 570
    assert it.reply(reservation, cost=5) == (5, None)
    assert (it.left(), it.account.minute.spent) == (595, 5)
    # The next one on that page is foreseen to cost 5.
    assert it.ask(30).cost == 5


def test_what_costs_nothing_is_in_flight_as_well() -> None:
    it = desk()
    it.reply(it.send(), cost=0)
    free = [it.send(), it.send(), it.send(30)]
    assert [each.cost for each in free] == [0, 0, 30]
    for reservation in free:
        it.reply(reservation)
    assert (len(it.account.in_flight), it.account.in_flight.cost, it.left()) == (0, 0, 570)


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
    assert (it.account.minute.spent, it.left(), len(it.account.in_flight)) == (1 + spent, 500 - spent, 0)


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
    assert it.account.external.total == 99  # of the minutes that have ended


def test_what_is_on_its_way_from_the_last_minute_was_not_spent_by_others() -> None:
    it = desk(59.9)
    it.send(30)
    it.now = 60.5
    it.spend(left=569)
    assert it.account.minute.external_spend == 0


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


def test_what_was_lost_raises_no_limit() -> None:
    """SalesLoft never had it: more is left than we believe, and no more than before."""
    it = desk()
    it.account.lost(it.send(30), it.now, maybe_sent=True)
    it.spend(left=599)
    assert (it.account.limit, it.left()) == (600, 569)


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


@pytest.mark.parametrize(("second", "left"), [(59.6, 590), (57.0, 600)])
def test_what_may_have_been_counted_in_the_next_minute_is_missing_there(second: float, left: int) -> None:
    """``Date`` is cut to seconds: the upstream's minute may have begun already."""
    it = desk(second)
    it.account.lost(it.send(10), it.now, maybe_sent=True)
    it.now = 60.0
    assert it.left() == left
    # In the one after that nothing is.
    it.now = 120.0
    assert it.left() == 600


def test_a_minute_that_only_our_own_clock_saw_begin_has_what_was_spent_before() -> None:
    """Our own clock is fast: both requests were sent in one minute of the upstream's."""
    it = Desk(Budget(Rules(), unix=UNIX + 59.5, now=0.0), unix=UNIX + 30.0)
    it.account.lost(it.send(30), it.now, maybe_sent=True)
    it.now = 1.0
    it.reply(it.send(10))
    assert it.account.minute.number == UNIX // MINUTE
    assert it.left() == 560


def test_who_slept_begins_the_minute_that_the_upstream_is_in() -> None:
    it = desk(10.0)
    it.spend(left=599)
    it.unix += 1000.0
    it.spend(left=599)
    assert it.account.minute.number == (UNIX + 1010.0) // MINUTE
    assert it.left() == 599


def test_a_minute_begins_with_the_date_that_says_so_to_the_last_digit() -> None:
    date = UNIX + MINUTE
    # By our own clock, and the difference to the upstream's, it begins a fraction of a microsecond later.
    now = next(at for at in (60.0 + n / 200_000 for n in range(1000)) if date - (date - at) > at)
    it = desk(59.0)
    reservation = it.send()
    it.now = now
    it.reply(reservation, date=date)
    assert it.account.minute.number == date // MINUTE
    assert it.left() == 599


def test_what_remains_without_a_date_near_the_minutes_end_is_of_neither() -> None:
    it = desk(59.5)
    it.reply(it.send(), 100, date=None)
    assert it.left() == 599


def test_what_remains_is_told_to_replicas_of_the_minute_that_it_was_reserved_in_only() -> None:
    it = desk(30.0)
    assert it.reply(it.send(), 599) == (1, 599)
    assert it.reply(it.send(), 0, refused=True) == (0, 0)
    # By our own clock it was sent in the next minute.
    it = Desk(Budget(Rules(), unix=UNIX + 90.0, now=0.0), unix=UNIX + 30.0)
    assert it.reply(it.send(), 599) == (1, None)
    # It may have been sent in the last one.
    it = Desk(Budget(Rules(), unix=UNIX, now=0.0))
    reservation = it.send()
    it.now = 0.5
    assert it.reply(reservation, 599) == (1, None)
