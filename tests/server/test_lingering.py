"""Lingering close: a client that is still sending gets the last answer whole, and no reset before it.

TCP resets a connection that is closed while bytes lie unread in it, and the client may lose what it has not read yet
(RFC 9112 §9.6).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from slproxy.app import App
from slproxy.config import LimitSettings
from slproxy.server.lingering import LINGER_BYTES, LINGER_SILENCE, LINGER_TIME
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import PATIENCE, SLACK, SOON, until

SHORT = 0.2


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[socket.socket]:
    """Connect a socket that is read from only when asked: asyncio's streams read at once."""
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port_of(url)))
        yield sock


async def has_come(sock: socket.socket) -> None:
    """Wait until an answer lies in the socket, unread."""

    def came() -> bool:
        try:
            return bool(sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    await until(came, timeout=SOON)


async def read_to_end(sock: socket.socket) -> bytes:
    """Read what still comes; a reset is an error."""
    got = b""
    async with asyncio.timeout(SOON):
        while piece := await asyncio.get_running_loop().sock_recv(sock, 65536):
            got += piece
    return got


async def answer_while_sending(sock: socket.socket, request: bytes, more: bytes) -> bytes:
    """Send a request, go on to send for a while after its answer has come, and read only then."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, request)
    await has_come(sock)
    for _ in range(10):
        await loop.sock_sendall(sock, more)
        await asyncio.sleep(0.005)
    return await read_to_end(sock)


NEXT = get("/v2/next")
LATER = {
    "an upgrade": (get("/v2/a", "Connection: Upgrade", "Upgrade: websocket"), NEXT, 200),
    "a request to close": (get("/v2/a", "Connection: close"), NEXT, 200),
    "HTTP/1.0": (get("/v2/a").replace(b"HTTP/1.1", b"HTTP/1.0"), NEXT, 200),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"\x16\x03\x01" * 100, 400),
    "another version": (get("/v2/a").replace(b"HTTP/1.1", b"HTTP/2.0"), NEXT, 400),
    "a target that is refused": (get("/v2/../a"), NEXT, 400),
    "another host": (get("/v2/a", host="evil.test"), NEXT, 421),
    "an unknown method": (get("/v2/a", method="BREW"), NEXT, 501),
    "a header block over the limit": (get("/v2/a", "X-Big: " + "x" * 70_000), b"X-More: y\r\n" * 100, 431),
    "a refused upload": (get("/v2/../a", "Content-Length: 1000000", method="POST"), b"x" * 10_000, 400),
    "a refused upload in chunks": (
        get("/v2/../a", "Transfer-Encoding: chunked", method="POST"),
        b"2710\r\n" + b"x" * 10_000 + b"\r\n",
        400,
    ),
    "a coding that is refused": (
        get("/v2/a", "Transfer-Encoding: gzip, chunked", method="POST"),
        b"2710\r\n" + b"x" * 10_000 + b"\r\n",
        400,
    ),
    "a chunk that does not parse": (
        get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n",
        b"x" * 10_000,
        400,
    ),
    "trailers": (get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"0\r\nX-A: 1\r\n\r\n", NEXT, 200),
}


@pytest.mark.parametrize("what", LATER)
async def test_a_client_that_sends_on_after_the_last_answer_gets_it_whole(what: str) -> None:
    request, more, status = LATER[what]
    async with ScriptedUpstream() as upstream, proxy(settings_for(upstream.url)) as app:
        async with connected(app.urls[0]) as sock:
            answer = await answer_while_sending(sock, request, more)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert answer.count(b"HTTP/1.1 ") == 1
        assert {message.head.target for message in upstream.seen} <= {"/v2/a"}


async def test_a_client_that_sends_on_after_it_was_too_slow_gets_its_408_whole() -> None:
    async with proxied(LimitSettings(header_timeout=SHORT)) as app, connected(app.urls[0]) as sock:
        answer = await answer_while_sending(sock, b"GET /v2/a HTTP/1.1\r\n", b"X-Slow: loris\r\n")
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("request_bytes", [get("/v2/a"), b"GET /v2/a HT"], ids=["asking", "slow"])
async def test_a_client_past_the_limit_of_connections_that_sends_on_gets_its_503_whole(request_bytes: bytes) -> None:
    async with full_proxy() as app, connected(app.urls[0]) as sock:
        answer = await answer_while_sending(sock, request_bytes, b"x" * 1000)
        assert answer.startswith(b"HTTP/1.1 503 ")


async def test_a_client_that_sends_on_while_the_proxy_goes_down_gets_its_answer_whole() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    async with (
        ScriptedUpstream(script) as upstream,
        proxy(settings_for(upstream.url)) as app,
        connected(app.urls[0]) as sock,
    ):
        await asyncio.get_running_loop().sock_sendall(sock, get("/v2/a"))
        await until(lambda: len(upstream.seen) == 1)
        going_down = asyncio.create_task(app.drain(at_once=asyncio.Event()))
        await until(lambda: app.is_draining)
        go_on.set()
        assert (await answer_while_sending(sock, NEXT, NEXT)).startswith(b"HTTP/1.1 200 ")
        await going_down


@asynccontextmanager
async def full_proxy() -> AsyncIterator[App]:
    """Run a proxy whose one connection is in use."""
    async with ScriptedUpstream(replies(b"")) as upstream:
        settings = replace(settings_for(upstream.url), limits=LimitSettings(max_connections=1))
        async with proxy(settings) as app, connected(app.urls[0]) as held:
            await asyncio.get_running_loop().sock_sendall(held, get("/v2/held"))
            await until(lambda: len(upstream.seen) == 1)
            yield app


@asynccontextmanager
async def proxied(limits: LimitSettings | None = None) -> AsyncIterator[App]:
    async with ScriptedUpstream() as upstream:
        settings = replace(settings_for(upstream.url), limits=limits or LimitSettings())
        async with proxy(settings) as app:
            yield app


async def sent_until_cut_off(sock: socket.socket, piece: bytes, *, every: float = 0.0) -> int:
    """Send until the other side has had enough; return how much went out."""
    sent = 0
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                await asyncio.get_running_loop().sock_sendall(sock, piece)
                sent += len(piece)
                await asyncio.sleep(every)
        except ConnectionError:
            return sent


def connections(app: App) -> int:
    assert app.server is not None
    return len(app.server.connections)


REFUSED = get("/v2/../a")


async def test_a_client_that_has_its_last_answer_and_stays_is_closed_soon() -> None:
    async with proxied() as app, connected(app.urls[0]) as sock:
        assert (await answer_while_sending(sock, REFUSED, b"")).startswith(b"HTTP/1.1 400 ")
        answered = time.monotonic()
        await until(lambda: connections(app) == 0, timeout=LINGER_SILENCE + SLACK)
        assert time.monotonic() - answered > LINGER_SILENCE / 2, "the end of the answer does not wait for that"


async def test_a_client_that_sends_without_end_after_its_last_answer_is_cut_off() -> None:
    async with proxied() as app, connected(app.urls[0]) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, REFUSED)
        await has_come(sock)
        sent = await sent_until_cut_off(sock, b"x" * 2**20)
        assert LINGER_BYTES - 2**20 < sent < LINGER_BYTES + 32 * 2**20
        await until(lambda: connections(app) == 0)


async def test_a_client_that_dribbles_after_its_last_answer_is_cut_off_in_time() -> None:
    async with full_proxy() as app, connected(app.urls[0]) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, get("/v2/a"))
        await has_come(sock)
        began = time.monotonic()
        await sent_until_cut_off(sock, b"x", every=0.02)
        assert time.monotonic() - began < LINGER_TIME


async def test_a_client_that_leaves_after_its_last_answer_takes_its_connection_along_at_once() -> None:
    async with proxied() as app:
        async with connected(app.urls[0]) as sock:
            assert (await answer_while_sending(sock, REFUSED, b"")).startswith(b"HTTP/1.1 400 ")
        await until(lambda: connections(app) == 0, timeout=0.9 * LINGER_SILENCE)


async def test_a_connection_that_lingers_makes_room_for_a_newcomer() -> None:
    async with proxied(LimitSettings(max_connections=1)) as app, connected(app.urls[0]) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, REFUSED)
        await has_come(sock)
        assert (await raw(app.urls[0], get("/v2/a"))).head.status == 200
        assert (await read_to_end(sock)).startswith(b"HTTP/1.1 400 ")


async def test_connections_that_linger_do_not_hold_up_the_way_down() -> None:
    async with proxied() as app, connected(app.urls[0]) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, REFUSED)
        await has_come(sock)
        began = time.monotonic()
        await app.drain(at_once=asyncio.Event())
        await app.__aexit__(None, None, None)
        assert time.monotonic() - began < 0.9 * LINGER_SILENCE
        assert (await read_to_end(sock)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("rest", [b"\r\nzz\r\n", b"\r\n0\r\n\n\r"], ids=["a chunk", "a trailer"])
@pytest.mark.parametrize("half", [False, True], ids=["goes on", "ends its half"])
async def test_a_body_that_does_not_parse_right_behind_a_chunk_is_refused_at_once(rest: bytes, half: bool) -> None:
    """aiohttp's reader, woken by the end of the chunk, waited again in place of looking at the error."""
    has_come = asyncio.Event()

    async def script(_: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"ab")
        has_come.set()
        await reader.read()

    loop = asyncio.get_running_loop()
    async with (
        ScriptedUpstream(script, whole=False) as upstream,
        proxy(settings_for(upstream.url)) as app,
        connected(app.urls[0]) as sock,
        asyncio.timeout(PATIENCE),
    ):
        request = get("/v2/a", "Transfer-Encoding: chunked", method="POST")
        await loop.sock_sendall(sock, request + b"2\r\nab")
        await has_come.wait()
        await loop.sock_sendall(sock, rest)
        if half:
            sock.shutdown(socket.SHUT_WR)
        assert (await read_to_end(sock)).startswith(b"HTTP/1.1 400 ")
