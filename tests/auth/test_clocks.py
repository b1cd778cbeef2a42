"""Clocks that are wrong when a token is obtained, or set right afterwards: what counts is the issuer's."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.auth.token_in_use import TokenInUse
from slproxy.auth.token_reply import TokenEndpointReply, parse_token_reply
from slproxy.clock import Clock
from slproxy.http import http_date
from slproxy.store import FileStore, Record, Token
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, raw
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.waiting import until

TRUE = 1_795_000_000.0
DAY = 86_400.0
YEARS = 3_652 * DAY
LIFETIME = 7_200.0
# How far our clock is ahead when the token is obtained.
AHEAD = [
    pytest.param(YEARS, id="ten years ahead"),
    pytest.param(-YEARS, id="ten years behind"),
    pytest.param(DAY, id="a day ahead"),
    pytest.param(-DAY, id="a day behind"),
    pytest.param(0.0, id="right"),
    pytest.param(50.0, id="off by what leeway covers"),
]


def obtained(ahead: float, *, date: float | None = TRUE, expires_in: object = LIFETIME) -> Token:
    body = json.dumps({"access_token": "a", "expires_in": expires_in}).encode()
    headers = {} if date is None else {"date": http_date(date)}
    return parse_token_reply(TokenEndpointReply(status=200, headers=headers, body=body), now=TRUE + ahead)


@pytest.mark.parametrize("ahead", AHEAD)
def test_a_token_expires_when_its_issuer_says_by_a_clock_as_wrong_as_before_and_by_one_set_right(ahead: float) -> None:
    token = obtained(ahead)
    for since in (0.0, LIFETIME / 2, LIFETIME - 1, LIFETIME + 1):
        for now in (TRUE + since + ahead, TRUE + since):
            left = token.remaining(now)
            assert left == pytest.approx(LIFETIME - since, abs=60.0)
            assert left <= LIFETIME + 60.0
    assert token.expires_at == pytest.approx(TRUE + LIFETIME, abs=60.0)


@pytest.mark.parametrize("ahead", [-3600.0, -600.0, -100.0, 100.0, 600.0, 3600.0, 7100.0])
def test_a_clock_that_stays_a_little_wrong_believes_no_token_for_longer_or_shorter_than_its_issuer(
    ahead: float,
) -> None:
    token = obtained(ahead)
    for since in (0.0, 600.0, LIFETIME / 2, LIFETIME - 1):
        assert token.remaining(TRUE + since + ahead) == LIFETIME - since


@pytest.mark.parametrize("date", [None, 0.0, TRUE - YEARS, TRUE + YEARS])
def test_a_date_that_is_missing_or_absurd_does_no_harm_to_a_clock_that_is_right(date: float | None) -> None:
    token = obtained(0.0, date=date)
    assert token.remaining(TRUE) == LIFETIME
    assert token.remaining(TRUE + LIFETIME) == 0.0


def test_a_token_from_the_future_is_due_but_sent_until_it_is_renewed() -> None:
    """Without a `Date`, nothing tells how wrong the clock was that has been set back since."""
    token = obtained(YEARS, date=None)
    in_use = TokenInUse(leeway=120.0, leeway_is_set=True, jitter=0.0)
    in_use.set_record(Record(client_id="c", accounts_url="https://a.test", token=token), now=TRUE)
    assert in_use.renewal_due_in(TRUE) == 0.0
    assert in_use.valid(TRUE) is not None
    in_use.set_record(Record(client_id="c", accounts_url="https://a.test", token=obtained(0.0)), now=TRUE)
    assert in_use.renewal_due_in(TRUE) > 0.0


@pytest.mark.parametrize("ahead", [YEARS, -YEARS])
async def test_a_proxy_with_a_wrong_clock_renews_once_and_one_with_the_right_clock_believes_what_it_stored(
    tmp_path: Path, ahead: float
) -> None:
    store = FileStore(tmp_path / "state" / "token.json")
    wrong = Clock(now=lambda: time.time() + ahead)
    async with running_sandbox() as sandbox:
        await store.write(replace(login_at(sandbox, lifetime=-1.0), login=1))
        settings = replace(settings_for(sandbox.url), auth=sandbox_auth(sandbox))
        for clock in (wrong, wrong, Clock(), Clock()):
            async with proxy(settings, store=store, clock=clock) as app:
                for _ in range(3):
                    assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
                # With a clock that is behind, the login is from the future: it is sent until it is renewed.
                await until(lambda: bool(sandbox.token_requests))
                await app.credentials.settled()
                left = app.credentials.snapshot()["expires_in"]
                assert isinstance(left, float)
                assert LIFETIME - 60.0 < left <= LIFETIME
        assert len(sandbox.token_requests) == 1


async def test_a_clock_that_is_set_while_the_proxy_runs_costs_no_token(tmp_path: Path) -> None:
    store, ahead = FileStore(tmp_path / "state" / "token.json"), [YEARS]
    async with running_sandbox() as sandbox:
        await store.write(replace(login_at(sandbox, lifetime=-1.0), login=1))
        settings = replace(settings_for(sandbox.url), auth=sandbox_auth(sandbox))
        async with proxy(settings, store=store, clock=Clock(now=lambda: time.time() + ahead[0])) as app:
            for ahead[0] in (YEARS, 0.0, YEARS, 0.0):
                assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
                assert app.credentials.snapshot()["expires_in"] == pytest.approx(LIFETIME, abs=60.0)
        assert len(sandbox.token_requests) == 1
