"""Streaming: no faster than the other side takes it, cut off where it breaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.support.loops import LOOPS, in_loop
from tests.support.pair import asked, opened, pair
from tests.support.raw_http import Message, abort, get, read_message, reply
from tests.support.waiting import SOON, until


async def test_a_chunk_reaches_the_client_before_the_next_one_is_sent() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await go_on.wait()
        go_on.clear()
        writer.write(b"1\r\na\r\n")
        await go_on.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async with pair(script) as (_, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        async with asyncio.timeout(SOON):
            head = await reader.readuntil(b"\r\n\r\n")
            go_on.set()
            assert await reader.readuntil(b"a\r\n") == b"1\r\na\r\n"
            go_on.set()
            assert await reader.readuntil(b"0\r\n\r\n") == b"1\r\nb\r\n0\r\n\r\n"
    assert b"chunked" in head


async def test_a_piece_of_an_upload_reaches_the_upstream_before_the_next_one_is_sent() -> None:
    arrived = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"first" in await reader.readuntil(b"first\r\n")
        arrived.set()
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(reply())

    async with pair(script, whole=False) as (_, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"5\r\nfirst\r\n")
        async with asyncio.timeout(SOON):
            await arrived.wait()
            writer.write(b"4\r\nlast\r\n0\r\n\r\n")
            assert (await read_message(reader)).head.status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
    ],
    ids=["length", "between chunks", "inside a chunk"],
)
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_reply_that_breaks_off_is_aborted_and_not_sent_for_again(answer: bytes, end: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/ok":
            writer.write(reply())
            return
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close() if end == "close" else abort(writer)

    async with pair(script) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        got = b""
        ended = ""
        try:
            async with asyncio.timeout(SOON):
                while piece := await reader.read(4096):
                    got += piece
                ended = "closed"
        except ConnectionResetError:
            ended = "reset"
        assert not got.endswith(b"0\r\n\r\n")
        # A close is fine where a length is short of its promise; either way the client cannot take it for whole.
        assert ended == "reset" or b"Content-Length: 100" in got or b"chunked" in got
        assert (await asked(app.urls[0], get("/v2/ok"))).head.status == 200
    assert len([message for message in upstream.seen if message.head.target == "/v2/a"]) == 1


async def test_a_chunk_that_does_not_parse_aborts_the_reply() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await go_on.wait()
        writer.write(b"zz\r\n")
        await writer.drain()
        writer.close()

    async with pair(script) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        got = b""
        async with asyncio.timeout(SOON):
            await reader.readuntil(b"abc\r\n")
            go_on.set()
            with suppress(ConnectionError):
                got = await reader.read()
        assert got == b""
    assert len(upstream.seen) == 1


async def test_a_client_that_leaves_a_download_ends_it_upstream() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\na\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with pair(script) as (upstream, app):
        _, writer = await opened(app)
        writer.write(get("/v2/a"))
        await until(lambda: len(upstream.seen) == 1)
        await asyncio.sleep(0.05)
        abort(writer)
        await until(lambda: upstream.closed == 1, timeout=SOON)
        assert app.app.own_pages.state()["requests"]["in_flight"] == 0  # type: ignore[index]


async def test_a_client_that_leaves_while_it_waits_ends_the_request_upstream() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        raise ConnectionResetError

    async with pair(script) as (upstream, app):
        _, writer = await opened(app)
        writer.write(get("/v2/a"))
        await until(lambda: len(upstream.seen) == 1)
        writer.close()
        await until(lambda: upstream.closed == 1, timeout=SOON)


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 500000"])
async def test_a_client_that_leaves_an_upload_ends_it_upstream_unfinished(framing: str) -> None:
    got = bytearray()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            got.extend(piece)
        raise ConnectionResetError

    async with pair(script, whole=False) as (upstream, app):
        _, writer = await opened(app)
        body = b"186a0\r\n" + b"x" * 100_000 if "chunked" in framing else b"x" * 100_000
        writer.write(get("/v2/a", framing, method="POST") + body)
        await until(lambda: len(got) > 50_000)
        abort(writer)
        await until(lambda: upstream.closed == 1, timeout=SOON)
    assert len(upstream.seen) == 1
    assert not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["chunks", "length"])
@pytest.mark.parametrize("status", ["413 Payload Too Large", "401 Unauthorized", "200 OK"])
async def test_an_early_answer_reaches_a_client_that_is_still_sending(status: str, framing: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(status, b"enough", "Connection: close"))
        await writer.drain()
        writer.close()

    async with pair(script, whole=False) as (upstream, app):
        reader, writer = await opened(app)
        if framing == "chunks":
            writer.write(get("/v2/a", "Transfer-Encoding: chunked", method="POST"))
            piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        else:
            writer.write(get("/v2/a", "Content-Length: 100000000", method="POST"))
            piece = b"x" * 0x4000

        async def upload() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(piece)
                    await writer.drain()

        sending = asyncio.create_task(upload())
        async with asyncio.timeout(SOON):
            response = await read_message(reader)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert response.head.first == f"HTTP/1.1 {status}"
    assert response.body == b"enough"
    assert len(upstream.seen) == 1


EARLY = {
    "413": reply("413 Content Too Large", b"enough"),
    "413 that closes": reply("413 Content Too Large", b"enough", "Connection: close"),
    "401": reply("401 Unauthorized", b"enough"),
    "200": reply("200 OK", b"enough"),
    "what is no reply": b"enough\r\n\r\n",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("early", EARLY)
def test_a_client_that_pauses_its_upload_keeps_its_connection_over_an_early_answer(early: str, loop: str) -> None:
    """The upload that waits for the client gives way to who reads the rest of the body, and not the other way round."""

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.method == "GET":
            writer.write(reply("200 OK", b"next"))
            return
        await reader.readexactly(1000)
        writer.write(EARLY[early])
        await reader.read()

    async def upload() -> None:
        async with pair(script, whole=False) as (upstream, app):
            reader, writer = await opened(app)
            writer.write(get("/v2/a", "Content-Length: 100000", method="POST") + b"x" * 1000)
            async with asyncio.timeout(SOON):
                answer = await read_message(reader)
                writer.write(b"x" * 99_000 + get("/v2/next"))
                following = await read_message(reader)
        assert answer.head.status == (502 if early == "what is no reply" else int(early[:3]))
        assert following.body == b"next"
        assert len(upstream.seen) == 2

    in_loop(loop, upload())
