"""The upstream's clock, from dates that are cut to seconds and come late."""

from __future__ import annotations

import math
import random
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slproxy.http import parsed_date, retry_after
from slproxy.pace.clock import DRIFT, ServerTime
from slproxy.retry import MINUTE

# A whole clock minute, in Unix time.
UNIX = 1_795_000_020.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1", 1.0),
        (" 30 ", 30.0),
        ("86400", 86400.0),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        (formatdate(UNIX + 7, usegmt=True), 7.0),
        (formatdate(UNIX - 7, usegmt=True), 0.0),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None),
        ("Wed Nov 18 11:07:07 2026", 7.0),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, now=UNIX) == seconds


def test_a_date_without_a_zone_is_of_no_other_zone_than_utc() -> None:
    assert parsed_date("Wed Nov 18 11:07:00 2026") == parsed_date("Wed, 18 Nov 2026 11:07:00 GMT") == UNIX


def test_before_the_first_reply_our_own_clock_is_all_there_is() -> None:
    time = ServerTime(unix=UNIX + 59.0, now=5.0)
    assert not time.is_known
    assert time.minute(5.0) == UNIX // MINUTE
    assert time.until(time.minute(5.0) + 1, 5.0) == pytest.approx(1.0)
    assert time.minute(6.0) == UNIX // MINUTE + 1


def test_the_first_reply_is_believed_whatever_our_own_clock_says() -> None:
    time = ServerTime(unix=UNIX + 90.0, now=0.0)
    # Nothing was known that it could contradict, but the minute is another one than was believed.
    assert not time.learn(UNIX + 10.0, sent=100.0, received=100.2)
    assert time.is_known
    assert time.earliest(100.2) == UNIX + 10.0
    assert time.until(int(UNIX // MINUTE) + 1, 100.2) == pytest.approx(50.0)


def test_many_replies_narrow_it() -> None:
    dice = random.Random(1)
    offset = UNIX - 12.345
    time = ServerTime(unix=0.0, now=0.0)
    now = 0.0
    for _ in range(200):
        sent = now + dice.uniform(0.0, 1.0)
        there, back = dice.uniform(0.01, 0.2), dice.uniform(0.01, 0.2)
        now = sent + there + back
        time.learn(float(math.floor(sent + there + offset)), sent=sent, received=now)
    # Never ahead of the truth, and no further behind it than the quickest of the answers near a second's end.
    assert offset - 0.1 <= time.earliest(now) - now <= offset


@given(
    offset=st.floats(-90.0, 90.0),
    replies=st.lists(
        st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 3.0), st.floats(0.0, 3.0)), min_size=1, max_size=30
    ),
)
@example(offset=0.0, replies=[(0.0, 0.0, 0.0), (0.999, 0.0, 0.0), (0.001, 0.0, 0.0)])
def test_it_is_never_ahead_of_the_upstream(offset: float, replies: list[tuple[float, float, float]]) -> None:
    """A minute is begun by us when it has begun there, whatever the ways took."""
    time = ServerTime(unix=UNIX, now=0.0)
    received = 0.0
    for number, (pause, there, back) in enumerate(replies):
        sent = received + pause
        at = sent + there
        received = at + back
        agreed = time.learn(float(math.floor(UNIX + offset + at)), sent=sent, received=received)
        assert agreed == (number > 0)
        assert time.earliest(received) <= UNIX + offset + received + 1e-6
        assert time.minute(received) <= (UNIX + offset + received + 1e-6) // MINUTE
        assert 0.0 <= time.until(time.minute(received) + 1, received) <= MINUTE + 1e-6


def test_before_the_first_date_it_is_our_own_clock_that_is_ahead() -> None:
    time = ServerTime(unix=UNIX + 1.0, now=0.0)
    time.set_back(1.0)
    assert (time.earliest(0.0), time.skew) == (UNIX, 0.0)
    # Later it is the upstream's Date.
    time.learn(UNIX + 2.0, sent=1.0, received=1.0)
    time.set_back(1.0)
    assert (time.earliest(1.0), time.skew) == (UNIX + 1.0, 1.0)


def test_a_clock_that_was_set_is_followed() -> None:
    time = ServerTime(unix=UNIX, now=0.0)
    time.learn(UNIX, sent=0.0, received=0.1)
    assert time.learn(UNIX + 1, sent=1.0, received=1.1)
    assert not time.learn(UNIX + 1001, sent=2.0, received=2.1)
    assert time.learn(UNIX + 1002, sent=3.0, received=3.1)
    assert time.earliest(3.1) == pytest.approx(UNIX + 1002, abs=0.2)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_replies_that_narrow_nothing_hide_no_drift(sign: float) -> None:
    """A clock that drifts is never contradicted, and is known as well as two seconds before."""
    time = ServerTime(unix=UNIX, now=0.0)
    time.learn(UNIX, sent=0.0, received=0.0)
    time.learn(UNIX + 1.0 - DRIFT, sent=0.0, received=1.0 - DRIFT)  # known to a tenth of a millisecond
    for number in range(4, 2400):
        received = number / 4
        there = UNIX + received * (1.0 + sign * DRIFT)
        # It took 3 s, and left in the middle of them.
        assert time.learn(float(math.floor(there - 1.5)), sent=received - 3.0, received=received)
        assert time.earliest(received) <= there + 2 * DRIFT
        assert time.latest(received) >= there - 2 * DRIFT
