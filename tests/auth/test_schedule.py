"""Schedule of renewals: when, and how long after a failure again."""

from __future__ import annotations

import math

import pytest

from slproxy.auth.schedule import (
    FIRST_PAUSE,
    LAST_PAUSE,
    POLL_INTERVAL,
    POLL_INTERVAL_WITHOUT_TOKEN,
    REFUSED_PAUSE,
    Backoff,
    poll_interval,
    renewal_margin,
)
from slproxy.errors import CredentialsRefused, SlproxyError, StoreError, TokenEndpointDown
from slproxy.store import Token


@pytest.mark.parametrize(
    ("lifetime", "leeway", "given", "jitter", "margin"),
    [
        (7200.0, 120.0, False, 0.0, 120.0),
        (7200.0, 120.0, False, 1.0, 150.0),
        (8.0, 120.0, False, 0.0, 0.4),
        (8.0, 120.0, False, 1.0, 0.5),
        (7200.0, 0.0, False, 1.0, 0.0),
        (7200.0, 120.0, True, 0.0, 120.0),
        (7200.0, 120.0, True, 1.0, 150.0),
        (300.0, 100.0, True, 0.0, 100.0),
        (300.0, 100.0, True, 1.0, 125.0),
        (300.0, 230.0, True, 1.0, 270.0),
        (300.0, 299.0, True, 0.0, 240.0),
        (300.0, 299.0, True, 1.0, 270.0),
        (300.0, 86400.0, True, 1.0, 270.0),
        (7200.0, 0.0, True, 1.0, 0.0),
    ],
)
def test_a_token_is_renewed_before_its_expiry_with_jitter(
    lifetime: float, leeway: float, given: bool, jitter: float, margin: float
) -> None:
    token = Token(access_token="a", obtained_at=100.0, expires_at=100.0 + lifetime)
    assert renewal_margin(token, leeway=leeway, leeway_is_set=given, jitter=jitter) == pytest.approx(margin)


def test_a_token_that_never_expires_is_never_near_its_expiry() -> None:
    token = Token(access_token="a", obtained_at=100.0)
    assert renewal_margin(token, leeway=100.0, leeway_is_set=True, jitter=0.0) == 100.0


@pytest.mark.parametrize(
    ("due_in", "pause", "unpersisted", "interval"),
    [
        pytest.param(7.0, 0.0, False, 7.0, id="until it is due"),
        pytest.param(7200.0, 0.0, False, POLL_INTERVAL, id="a laptop may sleep meanwhile"),
        pytest.param(math.inf, 0.0, False, POLL_INTERVAL, id="a token that never expires"),
        pytest.param(7200.0, 0.0, True, POLL_INTERVAL_WITHOUT_TOKEN, id="a token that is only in memory"),
        pytest.param(0.0, -math.inf, False, POLL_INTERVAL_WITHOUT_TOKEN, id="due, and nothing stops it"),
        pytest.param(-1.0, 8.0, False, 8.0, id="due, after the pause"),
        pytest.param(-1.0, 900.0, False, POLL_INTERVAL, id="due, after a long pause"),
    ],
)
def test_the_refresher_looks_again_when_something_may_have_changed(
    due_in: float, pause: float, unpersisted: bool, interval: float
) -> None:
    assert poll_interval(due_in, pause=pause, unpersisted=unpersisted) == interval


@pytest.mark.parametrize(
    ("due_in", "pause", "interval"), [(7200.0, 0.0, 5.0), (3.0, 0.0, 3.0), (-1.0, 900.0, 5.0), (-1.0, 3.0, 3.0)]
)
def test_a_store_that_others_write_to_is_looked_at_as_often_as_it_wants(
    due_in: float, pause: float, interval: float
) -> None:
    assert poll_interval(due_in, pause=pause, unpersisted=False, watch=5.0) == interval
    assert poll_interval(7200.0, pause=0.0, unpersisted=False, watch=900.0) == POLL_INTERVAL


def after(*errors: SlproxyError) -> Backoff:
    backoff = Backoff()
    for error in errors:
        backoff = backoff.after(error, deferred=False, now=0.0)
    return backoff


def down(retry_in: float = 0.0) -> TokenEndpointDown:
    error = TokenEndpointDown("down")
    error.retry_in = retry_in
    return error


@pytest.mark.parametrize(
    ("errors", "pause"),
    [
        pytest.param([down()], FIRST_PAUSE, id="the first failure"),
        pytest.param([down()] * 3, 4 * FIRST_PAUSE, id="doubling"),
        pytest.param([down()] * 10, LAST_PAUSE, id="to the last"),
        pytest.param([StoreError("full")] * 2, 2 * FIRST_PAUSE, id="of the store"),
        pytest.param([CredentialsRefused("no")], REFUSED_PAUSE, id="refused credentials"),
        pytest.param([down(retry_in=400.0)], 400.0, id="as long as the endpoint wants"),
        pytest.param([down(retry_in=0.5)], FIRST_PAUSE, id="not shorter than ours"),
        # 2.0 ** 1024 is an OverflowError: this many failures are an outage of a day.
        pytest.param([down()] * 3000, LAST_PAUSE, id="however many"),
    ],
)
def test_a_failed_renewal_is_followed_by_a_pause(errors: list[SlproxyError], pause: float) -> None:
    backoff = after(*errors)
    assert backoff.until == pause
    assert backoff.forbids_renewal(expired=True, now=pause - 0.1)
    assert not backoff.forbids_renewal(expired=True, now=pause)


def test_what_was_deferred_while_the_token_was_valid_is_due_once_it_has_expired() -> None:
    backoff = Backoff().after(StoreError("full"), deferred=True, now=0.0)
    assert backoff.forbids_renewal(expired=False, now=0.1)
    assert not backoff.forbids_renewal(expired=True, now=0.1)


def test_before_any_failure_nothing_forbids_a_renewal() -> None:
    assert not Backoff().forbids_renewal(expired=False, now=0.0)
