"""Connections of clients: which are kept, and behind which request nothing is read any more."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from slproxy.server.aiohttp_private import REST_TIMEOUT
from tests.support.pair import asked, chunked, opened, pair, problem
from tests.support.raw_http import Message, get, read_message, reply
from tests.support.scripted import replies
from tests.support.waiting import SOON, until


async def test_a_client_of_http_10_is_served_and_its_connection_closed() -> None:
    answer = reply("200 OK", chunked(b"abc"), "Transfer-Encoding: chunked", length=False)
    async with pair(replies(answer)) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(b"GET /v2/a HTTP/1.0\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(SOON):
            got = await reader.read()
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"200"
    assert b"transfer-encoding" not in head.lower()
    assert body == b"abc"
    assert upstream.seen[0].head.first == "GET /v2/a HTTP/1.1"


async def test_one_connection_serves_many_requests_and_one_upstream_connection_is_enough() -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            for number in range(5):
                writer.write(get(f"/v2/{number}", method="POST", body=b"x" * number * 30_000))
                assert (await read_message(reader)).head.status == 200
                writer.write(get("/nothing"))
                assert (await read_message(reader)).head.status == 404
    assert upstream.connections == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02 if message.head.target == "/v2/0" else 0)
        writer.write(reply(body=message.head.target.encode()))

    async with pair(script) as (_, app):
        reader, writer = await opened(app)
        writer.write(b"".join(get(f"/v2/{number}") for number in range(5)))
        async with asyncio.timeout(SOON):
            bodies = [(await read_message(reader)).body for _ in range(5)]
    assert bodies == [f"/v2/{number}".encode() for number in range(5)]


@pytest.mark.parametrize(
    "rest",
    [b"", b"no chunk\r\n\r\n", b"0\r\n" + b"X: 1\r\n" * 20_000],
    ids=["ends", "breaks off", "has too many trailers"],
)
@pytest.mark.parametrize("before", [b"", get("/v2/a")], ids=["alone", "behind another"])
async def test_a_refused_upload_that_breaks_off_holds_its_connection_no_longer(rest: bytes, before: bytes) -> None:
    async with pair() as (_, app):
        reader, writer = await opened(app)
        writer.write(before + get("/nothing", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        async with asyncio.timeout(REST_TIMEOUT / 2):
            if before:
                assert (await read_message(reader)).head.status == 200
            assert (await read_message(reader)).head.status == 404
            if rest:
                writer.write(rest)
            else:
                writer.write_eof()
            assert await reader.read() == b""


async def test_connection_close_of_the_client_is_honoured_and_not_passed_on() -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a", "Connection: close"))
        async with asyncio.timeout(SOON):
            assert (await read_message(reader)).head.get("Connection") == "close"
            assert await reader.read() == b""
    assert upstream.seen[0].head.get("Connection") is None


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param(b"", b"GET /v2/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a request"),
        pytest.param(
            b"POST /v2/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 51\r\n\r\n",
            b"DELETE /v2/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
            id="the head of a request, and its body in another packet",
        ),
    ],
)
@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.2"])
async def test_behind_a_request_for_an_upgrade_nothing_is_read_and_the_connection_ends(
    upgrade: str, first: bytes, rest: bytes
) -> None:
    request = get("/v2/a", "Connection: Upgrade", f"Upgrade: {upgrade}")
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(request + first)
        await until(lambda: len(upstream.seen) == 1)
        with suppress(ConnectionError):
            writer.write(rest)
        async with asyncio.timeout(SOON):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert [message.head.target for message in upstream.seen] == ["/v2/a"]
        assert await asked(app.urls[0], get("/v2/after"))


@pytest.mark.parametrize(
    "head",
    [
        "CONNECT localhost:443 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "TRACE /v2/a HTTP/1.1",
        "GET v2/a HTTP/1.1",
        "GET /v2/../a HTTP/1.1",
        "GET http://evil.test/v2/a HTTP/1.1",
        "GET /v2/a HTTP/2.0",
        "GET /v2/a HTTP/0.9",
        "GET /v2/a RTSP/1.0",
        "\r\nGET /v2/a RTSP/1.0",
    ],
)
async def test_behind_a_request_that_was_not_understood_nothing_is_read_and_the_connection_ends(head: str) -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(f"{head}\r\nHost: localhost\r\n\r\n".encode() + get("/v2/smuggled"))
        async with asyncio.timeout(SOON):
            answer = await reader.read()
        assert re.match(rb"HTTP/1\.1 (?:4|5)\d\d ", answer)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert upstream.seen == []


@pytest.mark.parametrize(
    "lines",
    [
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: identity, chunked"],
        ["Transfer-Encoding: ,chunked"],
        ["Transfer-Encoding:", "Content-Length: 5"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ],
    ids=repr,
)
async def test_a_transfer_coding_that_is_not_chunked_alone_is_refused(lines: list[str]) -> None:
    async with pair() as (upstream, app):
        request = get("/v2/a", *lines, method="POST") + b"0\r\n\r\n"
        problem(await asked(app.urls[0], request), status=400, kind="bad-request")
        assert upstream.seen == []


async def test_an_empty_transfer_coding_is_refused_without_a_body_too() -> None:
    async with pair() as (upstream, app):
        problem(await asked(app.urls[0], get("/v2/a", "Transfer-Encoding:")), status=400, kind="bad-request")
        assert upstream.seen == []


async def test_chunks_in_http_1_0_are_refused() -> None:
    async with pair() as (upstream, app):
        request = b"POST /v2/a HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        problem(await asked(app.urls[0], request), status=400, kind="bad-request")
        assert upstream.seen == []


@pytest.mark.parametrize("before", ["", "\r\n", "\r\n\r\n"])
async def test_rtsp_is_refused_whatever_line_ends_come_before_it(before: str) -> None:
    async with pair() as (upstream, app):
        request = f"{before}GET /v2/a RTSP/1.0\r\nHost: localhost\r\n\r\n".encode()
        problem(await asked(app.urls[0], request), status=400, kind="bad-request")
        assert upstream.seen == []


@pytest.mark.parametrize("between", [b"", b"\r\n", b"\n", b"\r", b"\r\n\n"])
@pytest.mark.parametrize(
    "first",
    [
        get("/v2/a"),
        get("/v2/a", method="POST", body=b"{}"),
        get("/v2/a", method="POST", body=b"\r\n\r\n"),
        get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["nothing", "a body", "a body of line ends", "chunks"],
)
async def test_rtsp_is_refused_behind_another_request_in_the_same_piece(first: bytes, between: bytes) -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(first + between + b"GET /v2/b RTSP/1.0\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(SOON):
            await reader.read()
        assert "/v2/b" not in [message.head.target for message in upstream.seen]


@pytest.mark.parametrize("body", [b"DESCRIBE rtsp://a RTSP/1.0\n", b"\r\n\r\nGET /v2/b RTSP/1.0\r\n\r\n"])
async def test_a_body_that_speaks_of_rtsp_is_one_before_another_request_too(body: bytes) -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a", method="POST", body=body) + get("/v2/b", method="POST", body=body))
        for _ in range(2):
            assert (await read_message(reader)).head.status == 200
        assert [message.body for message in upstream.seen] == [body, body]


async def test_a_body_that_speaks_of_rtsp_is_a_body() -> None:
    body = b"DESCRIBE rtsp://a RTSP/1.0\n"
    async with pair() as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", method="POST", body=body))).head.status == 200
        assert upstream.seen[0].body == body


@pytest.mark.parametrize("trailer", ["X-Sum: 1", "Connection: X-A", "Authorization: Bearer evil"])
async def test_a_trailer_is_never_a_header_of_the_next_request(trailer: str) -> None:
    """aiohttp keeps the last trailer for the next head, so the connection ends with the request that had some."""
    request = (
        get("/v2/a", "Transfer-Encoding: chunked", method="POST") + f"2\r\n{{}}\r\n0\r\n{trailer}\r\n\r\n".encode()
    )
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(request)
        first = await read_message(reader)
        assert first.head.status == 200
        assert first.head.get("Connection") == "close"
        with suppress(ConnectionError):
            writer.write(get("/v2/b", "X-A: 1"))
        async with asyncio.timeout(SOON):
            assert await reader.read() == b""
        assert [message.head.target for message in upstream.seen] == ["/v2/a"]
        assert upstream.seen[0].head.get("X-Sum") is None


async def test_a_trailer_that_comes_with_the_next_request_is_never_its_header() -> None:
    head = get("/v2/a", "Transfer-Encoding: chunked", method="POST")
    async with pair() as (upstream, app):
        _, writer = await opened(app)
        writer.write(head + b"3\r\nabc\r\n")
        await until(lambda: app.app.server is not None and app.app.server.in_flight == 1)
        with suppress(ConnectionError):
            writer.write(b"0\r\nX-Evil: 1\r\n\r\n" + head.replace(b"/v2/a", b"/v2/c") + b"3\r\n")
            await until(lambda: len(upstream.seen) == 1)
            writer.write(b"abc\r\n0\r\n\r\n")
        assert (await asked(app.urls[0], get("/v2/after"))).head.status == 200
        assert [message.head.target for message in upstream.seen] == ["/v2/a", "/v2/after"]
        assert all(message.head.get("X-Evil") is None for message in upstream.seen)


async def test_chunks_without_trailers_leave_the_connection_open() -> None:
    request = get("/v2/a", "Transfer-Encoding: chunked", method="POST")
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        for pieces in ([b"2\r\n{}\r\n0\r\n\r\n"], [b"2\r\n{}\r", b"\n0\r\n", b"\r\n"], [b"0\r\n\r\n"]):
            writer.write(request)
            for piece in pieces:
                await asyncio.sleep(0)
                writer.write(piece)
            answer = await read_message(reader)
            assert answer.head.status == 200
            assert answer.head.get("Connection") is None
        assert [message.body for message in upstream.seen] == [b"{}", b"{}", b""]


async def test_a_length_beyond_63_bits_is_refused() -> None:
    async with pair() as (upstream, app):
        request = get("/v2/a", "Content-Length: 18446744073709551610", method="POST")
        problem(await asked(app.urls[0], request), status=400, kind="bad-request")
        assert upstream.seen == []
