"""When a request is sent again, and after what wait: docs/contract.md, Cure, and docs/hazards.md, R2, R3 and trap 7."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate

import pytest

from slproxy.errors import CredentialsRefused, SlproxyError, UpstreamFault, UpstreamTimeout, UpstreamUnreachable
from slproxy.http import retry_after
from slproxy.retry import Outcome
from slproxy.retry.budget import RetryBudget
from slproxy.retry.decision import REPEATABLE, RETRIED, wait_before_next
from slproxy.retry.retrying import retried

# A whole clock minute, in Unix time.
MINUTE = 1_795_000_020.0
ALL_METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"]


def date(at: float) -> str:
    return formatdate(at, usegmt=True)


def wait(
    status: int | None,
    *,
    method: str = "GET",
    maybe_sent: bool = True,
    retry_after: str | None = None,
    date: str | None = None,
    attempt: int = 1,
    now: float = MINUTE,
    jitter: float = 0.5,
    max_wait: float = 60.0,
) -> float | None:
    outcome = Outcome(status=status, maybe_sent=maybe_sent, retry_after=retry_after, date=date)
    return wait_before_next(outcome, method=method, attempt=attempt, now=now, jitter=jitter, max_wait=max_wait)


def test_the_repeatable_methods_are_those_of_the_contract() -> None:
    assert sorted(REPEATABLE) == ["DELETE", "GET", "HEAD", "OPTIONS", "PUT"]


# Which outcome is the client's to have


@pytest.mark.parametrize("method", ALL_METHODS)
@pytest.mark.parametrize(
    "status", [200, 201, 204, 301, 302, 304, 400, 401, 403, 404, 409, 413, 422, 428, 430, 500, 501, 505, 508]
)
def test_a_reply_that_waiting_does_not_cure_is_the_clients(status: int, method: str) -> None:
    assert status not in RETRIED
    assert wait(status, method=method, retry_after="1") is None


@pytest.mark.parametrize(
    ("status", "reached", "methods"),
    [
        # 429: again, any method.
        (429, True, ALL_METHODS),
        # 502, 503, 504, reset or timeout after sending: never for POST or PATCH.
        (502, True, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]),
        (503, True, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]),
        (504, True, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]),
        (None, True, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]),
        # Could not connect: again, any method.
        (None, False, ALL_METHODS),
    ],
)
def test_what_may_be_sent_again_depends_on_the_method_and_on_whether_a_byte_may_have_left(
    status: int | None, reached: bool, methods: list[str]
) -> None:
    again = [method for method in ALL_METHODS if wait(status, method=method, maybe_sent=reached) is not None]
    assert again == methods
    assert status is None or status in RETRIED


# How long


@pytest.mark.parametrize(("status", "reached"), [(503, True), (None, True), (None, False)])
@pytest.mark.parametrize(
    ("attempt", "jitter", "max_wait", "expected"),
    [
        (1, 0.0, 60.0, 0.25),
        (1, 0.5, 60.0, 0.375),
        (1, 0.999, 60.0, 0.49975),
        (2, 0.0, 60.0, 0.5),
        (3, 0.0, 60.0, 1.0),
        (4, 0.5, 60.0, 3.0),
        (9, 0.5, 60.0, 45.0),
        (20, 0.5, 60.0, 45.0),
        (3, 0.5, 0.5, 0.375),
        (3, 0.5, 0.0, 0.0),
    ],
)
def test_backoff_doubles_up_to_the_longest_wait_and_half_of_it_is_waited_at_least(
    status: int | None, reached: bool, attempt: int, jitter: float, max_wait: float, expected: float
) -> None:
    got = wait(status, maybe_sent=reached, attempt=attempt, jitter=jitter, max_wait=max_wait)
    assert got == pytest.approx(expected)


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("60", 60.0),
        (date(MINUTE + 20), 20.0),
        # R2: 0 is the least backoff, and so is a date that has passed.
        ("0", 0.375),
        (date(MINUTE), 0.375),
        (date(MINUTE - 3600), 0.375),
        # R2: over the cap the 429 is the client's at once.
        ("61", None),
        ("9999", None),
        (date(MINUTE + 61), None),
        (date(MINUTE + 86400), None),
        ("99999999999999999999", None),
        # R2: junk is the default, the next clock minute.
        ("junk", 60.0),
        ("", 60.0),
        ("-1", 60.0),
        ("+7", 60.0),
        ("1.5", 60.0),
        ("1e3", 60.0),
        ("0x10", 60.0),
        ("7, 8", 60.0),
        ("7 seconds", 60.0),
        ("\u0667", 60.0),
        ("Mon, 99 Nov 2026 00:00:00 GMT", 60.0),
        (None, 60.0),
    ],
    ids=ascii,
)
def test_a_429_waits_as_it_is_told_or_for_the_next_minute(retry_after: str | None, expected: float | None) -> None:
    # R2. Jitter comes on top of the default alone: what the upstream names is waited for as it is.
    jitter = 0.5 if expected == 60.0 and retry_after != "60" else 0.0
    for method in ("GET", "POST"):
        got = wait(429, method=method, retry_after=retry_after, date=date(MINUTE), now=MINUTE + 33)
        assert got == (None if expected is None else expected + jitter)


@pytest.mark.parametrize(
    ("there", "here", "jitter", "expected"),
    [
        (date(MINUTE + 50), MINUTE + 5, 0.0, 10.0),
        (date(MINUTE + 50), MINUTE + 5, 0.5, 10.5),
        (date(MINUTE + 59), MINUTE + 3600, 0.25, 1.25),
        (date(MINUTE), MINUTE + 59, 0.0, 60.0),
        # No date, or none that is one: our own clock.
        (None, MINUTE + 45, 0.0, 15.0),
        ("", MINUTE + 45, 0.0, 15.0),
        ("yesterday", MINUTE + 45, 0.0, 15.0),
        (None, MINUTE + 45.75, 0.5, 14.75),
    ],
)
def test_the_next_minute_is_the_upstreams_and_whoever_waits_for_it_spreads_out(
    there: str | None, here: float, jitter: float, expected: float
) -> None:
    assert wait(429, date=there, now=here, jitter=jitter) == pytest.approx(expected)


def test_a_429_that_is_not_about_the_budget_and_says_nothing_is_only_backed_off_from() -> None:
    outcome = Outcome(status=429, maybe_sent=True)
    for attempt, least in ((1, 0.25), (2, 0.5), (3, 1.0)):
        got = wait_before_next(
            outcome, method="POST", attempt=attempt, now=MINUTE, jitter=0.0, max_wait=60.0, is_about_budget=False
        )
        assert got == least


@pytest.mark.parametrize("max_wait", [1.0, 10.0, 49.0])
def test_no_single_wait_is_longer_than_max_wait(max_wait: float) -> None:
    got = wait(429, date=date(MINUTE + 10), max_wait=max_wait)
    assert got is None or got <= max_wait


@pytest.mark.parametrize("status", [502, 503, 504])
@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [("5", 5.0), ("0", 0.375), ("junk", 0.375), (None, 0.375), ("-5", 0.375), ("61", None), (date(MINUTE + 9), 9.0)],
)
def test_a_passing_failure_is_not_met_sooner_than_it_asks(
    status: int, retry_after: str | None, expected: float | None
) -> None:
    assert wait(status, retry_after=retry_after, date=date(MINUTE), now=MINUTE + 33) == expected
    assert wait(status, retry_after=retry_after, method="POST") is None


# Retry-After (RFC 9110 §10.2.3), with the three forms of a date (§5.6.7)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 37.0),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("\x00", None),
        (",", None),
        ("Sun, 06 Nov 1994 08:49:37 +999999999999", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
    ],
    ids=ascii,
)
def test_retry_after_is_seconds_or_a_date_and_never_below_zero(value: str | None, expected: float | None) -> None:
    assert retry_after(value, now=784111740.0) == expected


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as context:
        context.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
@pytest.mark.usefixtures("in_new_york")
def test_a_date_means_the_same_wherever_the_proxy_runs(value: str) -> None:
    assert retry_after(value, now=784111740.0) == 37.0


# The budget


def spends(budget: RetryBudget, now: float) -> bool:
    """Spend one retry if there is budget for it, as the forwarder does."""
    if not budget.allows_retry(now):
        return False
    budget.count_retry(now)
    return True


@pytest.mark.parametrize(
    ("share", "requests", "retries"),
    [(0.2, 0, 10), (0.2, 1, 10), (0.2, 50, 10), (0.2, 100, 20), (0.2, 1000, 200), (0.0, 1000, 10), (1.0, 100, 100)],
)
def test_retries_are_a_share_of_the_requests_over_a_floor_of_ten(share: float, requests: int, retries: int) -> None:
    budget = RetryBudget(share)
    for _ in range(requests):
        budget.count_request(1000.5)
    assert sum(spends(budget, 1000.5) for _ in range(2000)) == retries


def test_a_spent_budget_fills_again_as_time_goes_by_and_requests_that_are_long_gone_do_not_count() -> None:
    budget = RetryBudget(0.2)
    for _ in range(1000):
        budget.count_request(1000.0)
    assert sum(spends(budget, 1000.0) for _ in range(2000)) == 200
    assert not budget.allows_retry(1001.0)
    assert sum(spends(budget, 1100.0) for _ in range(2000)) == 10


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "start",
    [
        0.0,
        12345.678,
    ],
)
def test_an_outage_of_a_minute_costs_the_upstream_at_most_a_fifth_more_requests(start: float, seed: int) -> None:
    # R3: all 503 for 60 s at 10 requests a second.
    dice = random.Random(seed)
    budget = RetryBudget(0.2)
    events = [(start + number / 10, number, 1) for number in range(600)]
    heapq.heapify(events)
    sent = 0
    while events:
        now, number, attempt = heapq.heappop(events)
        if attempt == 1:
            budget.count_request(now)
        sent += 1
        pause = wait(503, attempt=attempt, jitter=dice.random())
        if attempt < 4 and pause is not None and spends(budget, now):
            heapq.heappush(events, (now + pause, number, attempt + 1))
    assert 600 < sent <= 720


# The loop, on tenacity itself


@dataclass(frozen=True)
class Answered:
    """A reply, as far as the loop goes."""

    outcome: Outcome


def answered(status: int) -> Answered:
    return Answered(Outcome(status=status, maybe_sent=True))


class Script:
    """What the attempts of one request come to, in turn; remembers what was asked, waited and told."""

    def __init__(self, *steps: Answered | BaseException, waits: tuple[float | None, ...] = (0.5, 1.0, 2.0)) -> None:
        self._steps = list(steps)
        self._waits = waits
        self.attempts = 0
        self.asked: list[tuple[Outcome, int]] = []
        self.slept: list[float] = []
        self.told: list[tuple[Answered | UpstreamFault, float]] = []
        self.first: Answered | UpstreamFault | None = None

    async def attempt(self) -> Answered:
        step = self._steps[self.attempts]
        self.attempts += 1
        if isinstance(step, BaseException):
            raise step
        return step

    def next_wait(self, outcome: Outcome, attempt: int) -> float | None:
        self.asked.append((outcome, attempt))
        return self._waits[attempt - 1] if attempt <= len(self._waits) else None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def before_wait(self, result: Answered | UpstreamFault, _: Outcome, seconds: float) -> None:
        self.told.append((result, seconds))

    async def run(self) -> Answered:
        return await retried(
            self.attempt, self.next_wait, sleep=self.sleep, before_wait=self.before_wait, first=self.first
        )


async def test_the_first_reply_that_is_not_waited_for_is_the_answer() -> None:
    script = Script(answered(503), answered(429), answered(200), waits=(0.5, 0.0, None))
    assert await script.run() == answered(200)
    assert script.attempts == 3
    assert script.slept == [0.5, 0.0]
    assert script.told == [(answered(503), 0.5), (answered(429), 0.0)]
    assert [(outcome.status, attempt) for outcome, attempt in script.asked] == [(503, 1), (429, 2), (200, 3)]


@pytest.mark.parametrize("first", [answered(503), UpstreamUnreachable("The first one.", maybe_sent=True)], ids=repr)
async def test_a_first_attempt_that_was_made_already_counts_as_the_first(first: Answered | UpstreamFault) -> None:
    script = Script(answered(503), answered(200), waits=(0.5, 1.0, None))
    script.first = first
    assert await script.run() == answered(200)
    assert script.attempts == 2
    assert script.told == [(first, 0.5), (answered(503), 1.0)]
    assert [attempt for _, attempt in script.asked] == [1, 2, 3]


async def test_one_attempt_is_enough_when_nobody_waits() -> None:
    script = Script(answered(503), waits=())
    assert await script.run() == answered(503)
    assert (script.attempts, script.slept, script.told) == (1, [], [])


async def test_out_of_attempts_the_last_reply_is_the_answer() -> None:
    script = Script(*[answered(status) for status in (500, 501, 502, 503)])
    assert await script.run() == answered(503)
    assert script.attempts == 4
    assert script.slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("fault", [UpstreamUnreachable, UpstreamTimeout])
async def test_a_fault_of_the_upstream_is_an_outcome_and_is_raised_as_it_was_when_it_is_the_last(
    fault: type[UpstreamUnreachable | UpstreamTimeout], reached: bool
) -> None:
    last = fault("The last one.", maybe_sent=reached)
    script = Script(fault("The first one.", maybe_sent=reached), answered(503), last, waits=(0.5, 1.0, None))
    with pytest.raises(fault) as caught:
        await script.run()
    assert caught.value is last
    assert [outcome for outcome, _ in script.asked] == [
        Outcome(status=None, maybe_sent=reached),
        Outcome(status=503, maybe_sent=True),
        Outcome(status=None, maybe_sent=reached),
    ]


class Fatal(BaseException):
    """What no program catches."""


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        TimeoutError(),
        ConnectionResetError(),
        ValueError("x"),
        AssertionError("x"),
        Fatal(),
        CredentialsRefused("No."),
        SlproxyError("No."),
    ],
    ids=repr,
)
async def test_what_is_no_fault_of_the_upstream_passes_through_at_once(error: BaseException) -> None:
    script = Script(answered(503), error, answered(200))
    with pytest.raises(type(error)) as caught:
        await script.run()
    assert caught.value is error
    assert script.attempts == 2
    assert script.slept == [0.5]
    assert len(script.asked) == 1, "nobody is asked whether to repeat it"


@pytest.mark.parametrize("where", ["attempt", "sleep", "before_wait"])
async def test_a_cancelled_request_is_never_sent_again(where: str) -> None:
    # docs/hazards.md, trap 7: a predicate that is true for everything retries a cancelled call.
    reached = asyncio.Event()
    attempts = 0

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    async def attempt() -> Answered:
        nonlocal attempts
        attempts += 1
        if where == "attempt":
            await hang()
        return answered(503)

    def never_mind(place: str) -> Callable[..., Awaitable[None]]:
        async def step(*_: object) -> None:
            if where == place:
                await hang()

        return step

    task = asyncio.ensure_future(
        retried(attempt, lambda *_: 0.0, sleep=never_mind("sleep"), before_wait=never_mind("before_wait"))
    )
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attempts == 1


async def test_requests_at_the_same_time_do_not_count_each_others_attempts() -> None:
    scripts = [Script(*[answered(503)] * 3, answered(200)) for _ in range(20)]
    assert await asyncio.gather(*[script.run() for script in scripts]) == [answered(200)] * 20
    assert {script.attempts for script in scripts} == {4}
    assert {tuple(attempt for _, attempt in script.asked) for script in scripts} == {(1, 2, 3, 4)}
