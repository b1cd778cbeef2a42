"""Request ids on the wire: on the reply, in problems and in the log, and never sent up but by the client."""

from __future__ import annotations

import io
import json

import pytest

from slproxy.observe import AccessLog
from tests.support.clock import FakeTime
from tests.support.pair import asked, pair, problem
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import until

OWN = {"an answer of SalesLoft's": "/v2/a", "a page of the proxy's own": "/_slproxy/healthz", "a refusal": "/v1"}


@pytest.mark.parametrize("target", OWN.values(), ids=OWN)
async def test_every_reply_has_the_id_that_the_client_gave_or_a_new_one(target: str) -> None:
    async with pair() as (_, app):
        given = await asked(app.urls[0], get(target, "x-request-id: mine-1"))
        made = [(await asked(app.urls[0], get(target))).head.all("X-Request-Id") for _ in range(2)]
        insane = await asked(app.urls[0], get(target, "X-Request-Id: a b"))
    assert given.head.all("X-Request-Id") == ["mine-1"]
    assert len(made[0]) == len(made[1]) == 1
    assert made[0] != made[1]
    assert insane.head.all("X-Request-Id") != ["a b"]


async def test_an_id_goes_up_only_if_the_client_sent_it() -> None:
    async with pair() as (upstream, app):
        await asked(app.urls[0], get("/v2/a"))
        await asked(app.urls[0], get("/v2/a", "X-Request-Id: a b"))
    assert [message.head.all("X-Request-Id") for message in upstream.seen] == [[], ["a b"]]


async def test_a_problem_tells_its_id_and_so_does_what_does_not_parse() -> None:
    async with pair() as (_, app):
        refused = await asked(app.urls[0], get("/v1", "X-Request-Id: mine-1"))
        unparsed = await asked(app.urls[0], b"GET /v2/a HTTP/1.1\r\nHost localhost\r\n\r\n")
    assert problem(refused, status=404, kind="not-found")["request_id"] == "mine-1"
    document = problem(unparsed, status=400, kind="bad-request")
    assert document["request_id"] == unparsed.head.get("X-Request-Id")
    assert document["request_id"]


@pytest.mark.parametrize(("theirs", "told"), [("salesloft-7", "salesloft-7"), ("a b", None)])
async def test_an_id_of_salesloft_is_passed_on_and_the_log_has_both(theirs: str, told: str | None) -> None:
    lines = io.StringIO()
    async with ScriptedUpstream(replies(reply("200 OK", b"{}", f"X-Request-Id: {theirs}"))) as upstream:
        journal = AccessLog(lines, pretty=False, colour=False)
        async with proxy(settings_for(upstream.url), listeners=[journal]) as app:
            response = await asked(app.urls[0], get("/v2/a", "X-Request-Id: mine-1"))
            await until(lambda: bool(lines.getvalue()))
    assert response.head.all("X-Request-Id") == [theirs]
    logged = json.loads(lines.getvalue())
    assert (logged["id"], logged.get("upstream_id")) == ("mine-1", told)


async def test_what_is_logged_about_a_request_has_its_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with ScriptedUpstream(replies(reply("503 Service Unavailable"), reply())) as upstream:
        settings = settings_for(upstream.url)
        async with proxy(settings, clock=FakeTime().clock()) as app:
            await asked(app.urls[0], get("/v2/a", "X-Request-Id: mine-1"))
    assert [record.__dict__["request_id"] for record in caplog.records if "retrying" in record.message] == ["mine-1"]
