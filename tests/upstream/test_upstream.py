"""One use of a connection: what goes back to the pool, what is cut, and what a body that breaks looks like."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import time
from dataclasses import replace

import pytest

from slproxy.config import RetrySettings
from slproxy.upstream.connection import Connection
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import SOON, until


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset, as a host that died does."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_a_request_never_becomes_the_rest_of_another_ones_body() -> None:
    """A 413 in the middle of an upload keeps its connection alive; the body of the upload was never finished."""
    heads: list[str] = []
    stray: list[bytes] = []
    finish = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(message.head.first)
        if message.head.method != "POST":
            writer.write(reply())
            return
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nn")
        await finish.wait()
        writer.write(b"o")
        while data := await reader.read(65536):
            stray.append(data)

    async with ScriptedUpstream(script, whole=False) as upstream, proxy(settings_for(upstream.url)) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
        writer.write(get("/v2/up", "Content-Length: 1000000", method="POST") + b"a" * 100_000)
        async with asyncio.timeout(SOON):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"b" * 100_000)
            # What is written after the head shows the proxy that the rest is not wanted, before the reply ends.
            await asyncio.sleep(0.1)
            finish.set()
            body = await reader.readexactly(2)
            second = await raw(app.urls[0], get("/v2/second"))
        writer.close()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == b"no"
    assert second.head.status == 200
    assert heads == ["POST /v2/up HTTP/1.1", "GET /v2/second HTTP/1.1"]
    assert b"Bearer" not in b"".join(stray)


async def test_a_body_until_close_that_ends_in_a_reset_never_looks_whole() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npartial-")
        await writer.drain()
        await go_on.wait()
        reset(writer)
        raise ConnectionResetError

    async with ScriptedUpstream(script) as upstream, proxy(settings_for(upstream.url)) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
        writer.write(get("/v2/a"))
        async with asyncio.timeout(SOON):
            await reader.readuntil(b"partial-\r\n")
            go_on.set()
            with pytest.raises(ConnectionError):
                await reader.read()
        writer.close()


async def test_a_body_until_close_that_ends_with_the_connection_is_whole() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        raise ConnectionResetError  # ends the script, and with it the connection, by an ordinary close

    async with ScriptedUpstream(script) as upstream, proxy(settings_for(upstream.url)) as app:
        answer = await raw(app.urls[0], get("/v2/a"))
    assert answer.body == b"all of it"


async def test_a_timer_of_the_last_reply_does_not_end_the_next_request_on_its_connection() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/large":
            writer.write(reply("200 OK", b"x" * 200_000))
        else:
            await asyncio.sleep(0.6)
            writer.write(reply())

    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(
            settings, upstream=replace(settings.upstream, idle_timeout=0.3), retry=RetrySettings(attempts=1)
        )
        async with proxy(settings) as app:
            await raw(app.urls[0], get("/v2/large"))
            answer = await raw(app.urls[0], get("/v2/slow", method="POST", body=b"1"))
    assert answer.head.status == 200
    assert upstream.connections == 1


async def test_a_header_of_the_budget_that_is_no_number_is_passed_on_and_not_learned() -> None:
    odd = "x-ratelimit-remaining-minute: " + "9" * 5000
    async with ScriptedUpstream(replies(reply("200 OK", b"{}", odd))) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, upstream=replace(settings.upstream, max_connections=1))
        async with proxy(settings) as app:
            answers = [await raw(app.urls[0], get("/v2/a"), timeout=SOON) for _ in range(3)]
            assert app.pacer.budget.account.remaining(time.monotonic()) == 597, "foreseen, not told"
    assert [answer.head.status for answer in answers] == [200, 200, 200]
    assert answers[0].head.get("x-ratelimit-remaining-minute") == "9" * 5000


async def test_what_a_closed_connection_carried_is_freed_with_it() -> None:
    def connections() -> int:
        gc.collect()
        return sum(isinstance(each, Connection) for each in gc.get_objects())

    async def breaks_off(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await reader.read()  # until the client, who has the head, leaves

    async with ScriptedUpstream(breaks_off) as upstream, proxy(settings_for(upstream.url)) as app:
        before = connections()
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
            writer.write(get("/v2/a"))
            async with asyncio.timeout(SOON):
                await reader.readuntil(b"abc")
            writer.close()
        await until(lambda: connections() <= before + 1, timeout=SOON)
