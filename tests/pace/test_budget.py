"""Budget: whose request is sent next, and when."""

from __future__ import annotations

import pytest

from slproxy.pace.queue import BULK_SHARE
from slproxy.retry import MINUTE
from tests.support.desk import desk


def test_another_team_has_the_queue_and_nothing_else() -> None:
    it = desk()
    it.spend(left=0)
    flying, first, second = it.send(), it.enqueue(), it.enqueue()
    it.budget = it.budget.for_another_team(it.now)
    assert it.left() == 600
    assert it.go() == [first, second]
    it.reply(flying, 0)
    assert (it.left(), len(it.account.in_flight)) == (598, 2)
    assert it.ask().ticket > second.ticket


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
    (probe,) = it.go()
    assert probe is interactive[0]
    it.reply(probe, 599)
    gone = it.go()
    contested = gone[: gone.index(interactive[-1])]
    assert sum(reservation.bulk for reservation in contested) == pytest.approx(len(contested) * BULK_SHARE, abs=1)
    for queue in (bulk, interactive):
        assert [reservation for reservation in [probe, *gone] if reservation.bulk == queue[0].bulk] == queue


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
    assert (great.cost, it.left()) == (30, 0)


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


def test_who_may_wait_for_what_may_come_back_at_any_moment_is_not_sent_away() -> None:
    """The last reply may have counted what was in flight, or not: the next one tells."""
    it = desk(10.0)
    slow = it.send()
    it.now = 11.0
    it.spend(left=1)
    asked = it.enqueue(max_wait=5.0)
    assert it.go() == []
    it.reply(slow, 1)
    assert it.go() == [asked]


@pytest.mark.parametrize(
    ("ahead", "cost", "wait"), [(0, 1, 0.2), (9, 1, 2.0), (0, 10, 2.0), (269, 1, 54.0), (270, 1, 54.2), (310, 1, 60.0)]
)
def test_the_wait_for_a_smoothed_burst_is_known_at_arrival(ahead: int, cost: int, wait: float) -> None:
    it = desk(burst=0.5)
    for _ in range(300):
        it.reply(it.send())
    for _ in range(ahead):
        it.enqueue()
    assert it.budget.estimated_wait(it.ask(cost), it.now) == pytest.approx(wait, abs=0.01)
    last = it.enqueue(cost)
    while last.sent is None:
        it.now += max(it.budget.wake_in(it.now) or 0.0, 0.001)
        for reservation in it.go():
            it.reply(reservation)
    assert last.sent == pytest.approx(wait, abs=0.01)


def test_a_smoothed_burst_that_others_have_spent_waits_for_the_next_minute() -> None:
    it = desk(10.0, burst=0.5)
    it.spend(left=0)
    assert it.budget.estimated_wait(it.ask(), it.now) == pytest.approx(50.0, abs=0.01)
