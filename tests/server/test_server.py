"""The listening side: what clients that leave, and a proxy that goes down, do to others."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import socket
import struct

import pytest

from slproxy.app import App
from slproxy.observe import AccessLog
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, read_message, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import SOON, until


async def test_clients_that_leave_in_the_middle_of_a_download_are_no_defects(caplog: pytest.LogCaptureFixture) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", b"", "Transfer-Encoding: chunked", length=False))
        for _ in range(400):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    lines = io.StringIO()
    async with ScriptedUpstream(script) as upstream:
        journal = AccessLog(lines, pretty=False, colour=False)
        async with App(settings_for(upstream.url), listeners=[journal]) as app:
            await app.listen()
            for number in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
                writer.write(get("/v2/a"))
                await reader.read(1000 + number * 3000)
                peer = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            assert app.server is not None
            await until(lambda: app.server is not None and app.server.in_flight == 0)
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(line["method"], line["status"], line["ended"]) for line in logged] == [("GET", 200, "client left")] * 20
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_upload_that_is_under_way_when_the_proxy_goes_down_is_finished() -> None:
    async with ScriptedUpstream() as upstream, proxy(settings_for(upstream.url)) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
        writer.write(get("/v2/up", "Content-Length: 200000", method="POST") + b"a" * 100_000)
        await until(lambda: app.server is not None and app.server.in_flight == 1)
        going_down = asyncio.create_task(app.drain(at_once=asyncio.Event()))
        await until(lambda: app.is_draining)
        await asyncio.sleep(0)
        writer.write(b"b" * 100_000)
        async with asyncio.timeout(SOON):
            answer = await read_message(reader)
            await going_down
        writer.close()
    assert answer.head.status == 200
    assert answer.head.get("Connection") == "close"
    assert len(upstream.seen[0].body) == 200_000


async def test_an_idle_connection_is_closed_at_once_when_the_proxy_goes_down() -> None:
    async with ScriptedUpstream() as upstream, proxy(settings_for(upstream.url)) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
        writer.write(get("/v2/a"))
        await read_message(reader)
        await app.drain(at_once=asyncio.Event())
        async with asyncio.timeout(SOON):
            assert await reader.read() == b""
        writer.close()
