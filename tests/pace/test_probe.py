"""Probe: one request finds out whether the budget is back, and a 429 at a minute's beginning is asked again."""

from __future__ import annotations

import pytest

from slproxy.pace import PROBE_TIMEOUT, Reservation
from slproxy.retry import MINUTE
from tests.support.desk import Desk, desk


def test_a_spent_minute_is_followed_by_a_probe() -> None:
    it = desk(30.0)
    it.spend(left=0)
    reservations = [it.enqueue() for _ in range(5)]
    it.now = 60.0
    assert it.go() == reservations[:1]
    assert it.budget.wake_in(it.now) == pytest.approx(PROBE_TIMEOUT)
    it.reply(reservations[0], 599)
    assert it.go() == reservations[1:]


def test_nobody_waits_for_a_probe_that_does_not_return() -> None:
    it = desk(30.0)
    it.spend(left=0)
    reservations = [it.enqueue() for _ in range(5)]
    it.now = 60.0
    it.go()
    it.now = 60.0 + PROBE_TIMEOUT
    assert it.go() == reservations[1:]


def test_one_that_is_sent_later_in_the_minute_holds_nobody_up() -> None:
    it, waiting = awaited(count=1)
    it.now = 60.0
    it.left()
    it.budget.queue.cancel(waiting[0])
    it.now = 60.0 + PROBE_TIMEOUT
    reservations = [it.enqueue() for _ in range(2)]
    assert it.go() == reservations


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
    while probes := it.go():
        assert len(probes) == 1
        it.reply(probes[0], refused=True)
        refusals += 1
        assert it.account.is_probing(it.now) == (refusals < 3)
        it.now = it.now + 1.05
    assert refusals == 3
    # Now it is known that those who have waited for long would wait in vain.
    assert it.budget.expire(it.now) == reservations[3:]
    assert it.account.resets_in(it.now) == pytest.approx(60.0 - 3.25, abs=0.02)


def test_what_is_refused_for_another_reason_teaches_no_more_than_two_seconds_of_skew() -> None:
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


def test_a_slow_probe_was_still_sent_in_its_minute() -> None:
    """Two clocks may drift apart while it is out, which makes no later beginning of what has begun."""
    it, reservations = awaited()
    it.now = 60.0
    assert it.go() == reservations[:1]
    it.now = 62.9
    it.reply(reservations[0], 599)
    assert it.go() == reservations[1:]
