"""Refusals: which 429s are about the budget, and who waits for those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from slproxy.pace import PROBE_TIMEOUT, RateLimitHeaders, Refusal, Reservation
from tests.support.desk import FOREVER, Desk, desk


@pytest.mark.parametrize(
    ("headers", "cost", "is_about_budget"),
    [
        # What remains decides, whatever else is said.
        ({"x-ratelimit-remaining-minute": "550"}, 1, False),
        ({"x-ratelimit-remaining-minute": "550", "Retry-After": "40"}, 1, False),
        ({"x-ratelimit-remaining-minute": "0"}, 1, True),
        ({"x-ratelimit-remaining-minute": "0", "Retry-After": "1"}, 1, True),
        ({"x-ratelimit-remaining-minute": "-4", "Retry-After": "1"}, 1, True),
        # Less than this request's cost: what was said of it, else what its page costs.
        ({"x-ratelimit-remaining-minute": "1"}, 1, False),
        ({"x-ratelimit-remaining-minute": "9"}, 10, True),
        ({"x-ratelimit-remaining-minute": "10"}, 10, False),
        ({"x-ratelimit-remaining-minute": "2", "x-ratelimit-endpoint-cost": "3"}, 1, True),
        ({"x-ratelimit-remaining-minute": "5", "x-ratelimit-endpoint-cost": "3"}, 10, False),
        ({"x-ratelimit-remaining-minute": "0", "x-ratelimit-endpoint-cost": "0"}, 1, True),
        # Where it is not told, a short wait is about something else, and so is one of more than a minute.
        ({}, 1, True),
        ({"Retry-After": "0"}, 1, False),
        ({"Retry-After": "5"}, 1, False),
        ({"Retry-After": "6"}, 1, True),
        ({"Retry-After": "60"}, 1, True),
        ({"Retry-After": "61"}, 1, False),
        ({"Retry-After": "soon"}, 1, True),
        ({"Date": "Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After": "Sun, 06 Nov 1994 08:49:40 GMT"}, 1, False),
        ({"Date": "Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After": "Sun, 06 Nov 1994 08:49:57 GMT"}, 1, True),
        # Junk tells nothing.
        ({"x-ratelimit-remaining-minute": "plenty", "Retry-After": "2"}, 1, False),
        ({"x-ratelimit-remaining-minute": "550, 550"}, 1, True),
        ({"x-ratelimit-remaining-minute": ""}, 1, True),
    ],
)
def test_what_a_429_is_about(headers: dict[str, str], cost: int, is_about_budget: bool) -> None:
    first = {name.lower().encode(): value.encode() for name, value in headers.items()}
    told = RateLimitHeaders.parse(429, first, now=784111777.0)
    assert told.is_about_budget(cost) is is_about_budget


def ask(it: Desk, endpoint: str = "odd", *, max_wait: float = FOREVER) -> Reservation:
    return it.budget.reservation("GET", f"/v2/{endpoint}", client="", bulk=False, now=it.now, max_wait=max_wait)


def goes_at_once(it: Desk, endpoint: str, *, max_wait: float = FOREVER) -> bool:
    return it.budget.try_send(ask(it, endpoint, max_wait=max_wait), it.now)


def refused(it: Desk, endpoint: str = "odd", **more: Any) -> Reservation:
    """Send one, and have it refused."""
    reservation = ask(it, endpoint)
    assert it.budget.try_send(reservation, it.now)
    it.reply(reservation, refused=True, **more)
    return reservation


def again(it: Desk, before: Reservation) -> Reservation:
    """Queue once more what was refused."""
    assert before.refusal is Refusal.REQUEUED
    reservation = ask(it, before.endpoint.rpartition("/")[2])
    assert it.budget.enqueue(reservation, it.now) is None
    return reservation


@pytest.mark.parametrize("more", [{"remaining": 550}, {"remaining": 550, "retry_after": 40.0}, {"retry_after": 5.0}])
def test_a_429_about_something_else_stops_nobody(more: dict[str, Any]) -> None:
    it = desk(10.0)
    it.spend(left=552)
    for _ in range(20):
        assert refused(it, **more).refusal is Refusal.OTHER
        assert it.left() >= 500
        assert goes_at_once(it, "odd")
        assert goes_at_once(it, "other")
    assert it.account.minute.refused == 0


def test_what_a_429_about_something_else_has_cost_is_spent_where_it_says_so() -> None:
    it = desk(10.0)
    refused(it, remaining=598, cost=2)
    assert (it.account.minute.spent, it.left()) == (2, 598)
    refused(it, remaining=590)
    assert (it.account.minute.spent, it.left()) == (2, 590)


def test_a_dear_request_that_does_not_fit_closes_the_minute() -> None:
    it = desk(10.0)
    it.spend(left=20)
    it.send(10)
    dear = it.send(30)
    it.reply(dear, 9, refused=True)
    assert (dear.refusal, it.left()) == (Refusal.REQUEUED, 0)


def doubtful(**more: Any) -> tuple[Desk, Reservation]:
    """Return a minute of which plenty was left, and one that a bare 429 has sent back to the queue."""
    it = desk(10.0)
    it.spend(left=553)
    other = ask(it, "other")
    assert it.budget.try_send(other, it.now)
    it.reply(other, 552)
    return it, again(it, refused(it, **more))


@pytest.mark.parametrize(("more", "held"), [({}, 0.5), ({"retry_after": 20.0}, 20.0)])
def test_a_bare_429_while_plenty_is_left_is_looked_into_by_another_endpoints_request(
    more: dict[str, Any], held: float
) -> None:
    it, odd = doubtful(**more)
    assert it.left() == 552
    # The endpoint is held; one request of another finds out, and the others wait for that, but who may not.
    assert not goes_at_once(it, "odd")
    probe = ask(it, "other")
    assert it.budget.try_send(probe, it.now)
    assert not goes_at_once(it, "other")
    assert goes_at_once(it, "other", max_wait=0.0)
    other = ask(it, "other")
    assert it.budget.enqueue(other, it.now) is None
    assert it.budget.wake_in(it.now) == pytest.approx(PROBE_TIMEOUT)
    it.reply(probe, 550)
    assert it.go() == [other]
    assert goes_at_once(it, "other")
    # Retry-After binds the endpoint only; without one, it is asked again soon.
    assert it.budget.wake_in(it.now) == pytest.approx(held)
    it.now += held - 0.01
    assert it.go() == []
    it.now += 0.01
    assert it.go() == [odd]
    assert it.account.minute.refused == 0


def test_an_endpoint_that_is_known_to_have_a_limit_of_its_own_stops_nobody_again() -> None:
    it, _ = doubtful()
    probe = ask(it, "other")
    assert it.budget.try_send(probe, it.now)
    it.reply(probe, 550)
    it.now += 0.5
    for minute in range(3):
        it.reply(it.go()[0] if not minute else ask_and_send(it), refused=True)
        assert goes_at_once(it, "other")
        it.now += 60.0


def ask_and_send(it: Desk) -> Reservation:
    reservation = ask(it)
    assert it.budget.try_send(reservation, it.now)
    return reservation


@pytest.mark.parametrize(("more", "held"), [({}, 50.0), ({"retry_after": 20.0}, 20.0)])
def test_a_bare_429_to_another_endpoint_too_closes_the_minute(more: dict[str, Any], held: float) -> None:
    it, odd = doubtful(**more)
    other = again(it, refused(it, "other", **more))
    assert it.account.minute.refused == 1
    assert it.left() == (552 if more else 0)
    assert it.budget.estimated_wait(ask(it, "third"), it.now) == pytest.approx(held, abs=0.02)
    it.now += held - 0.05
    assert it.go() == []
    it.now += 0.1
    assert it.go()[0] is odd
    assert other in it.budget.queue or other.sent is not None


def test_so_does_one_to_several_others_and_none_to_others_that_may_have_a_limit_too() -> None:
    it, odd = doubtful()
    for method in ("POST", "PUT", "DELETE"):
        each = it.budget.reservation(method, "/v2/odd", client="", bulk=False, now=it.now, max_wait=FOREVER)
        assert it.budget.try_send(each, it.now)
        it.reply(each, refused=True)
        again(it, each)
    for endpoint in ("odder", "oddest"):
        again(it, refused(it, endpoint))
    assert (it.account.minute.refused, it.left()) == (0, 552)
    probe = ask(it, "other")
    assert it.budget.try_send(probe, it.now)
    it.reply(probe, 551)
    assert goes_at_once(it, "other")
    it.now += 0.5
    assert odd in it.go()

    it, odd = doubtful()
    for endpoint in ("odder", "oddest", "too many"):
        again(it, refused(it, endpoint))
    assert (it.account.minute.refused, it.left()) == (1, 0)


def test_a_bare_429_that_nobody_looks_into_holds_its_endpoint_until_the_next_minute() -> None:
    it, odd = doubtful()
    assert it.budget.wake_in(it.now) == pytest.approx(50.0)
    assert it.budget.expire(it.now) == []
    it.now = 60.0
    assert it.go() == [odd]


def test_those_that_were_in_flight_with_it_are_no_proof() -> None:
    it = desk(10.0)
    it.spend(left=552)
    flight = [ask(it, name) for name in ("a", "b", "c")]
    for each in flight:
        assert it.budget.try_send(each, it.now)
    for each in flight:
        it.reply(each, refused=True)
        again(it, each)
    assert it.left() > 500
    assert goes_at_once(it, "other")


def test_nobody_waits_for_a_reply_to_the_one_that_finds_out_that_does_not_come() -> None:
    it, _ = doubtful()
    assert goes_at_once(it, "other")
    assert not goes_at_once(it, "other")
    it.now += PROBE_TIMEOUT
    assert goes_at_once(it, "other")


def test_a_bare_429_closes_a_minute_of_which_little_or_nothing_was_told() -> None:
    for left in (None, 20):
        it = desk(10.0)
        if left is not None:
            it.spend(left=left)
        assert refused(it).refusal is Refusal.REQUEUED
        assert it.left() == 0


@pytest.mark.parametrize("left", [None, 550], ids=["that never tells", "that tells"])
@pytest.mark.parametrize(("more", "held"), [({}, 50.0), ({"retry_after": 30.0}, 30.0)])
def test_an_endpoint_that_closed_the_budget_goes_behind_the_others_and_closes_it_no_more(
    more: dict[str, Any], held: float, left: int | None
) -> None:
    it = desk(10.0)
    odd = again(it, refused(it, **more))
    others = [ask(it, name, max_wait=75.0) for name in ("a", "b", "a")]
    for each in others:
        assert it.budget.enqueue(each, it.now) is None
    it.now += held
    gone = it.go()
    assert gone[0] is others[0]
    it.reply(gone.pop(0), left)
    gone += it.go()
    assert set(gone) == {*others[1:], odd}
    it.reply(odd, refused=True, **more)
    # Not at once: what was sent before it was refused is no proof.
    for each in others[1:]:
        it.reply(each, left)
    odd, other = again(it, odd), ask(it, "a")
    assert it.budget.try_send(other, it.now)
    it.reply(other, left)
    # From now on it is known.
    it.budget.queue.cancel(odd)
    for _ in range(3):
        it.now += 60.0
        odd, other = ask(it), ask(it, "a")
        assert [it.budget.enqueue(each, it.now) for each in (odd, other)] == [None, None]
        gone = it.go()
        it.reply(odd, refused=True)
        assert (odd.refusal, gone + it.go()) == (Refusal.OTHER, [odd, other])
        it.reply(other, left)


def test_one_that_closed_the_budget_goes_in_its_turn_once_another_was_served() -> None:
    it = desk(10.0)
    odd = again(it, refused(it))
    others = [ask(it, "a") for _ in range(3)]
    for each in others:
        assert it.budget.enqueue(each, it.now) is None
    it.now += 50.0
    assert it.go() == [others[0]], "which finds out whether the budget is back"
    it.reply(others[0])
    assert it.go() == [odd, *others[1:]]
    it.reply(odd)
    assert goes_at_once(it, "odd")


def test_what_is_held_can_be_given_up_and_is_gone_with_its_time() -> None:
    it, odd = doubtful(retry_after=20.0)
    it.budget.queue.cancel(odd)
    assert it.budget.wake_in(it.now) is None
    late = ask(it, max_wait=21.0)
    assert it.budget.enqueue(late, it.now) is None
    assert ask(it, max_wait=5.0).deadline < it.account.endpoints.held_until(late.endpoint)
    assert it.budget.enqueue(ask(it, max_wait=5.0), it.now) == pytest.approx(20.0)
    it.now += 22.0
    assert it.budget.expire(it.now) == [late]
