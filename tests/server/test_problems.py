"""Problems: the proxy's own errors, and what is not in them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from slproxy.config import LimitSettings, Settings
from slproxy.config.schema import UpstreamSettings
from tests.support.clock import FakeTime
from tests.support.pair import asked, opened, pair, problem
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, abort, get, read_message, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import SLACK, SOON


async def test_a_refused_connection_is_502() -> None:
    async with ScriptedUpstream() as upstream:
        url = upstream.url
    async with proxy(settings_for(url), clock=FakeTime().clock()) as app:
        response = await asked(app.urls[0], get("/v2/a"))
        problem(response, status=502, kind="upstream-unreachable")
        assert response.head.get("Proxy-Status") == "slproxy; error=connection_refused"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_reset_with_no_reply_is_502(end: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close() if end == "close" else abort(writer)

    async with pair(script) as (upstream, app):
        response = await asked(app.urls[0], get("/v2/a", method="POST", body=b"{}"))
        problem(response, status=502, kind="upstream-unreachable")
        assert response.head.get("Proxy-Status") == "slproxy; error=connection_terminated"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nX-Half: "], ids=["nothing", "half a head"])
async def test_no_response_headers_in_time_is_504(sent: bytes) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await reader.read()

    async with pair(script, response_timeout=0.2) as (upstream, app):
        started = time.monotonic()
        response = await asked(app.urls[0], get("/v2/a", method="POST", body=b"{}"))
        problem(response, status=504, kind="upstream-timeout")
        assert response.head.get("Proxy-Status") == "slproxy; error=http_response_timeout"
        assert 0.15 < time.monotonic() - started < SLACK
    assert len(upstream.seen) == 1


async def test_a_head_request_gets_the_head_of_a_problem_alone() -> None:
    async with pair() as (_, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            writer.write(get("/nothing", method="HEAD"))
            response = await read_message(reader, has_body=False)
            assert response.head.status == 404
            assert response.head.get("Proxy-Status")
            writer.write(get("/v2/a"))
            assert (await read_message(reader)).head.status == 200


async def test_a_reply_of_the_upstream_has_no_proxy_status() -> None:
    async with pair(replies(reply("404 Not Found", b'{"error":"Not Found"}'))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a"))
    assert response.head.all("Proxy-Status") == []
    assert response.body == b'{"error":"Not Found"}'


async def test_the_hosts_name_never_appears_in_a_problem_of_another_library() -> None:
    settings = settings_for("http://127.0.0.1:9")
    settings = replace(
        settings, upstream=replace(UpstreamSettings(), api_url="http://localhost:9", accounts_url="http://localhost:9")
    )
    async with proxy(settings, clock=FakeTime().clock()) as app:
        response = await asked(app.urls[0], get("/v2/a?secret-query=1"))
        document = problem(response, status=502, kind="upstream-unreachable")
    assert "secret-query" not in json.dumps(document)
    assert "Connect call failed" not in json.dumps(document)


def test_settings_stand_as_the_contract_lists_them() -> None:
    shape = Settings.__dataclass_fields__
    assert shape["limits"].default == LimitSettings()
    assert (LimitSettings().max_target, LimitSettings().max_headers) == (32 * 1024, 64 * 1024)
    assert (LimitSettings().replay_memory, LimitSettings().replay_disk) == (2**20, 64 * 2**20)
