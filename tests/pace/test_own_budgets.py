"""A client's own budget: who has spent it waits for the next minute, and nobody waits behind."""

from __future__ import annotations

import math

import pytest

from tests.support.desk import Desk, desk


def test_a_client_at_its_limit_waits_for_the_next_minute_and_holds_nobody_else() -> None:
    it = desk(10.0)
    first, second, third = (it.ask(client="report", budget=2) for _ in range(3))
    other, free = it.ask(client="agent", budget=5), it.ask()
    for each in (first, second, third, other, free):
        assert it.budget.enqueue(each, it.now) is None
    assert it.go() == [first, second, other, free]
    assert it.budget.try_send(it.ask(client="agent", budget=5), it.now)
    assert it.budget.wake_in(it.now) == pytest.approx(50.0, abs=1.5)
    it.now += 52.0
    assert it.go() == [third]


def test_what_is_sent_at_once_is_held_to_it_as_well() -> None:
    it = desk(10.0)
    assert it.budget.try_send(it.ask(3, client="report", budget=3), it.now)
    assert not it.budget.try_send(it.ask(client="report", budget=3), it.now)
    assert it.budget.try_send(it.ask(client="agent"), it.now)


def test_a_request_that_costs_more_than_the_budget_is_never_sent() -> None:
    it = desk(10.0)
    assert it.budget.enqueue(it.ask(30, client="report", budget=20), it.now) == math.inf


@pytest.mark.parametrize(("ahead", "minutes"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (11, 2)])
def test_the_wait_is_told_in_minutes(ahead: int, minutes: int) -> None:
    it = desk(10.0)
    for _ in range(ahead):
        assert it.budget.enqueue(it.ask(client="report", budget=4), it.now) is None
    it.go()
    wait = it.budget.estimated_wait(it.ask(client="report", budget=4), it.now)
    assert wait == (0.0 if not minutes else pytest.approx(60 * minutes - 10, abs=1.5))


def test_who_may_not_wait_so_long_is_told_at_once() -> None:
    it = desk(10.0)
    it.account.book(it.ask(client="report", budget=1), it.now)
    assert it.budget.enqueue(it.ask(client="report", budget=1, max_wait=30.0), it.now) == pytest.approx(50.0, abs=1.5)


def test_who_only_calls_itself_by_the_name_of_a_client_keeps_it_from_nothing() -> None:
    it = desk(10.0)
    for _ in range(5):
        it.budget.queue.add(it.ask(30, client="report"))
    assert it.budget.estimated_wait(it.ask(client="report", budget=20), it.now) == 0.0


@pytest.mark.parametrize(
    ("told", "budget", "is_own"),
    [(590, 1, True), (0, 1, True), (0, 20, False), (590, 20, False)],
    ids=["its own is spent", "both are", "the team's is", "neither is"],
)
def test_which_budget_is_waited_for_is_known_to_the_last_second(told: int, budget: int, is_own: bool) -> None:
    for second in (10.0, 59.9):
        it = desk(second)
        it.reply(it.send(), told)
        it.account.book(it.ask(client="report", budget=budget), it.now)
        assert it.budget.waits_for_own(it.ask(client="report", budget=budget), it.now) is is_own


def spent(it: Desk, client: str) -> int:
    return it.account.minute.by_budget[client]


def test_what_a_reply_says_of_the_cost_counts() -> None:
    it = desk(10.0)
    sent = it.ask(client="report", budget=9)
    it.account.book(sent, it.now)
    assert spent(it, "report") == 1
    it.reply(sent, 595, cost=5)
    assert spent(it, "report") == 5
    lost = it.ask(client="report", budget=9)
    it.account.book(lost, it.now)
    it.account.lost(lost, it.now, maybe_sent=False)
    assert spent(it, "report") == 5


def test_a_label_that_anybody_may_write_is_no_name_of_a_client() -> None:
    it = desk(10.0)
    it.account.book(it.ask(client="report"), it.now)
    assert spent(it, "report") == 0
