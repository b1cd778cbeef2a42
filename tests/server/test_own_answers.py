"""The proxy's own answers: what they carry, and to whom they tell the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from slproxy.config import AuthSettings, ListenSettings
from slproxy.errors import LoginRequired, Problem, UpstreamUnreachable
from slproxy.server import pages
from tests.support.pair import asked
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get

ORIGIN = "https://app.test"
OWN = {
    "a page": get("/_slproxy/status.json"),
    "a probe": get("/_slproxy/healthz"),
    "a probe that tells no reason": get("/_slproxy/readyz", host="10.1.2.3"),
    "a page that is not there": get("/_slproxy/nothing"),
    "a refusal": get("/v2/../a"),
    "a request that does not parse": b"\x16\x03\x01\x02\x00",
    "a method that is not known": get("/v2/a", method="BREW"),
    "a preflight": get(
        "/v2/a",
        f"Origin: {ORIGIN}",
        "Sec-Fetch-Site: cross-site",
        "Access-Control-Request-Method: POST",
        method="OPTIONS",
    ),
}


@pytest.mark.parametrize("what", OWN)
async def test_an_answer_of_the_proxys_own_carries_a_date_and_its_json_ends_in_a_newline(what: str) -> None:
    settings = replace(settings_for("http://127.0.0.1:9"), listen=ListenSettings(port=0, allow_origins=(ORIGIN,)))
    async with proxy(settings) as app:
        answer: Message = await asked(app.urls[0], OWN[what])
    assert answer.head.get("Proxy-Status") is not None
    dates = answer.head.all("Date")
    assert len(dates) == 1
    assert dates[0].endswith(" GMT")
    assert abs(parsedate_to_datetime(dates[0]) - datetime.now(UTC)) < timedelta(minutes=1)
    if answer.body:
        json.loads(answer.body)
        assert answer.body.endswith(b"}\n")
        assert not answer.body.endswith(b"\n\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(get("/_slproxy/readyz", host="10.1.2.3:8642"), id="another Host"),
        pytest.param(get("/_slproxy/readyz", "Origin: https://evil.test"), id="another origin"),
        pytest.param(b"GET /_slproxy/readyz HTTP/1.0\r\n\r\n", id="no Host"),
    ],
)
async def test_readyz_tells_whom_the_check_would_refuse_that_it_is_not_ready_and_no_reason(
    request_bytes: bytes,
) -> None:
    settings = settings_for("http://127.0.0.1:9", auth=AuthSettings(grant="authorization_code", client_id="cid"))
    async with proxy(settings) as app:
        told = await asked(app.urls[0], get("/_slproxy/readyz"))
        untold = await asked(app.urls[0], request_bytes)
    assert (told.head.status, untold.head.status) == (503, 503)
    reason, bare = json.loads(told.body), json.loads(untold.body)
    assert (bare["type"], bare["title"]) == (reason["type"], reason["title"])
    assert bare.keys() == reason.keys()
    assert not {bare[name] for name in ("detail", "hint", "error")} & {reason["detail"], reason["hint"]}


def test_neither_the_reason_nor_a_warning_is_told_without_the_right_to_it() -> None:
    where = "/home/jane/.local/state/slproxy/default.json"

    def ready(problem: Problem | None, *, tells_reason: bool) -> str:
        try:
            return repr(
                pages.page(
                    "GET",
                    "/_slproxy/readyz",
                    tells_reason=tells_reason,
                    not_ready=lambda: problem,
                    warning=f"The token is only in memory: {where} cannot be written.",
                    state=dict,
                    metrics=lambda: ("text/plain", b""),
                ).body
            )
        except Problem as raised:
            return raised.body().decode()

    unreadable = LoginRequired(f"{where} can be read by others.", hint=f"chmod 600 {where}")
    unreachable = UpstreamUnreachable(f"{where} is no CA file.", maybe_sent=False)
    for problem in (None, unreadable, unreachable):
        assert where in ready(problem, tells_reason=True)
        assert where not in ready(problem, tells_reason=False)
