"""Upstreams that misbehave: what is an answer, and what is a fault."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.support.pair import asked, opened, pair, problem
from tests.support.raw_http import Message, get, read_message, reply
from tests.support.scripted import replies
from tests.support.waiting import PATIENCE, SOON, until


async def test_a_reply_that_nobody_asked_for_is_never_given_to_the_next_request() -> None:
    poisoned = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=message.head.target.encode()))
        if message.head.target == "/v2/first":
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(reply("200 OK", b"poison"))
            await writer.drain()
            await asyncio.sleep(0.05)
            poisoned.set()

    async with pair(script) as (_, app):
        assert (await asked(app.urls[0], get("/v2/first"))).body == b"/v2/first"
        async with asyncio.timeout(SOON):
            await poisoned.wait()
        for target in ("/v2/second", "/v2/third"):
            assert (await asked(app.urls[0], get(target, method="POST", body=b"x"))).body == target.encode()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", reply("200 OK", b"poison")),
        ("HEAD", reply("200 OK", b"", "Content-Length: 83", length=False) + reply("200 OK", b"poison")),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n" + reply("200 OK", b"poison")),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n" + reply("200 OK", b"poison")),
        ("GET", reply("200 OK", b"{}") + reply("200 OK", b"poison")),
        ("GET", reply("200 OK", b"{}") + b"junk"),
    ],
)
async def test_what_follows_a_whole_reply_is_never_given_to_the_next_request(method: str, answer: bytes) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer if message.head.target == "/v2/first" else reply(body=b"mine"))

    async with pair(script) as (_, app):
        for _ in range(3):
            first = await asked(app.urls[0], get("/v2/first", method=method), method=method)
            assert first.head.status in (200, 204, 304, 502)
            assert b"poison" not in first.body
            assert (await asked(app.urls[0], get("/v2/next", method="POST", body=b"x"))).body == b"mine"


async def test_a_head_that_dribbles_in_is_no_answer_in_time() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with pair(script, response_timeout=0.3) as (_, app):
        problem(await asked(app.urls[0], get("/v2/a", method="POST")), status=504, kind="upstream-timeout")


async def test_a_client_that_pauses_an_upload_is_not_the_upstreams_silence() -> None:
    async with pair(response_timeout=0.2) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/first"))
        async with asyncio.timeout(SOON):
            assert (await read_message(reader)).head.status == 200
            writer.write(get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
            await asyncio.sleep(0.5)
            writer.write(b"3\r\ndef\r\n0\r\n\r\n")
            assert (await read_message(reader)).head.status == 200
    assert upstream.seen[-1].body == b"abcdef"


async def test_an_upstream_that_does_not_take_the_body_is_504() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with pair(script, whole=False, response_timeout=0.3) as (_, app):
        request = get("/v2/a", method="POST", body=b"x" * 20_000_000)
        problem(await asked(app.urls[0], request), status=504, kind="upstream-timeout")


async def test_a_body_that_stalls_is_aborted_after_the_idle_timeout() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        await reader.read()
        raise ConnectionResetError

    async with pair(script, idle_timeout=0.2) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        got = b""
        async with asyncio.timeout(SOON):
            with suppress(ConnectionError):
                while piece := await reader.read(4096):
                    got += piece
        assert not got.endswith(b"0\r\n\r\n")
        await until(lambda: upstream.closed == 1, timeout=SOON)


async def test_a_client_that_pauses_a_download_is_not_the_upstreams_silence() -> None:
    body = b"x" * 16_000_000
    async with pair(replies(reply(body=body)), idle_timeout=0.2) as (_, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        await asyncio.sleep(0.8)
        async with asyncio.timeout(PATIENCE):
            assert len((await read_message(reader)).body) == len(body)
