"""Clients that take too long, too much or too many connections: what each of them gets, and that others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from slproxy.app import App
from slproxy.config import LimitSettings, ListenSettings
from slproxy.server.connection import EVICT_AFTER, OVER_LIMIT_TIMEOUT
from slproxy.upstream.faults import STALL_TIMEOUT
from tests.support import ROOT
from tests.support.programs import program
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Head, Message, get, port_of, raw, read_message, reply
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import PATIENCE, SLACK, SOON, until

KIB, MIB = 1024, 1024 * 1024
PIECE = b"x" * 64 * KIB
# The deadlines of a proxy that is tested for them.
SHORT = 0.3
# When what is poured is taken no more, and nothing comes back either.
TAKES_NO_MORE = 1.5
# How often a slow client does a little.
TRICKLE = 0.5
# As small as the kernel grants a receive buffer: a client that does not read is noticed early.
SMALL = 4096


@dataclass
class Client:
    """A client on a socket of its own, that reads when it is told to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def message(self, *, timeout: float = SOON) -> Message:
        async with asyncio.timeout(timeout):
            return await read_message(self.reader)

    async def ask(self, target: str = "/v2/a", *headers: str, timeout: float = SOON) -> Message:
        await self.send(get(target, *headers))
        return await self.message(timeout=timeout)

    def stop_reading(self) -> None:
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def read_on(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Close with a reset: nobody shall take it for the end of one half."""
        sock = self.writer.get_extra_info("socket")
        if sock.family == socket.AF_INET and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def rest(self, *, timeout: float = SOON) -> tuple[bytes, str]:
        """Return what still comes, and how it ends: ``closed`` or ``reset``."""
        got = bytearray()
        async with asyncio.timeout(timeout):
            try:
                while piece := await self.reader.read(MIB):
                    got += piece
            except ConnectionError:
                return bytes(got), "reset"
        return bytes(got), "closed"

    async def dribble(self, pieces: bytes, *, every: float = 0.05) -> None:
        """Send a byte at a time, until all are sent or the other side has had enough."""
        with contextlib.suppress(ConnectionError):
            for byte in pieces:
                await self.send(bytes([byte]))
                await asyncio.sleep(every)


@asynccontextmanager
async def client(url: str, *, receive: int | None = None, reading: bool = True) -> AsyncIterator[Client]:
    """Connect to the proxy; ``receive`` is the size of the socket's buffer for what comes."""
    if url.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"), limit=MIB)
    else:
        sock = socket.socket()
        if receive is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port_of(url)))
        reader, writer = await asyncio.open_connection(sock=sock, limit=MIB)
    connected = Client(reader, writer)
    if not reading:
        connected.stop_reading()
    try:
        yield connected
    finally:
        connected.leave()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def clients(
    url: str, count: int, *, receive: int | None = None, reading: bool = True
) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client(url, receive=receive, reading=reading)) for _ in range(count)]


@asynccontextmanager
async def pair(
    script: Handler | None = None,
    *,
    whole: bool = True,
    limits: LimitSettings | None = None,
    places: int = 100,
    send_timeout: float | None = None,
    uds: Path | None = None,
) -> AsyncIterator[tuple[ScriptedUpstream, App]]:
    """Run an upstream that follows ``script``, and a proxy before it that holds ``places`` connections to it."""
    async with ScriptedUpstream(script, whole=whole) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(
            settings,
            limits=limits or settings.limits,
            upstream=replace(settings.upstream, max_connections=places),
            listen=settings.listen if uds is None else ListenSettings(uds=str(uds)),
        )
        async with proxy(settings) as app:
            if send_timeout is not None:
                assert app.server is not None
                app.server.send_timeout = send_timeout
            yield upstream, app


def connections(app: App) -> int:
    """Return how many connections of clients the proxy has."""
    assert app.server is not None
    return len(app.server.connections)


def in_flight(app: App) -> int:
    assert app.server is not None
    return app.server.in_flight


def problem_in(message: Message) -> tuple[int, str, str | None]:
    """Return status, type and ``Proxy-Status`` of an answer of the proxy's own."""
    assert message.head.get("Content-Type") == "application/problem+json", message
    document = json.loads(message.body)
    assert document["status"] == message.head.status
    return message.head.status, document["type"], message.head.get("Proxy-Status")


TIMED_OUT = (408, "bad-request", "slproxy; error=http_request_error")
OVERLOADED = (503, "overloaded", "slproxy; error=connection_limit_reached")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def endless(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer ``/v2/big…`` with a body that nobody can take, anything else with ``{}``."""
    if not message.head.target.startswith("/v2/big"):
        writer.write(reply())
    elif message.head.target.endswith("chunked"):
        writer.write(reply("200 OK", b"", "Transfer-Encoding: chunked", length=False))
        while True:
            writer.write(chunk(PIECE))
            await writer.drain()
    else:
        writer.write(reply("200 OK", b"", f"Content-Length: {2**40}", length=False))
        while True:
            writer.write(PIECE)
            await writer.drain()


# The head's deadline.

ENDLESS_HEAD = b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n" + b"X-Slow: loris\r\n" * 100


@pytest.mark.parametrize(
    ("before", "sent"),
    [
        (b"", ENDLESS_HEAD),
        (b"\r\n\r\n", ENDLESS_HEAD),
        (b"", b"GET /v2/" + b"a" * 1000),
        (get("/v2/first"), ENDLESS_HEAD),
        (get("/v2/first") + b"GET /v2/se", b"cond" + b"a" * 1000),
    ],
    ids=["first", "after line ends", "within its first line", "second", "begun with the first"],
)
async def test_a_head_that_dribbles_is_408_and_the_connection_ends(before: bytes, sent: bytes) -> None:
    async with (
        pair(limits=LimitSettings(header_timeout=SHORT)) as (upstream, app),
        client(app.urls[0]) as slow,
    ):
        if before:
            await slow.send(before)
        if b"first" in before:
            assert (await slow.message()).head.status == 200
        began = time.monotonic()
        dribbling = asyncio.create_task(slow.dribble(sent))
        answer = await slow.message()
        took = time.monotonic() - began
        dribbling.cancel()
        assert problem_in(answer) == TIMED_OUT
        assert answer.head.get("Connection") == "close"
        assert (await slow.rest())[0] == b""
        assert SHORT * 0.5 < took < SHORT + SLACK
    assert [message.head.target for message in upstream.seen] == (["/v2/first"] if before.startswith(b"GET") else [])


@pytest.mark.parametrize("line_ends", [b"", b"\r\n" * 100], ids=["nothing", "line ends"])
async def test_a_connection_on_which_no_head_begins_is_closed_without_a_word(line_ends: bytes) -> None:
    async with pair(limits=LimitSettings(header_timeout=SHORT)) as (_, app), client(app.urls[0]) as silent:
        began = time.monotonic()
        dribbling = asyncio.create_task(silent.dribble(line_ends))
        got, _ = await silent.rest()
        assert got == b""
        assert SHORT * 0.5 < time.monotonic() - began < SHORT + SLACK
        await dribbling


async def test_a_kept_connection_may_be_idle_for_longer_than_a_head_may_take() -> None:
    async with pair(limits=LimitSettings(header_timeout=SHORT)) as (upstream, app), client(app.urls[0]) as patient:
        assert (await patient.ask()).head.status == 200
        await asyncio.sleep(SHORT * 1.5)
        await patient.send(b"\r\n")  # RFC 9112 §2.2: a line end before a request is nothing, and no part of it
        await asyncio.sleep(SHORT * 1.5)
        assert (await patient.ask()).head.status == 200
    assert len(upstream.seen) == 2


async def test_a_slow_head_that_is_whole_in_time_passes() -> None:
    async with pair(limits=LimitSettings(header_timeout=4 * SHORT)) as (upstream, app), client(app.urls[0]) as slow:
        for _ in range(2):
            await slow.dribble(b"\r\n" + get("/v2/a"), every=SHORT / 50)
            assert (await slow.message()).head.status == 200
    assert len(upstream.seen) == 2


async def test_an_answer_may_take_longer_than_the_head_and_the_body_of_its_request_may() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * SHORT)
        writer.write(reply("200 OK", b"", "Content-Length: 2", length=False))
        if message.head.method != "HEAD":
            writer.write(b"{")
            await asyncio.sleep(2 * SHORT)
            writer.write(b"}")

    methods = {"GET": b"", "POST": b"{}", "HEAD": b""}
    async with pair(script, limits=LimitSettings(header_timeout=SHORT, body_timeout=SHORT)) as (_, app):
        answers = await asyncio.gather(
            *(
                raw(app.urls[0], get("/v2/a", method=method, body=body), method=method)
                for method, body in methods.items()
            )
        )
    assert [(answer.head.status, answer.body) for answer in answers] == [(200, b"{}"), (200, b"{}"), (200, b"")]


# The body's deadline.

FRAMINGS = {
    "small": ("Content-Length: 4096", b"x" * 100),
    "large": ("Content-Length: 1000000", b"x" * 100_000),
    "chunked": ("Transfer-Encoding: chunked", chunk(b"x" * 100)),
    "within a chunk": ("Transfer-Encoding: chunked", chunk(b"x" * 100) + b"64\r\nx"),
    "none of it": ("Content-Length: 4096", b""),
}


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_body_that_stalls_is_408_and_never_goes_up_whole(framing: str) -> None:
    length, sent = FRAMINGS[framing]
    async with pair(limits=LimitSettings(body_timeout=SHORT)) as (upstream, app), client(app.urls[0]) as slow:
        began = time.monotonic()
        await slow.send(get("/v2/up", length, method="POST") + sent)
        answer = await slow.message()
        assert SHORT * 0.5 < time.monotonic() - began < SHORT + SLACK
        assert problem_in(answer) == TIMED_OUT
        assert answer.head.get("Connection") == "close"
        await until(lambda: upstream.closed == upstream.connections, timeout=SLACK)
        assert in_flight(app) == 0
    assert upstream.seen == []


async def test_a_body_that_stalls_after_continue_is_408() -> None:
    async with pair(limits=LimitSettings(body_timeout=SHORT)) as (upstream, app), client(app.urls[0]) as slow:
        await slow.send(get("/v2/up", "Content-Length: 10", "Expect: 100-continue", method="POST"))
        assert await slow.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert problem_in(await slow.message()) == TIMED_OUT
    assert upstream.seen == []


async def test_a_slow_body_that_keeps_moving_passes_however_long_it_takes() -> None:
    whole = {"small": b"y" * 4096, "large": b"z" * 1_000_000, "chunked": b"x" * 4096}

    async def upload(url: str, framing: str) -> int:
        body = whole[framing]
        if framing == "chunked":
            body = b"".join(chunk(body[start : start + 256]) for start in range(0, 4096, 256)) + chunk(b"")
        step = len(body) // 16
        async with client(url) as slow:
            await slow.send(get("/v2/up", FRAMINGS[framing][0], method="POST"))
            for start in range(0, len(body), step):
                await asyncio.sleep(0.1)
                await slow.send(body[start : start + step])
            return (await slow.message()).head.status

    async with pair(limits=LimitSettings(body_timeout=1.2)) as (upstream, app):
        assert await asyncio.gather(*(upload(app.urls[0], framing) for framing in whole)) == [200] * 3
    assert sorted(message.body for message in upstream.seen) == sorted(whole.values())


# Clients that read slowly, or not at all.

DOWNLOADS = {
    "length": get("/v2/big"),
    "chunked": get("/v2/big/chunked"),
    # Such a body ends with its connection: only a reset tells that it is not whole (RFC 9112 §8).
    "until close": b"GET /v2/big/chunked HTTP/1.0\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("framing", DOWNLOADS)
async def test_a_client_that_takes_nothing_of_its_reply_is_cut_off_with_a_reset(framing: str) -> None:
    async with (
        pair(endless, send_timeout=SHORT) as (upstream, app),
        client(app.urls[0], receive=SMALL, reading=False) as deaf,
    ):
        await deaf.send(DOWNLOADS[framing])
        await until(lambda: len(upstream.seen) == 1)
        began = time.monotonic()
        await until(lambda: upstream.closed == 1)
        assert SHORT * 0.5 < time.monotonic() - began < SHORT + SLACK
        await until(lambda: connections(app) == 0, timeout=SLACK)
        deaf.read_on()
        got, ended = await deaf.rest()
        assert got.startswith(b"HTTP/1.") or not got
        assert ended == "reset"
    assert len(upstream.seen) == 1


async def test_a_client_that_leaves_the_last_of_its_reply_is_cut_off_as_well(tmp_path: Path) -> None:
    """What is left fits into the proxy's own buffer, so that nobody waits to write: the connection must end anyhow."""
    sizes = range(96 * KIB, 640 * KIB, 16 * KIB)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=b"x" * int(message.head.target.partition("?")[2])))

    async with (
        # A Unix socket holds some 200 KiB; how much a TCP one does is up to the kernel's mood.
        pair(script, send_timeout=SHORT, uds=tmp_path / "s") as (upstream, app),
        clients(app.urls[0], len(sizes), reading=False) as deaf,
    ):
        for each, size in zip(deaf, sizes, strict=True):
            await each.send(get(f"/v2/a?{size}", "Connection: close"))
        await until(lambda: len(upstream.seen) == len(sizes))
        await asyncio.sleep(SHORT / 2)
        assert 0 < in_flight(app) < len(sizes)  # the sizes are well chosen: some are all written, some are not
        with contextlib.suppress(TimeoutError):
            await until(lambda: connections(app) == 0, timeout=SHORT + 2 * SLACK)
        assert connections(app) == 0


async def test_a_client_that_reads_slowly_and_steadily_gets_all_of_it() -> None:
    size = 6 * MIB

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=b"x" * size))

    timeout = 1.0
    async with (
        pair(script, send_timeout=timeout) as (_, app),
        client(app.urls[0], receive=SMALL, reading=False) as slow,
    ):
        await slow.send(get("/v2/a"))
        sock = slow.writer.get_extra_info("socket")
        began, got = time.monotonic(), bytearray()
        while time.monotonic() - began < 2 * timeout:
            with contextlib.suppress(BlockingIOError):
                # 80 kB in each send_timeout: 1.3 kB/s where that is the minute of the default.
                got += os.read(sock.fileno(), 4096)
            await asyncio.sleep(timeout / 20)
        assert in_flight(app) == 1, f"cut off after {len(got)} bytes"
        slow.read_on()
        head, _, first = bytes(got).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(SOON):
            await slow.reader.readexactly(size - len(first))


# The limit of connections.


class Gate:
    """An upstream that answers when it is opened, and counts who waits for that."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = self.most = 0

    async def script(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target.startswith("/v2/held"):
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            gone, opened = asyncio.ensure_future(reader.read(1)), asyncio.ensure_future(self.open.wait())
            try:
                await asyncio.wait({gone, opened}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise ConnectionResetError
            finally:
                self.waiting -= 1
                for future in (gone, opened):
                    future.cancel()
                await asyncio.gather(gone, opened, return_exceptions=True)
        writer.write(reply())


async def test_one_connection_too_many_is_told_so_and_the_next_is_served_when_one_has_left() -> None:
    gate = Gate()
    async with (
        pair(gate.script, limits=LimitSettings(max_connections=3)) as (_, app),
        clients(app.urls[0], 3) as held,
    ):
        for each in held:
            assert (await each.ask()).head.status == 200
            await each.send(get("/v2/held"))
        await until(lambda: gate.waiting == 3)
        async with client(app.urls[0]) as asking, client(app.urls[0]) as silent, client(app.urls[0]) as slow:
            await asking.send(get("/v2/me"))
            await slow.send(b"GET /v2/sl")
            for each in (asking, silent, slow):
                told = await each.message(timeout=OVER_LIMIT_TIMEOUT + SLACK)
                assert problem_in(told) == OVERLOADED
                assert int(told.head.get("Retry-After") or 0) >= 1
                assert told.head.get("Connection") == "close"
                assert (await each.rest())[0] == b""
        # A request in flight is nobody's room to take, for however long its connection has not asked for another.
        await asyncio.sleep(EVICT_AFTER)
        assert problem_in(await raw(app.urls[0], get("/v2/me"))) == OVERLOADED
        gate.open.set()
        assert [(await each.message()).head.status for each in held] == [200] * 3
        held[0].leave()
        await until(lambda: connections(app) == 2)
        async with client(app.urls[0]) as newcomer:
            assert (await newcomer.ask("/v2/me")).head.status == 200


async def idle_connection(*, asked: bool) -> None:
    """A connection that is idle for long gives way to a request: the longest idle one, and not before its time."""
    async with (
        pair(limits=LimitSettings(max_connections=2, header_timeout=60.0)) as (_, app),
        client(app.urls[0]) as first,
    ):
        if asked:
            assert (await first.ask()).head.status == 200
        await asyncio.sleep(EVICT_AFTER * 0.5)
        async with client(app.urls[0]) as second:
            if asked:
                assert (await second.ask()).head.status == 200
            async with client(app.urls[0]) as newcomer:
                began = time.monotonic()
                assert (await newcomer.ask()).head.status == 200
                assert time.monotonic() - began > EVICT_AFTER * 0.3
                assert await first.rest() == (b"", "closed")
                assert (await second.ask()).head.status == 200


async def test_a_connection_that_has_been_idle_since_its_last_answer_gives_way_to_a_newcomer() -> None:
    await idle_connection(asked=True)


@pytest.mark.parametrize("kind", ["silent", "asking", "slow"])
async def test_a_flood_of_connections_is_told_or_closed_quickly_and_passes(kind: str) -> None:
    limit, flood = 8, 200
    gate = Gate()

    async def one_of_many(url: str) -> int:
        """Return the status that it got, 0 for none."""
        async with client(url) as each:
            try:
                if kind == "asking":
                    await each.send(get("/v2/a"))
                elif kind == "slow":
                    await each.send(b"GET /v2/a HT")
                return (await each.message(timeout=OVER_LIMIT_TIMEOUT + 2 * SLACK)).head.status
            except (ConnectionError, asyncio.IncompleteReadError):
                return 0

    async with (
        pair(gate.script, limits=LimitSettings(max_connections=limit)) as (_, app),
        clients(app.urls[0], limit) as held,
    ):
        for each in held:
            await each.send(get("/v2/held"))
        await until(lambda: gate.waiting == limit)
        got = Counter(await asyncio.gather(*(one_of_many(app.urls[0]) for _ in range(flood))))
        assert got.keys() <= {503, 0}, got
        assert got[503] >= limit, got
        gate.open.set()
        assert [(await each.message()).head.status for each in held] == [200] * limit
        await until(lambda: connections(app) == limit)
        held[0].leave()
        await until(lambda: connections(app) < limit)
        async with client(app.urls[0]) as newcomer:
            assert (await newcomer.ask()).head.status == 200


# The limit of connections to the upstream.

PLACES = 3


async def all_places_are_free(app: App, gate: Gate, places: int = PLACES) -> None:
    """Show that as many requests as there are places are served at once, and no more than that."""
    gate.open.clear()
    gate.most = 0
    async with clients(app.urls[0], 2 * places) as many:
        for each in many:
            await each.send(get("/v2/held"))
        await until(lambda: gate.waiting == places, timeout=SOON)
        await asyncio.sleep(0.1)
        gate.open.set()
        assert [(await each.message()).head.status for each in many] == [200] * len(many)
    assert gate.most == places


def hold_and_gate(gate: Gate, *, taken: Callable[[str], None] = lambda target: None) -> Handler:
    """Return a script that takes uploads for as long as they come, gives endless downloads, and else is a gate."""

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.method == "POST":
            while not (got := await reader.read(65536)).endswith(b"0\r\n\r\n"):
                if not got:
                    raise ConnectionResetError
            taken(message.head.target)
        elif message.head.target.startswith("/v2/big"):
            await endless(message, reader, writer)
        else:
            await gate.script(message, reader, writer)

    return script


HELD = {
    "a download with a length": DOWNLOADS["length"],
    "a download in chunks": DOWNLOADS["chunked"],
    "a download until close": DOWNLOADS["until close"],
    "an upload with a length": get("/v2/up", "Content-Length: 1000000", method="POST") + b"x" * 100_000,
    "an upload in chunks": get("/v2/up", "Transfer-Encoding: chunked", method="POST") + chunk(b"x" * 100),
}


async def stalled_clients(what: str) -> None:
    """Clients that stall give their places to those who wait, as many as are wanted."""
    gate, went_up_whole = Gate(), list[str]()
    gate.open.set()
    async with (
        pair(hold_and_gate(gate, taken=went_up_whole.append), whole=False, places=PLACES) as (upstream, app),
        clients(app.urls[0], PLACES, receive=SMALL, reading=False) as stalled,
    ):
        for each in stalled:
            await each.send(HELD[what])
        await until(lambda: len(upstream.seen) == PLACES)
        began = time.monotonic()
        assert (await raw(app.urls[0], get("/v2/a"))).head.status == 200
        took = time.monotonic() - began
        assert took < STALL_TIMEOUT + SLACK, what
        # One place was wanted, and one was taken; the others are still held.
        await asyncio.gather(*(raw(app.urls[0], get("/v2/a")) for _ in range(PLACES)))
        for each in stalled:
            each.read_on()
        if "upload" in what:
            ends = [asyncio.create_task(told_or_reset(each)) for each in stalled]
            for end in asyncio.as_completed(ends):
                if await end == OVERLOADED:
                    break
            else:
                pytest.fail(f"{what}: nobody was told")
            for end_of_one in ends:
                end_of_one.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        else:
            # Whoever kept its place reads on for as long as it likes; who lost it has a reset behind what was sent.
            lost = [asyncio.create_task(each.rest(timeout=60.0)) for each in stalled]
            done, others = await asyncio.wait(lost, timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result()[1] for task in done} == {"reset"}, what
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for each in stalled:
                each.leave()
        assert went_up_whole == []
        for each in stalled:
            each.leave()
        await until(lambda: in_flight(app) == 0)
        await all_places_are_free(app, gate)


async def told_or_reset(stalled: Client) -> tuple[int, str, str | None] | None:
    try:
        return problem_in(await stalled.message())
    except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        return None


async def replies_that_had_come(folder: Path) -> None:
    """A client that lost its place after all of its reply had come to the proxy still gets it whole."""
    gate = Gate()
    gate.open.set()
    sizes = range(160 * KIB, 640 * KIB, 16 * KIB)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target.startswith("/v2/size"):
            writer.write(reply(body=b"x" * int(message.head.target.partition("?")[2])))
        else:
            await gate.script(message, reader, writer)

    async with (
        pair(script, places=len(sizes), uds=folder / "s") as (upstream, app),
        clients(app.urls[0], len(sizes), reading=False) as stalled,
    ):
        for each, size in zip(stalled, sizes, strict=True):
            await each.send(get(f"/v2/size?{size}"))
        await until(lambda: len(upstream.seen) == len(sizes))
        await until(lambda: any(each.is_complete for each in app.upstream.slots.round_trips))
        await asyncio.sleep(0.2)  # for the others that will be
        round_trips = list(app.upstream.slots.round_trips)
        complete = sum(each.is_complete for each in round_trips)
        assert 0 < complete < len(round_trips)  # the sizes are well chosen
        # Who has but the last piece to take holds no place any more.
        assert len(round_trips) <= in_flight(app)

        async def newcomer() -> int:
            async with client(app.urls[0]) as each:
                await each.send(get("/v2/held"))
                return (await each.message(timeout=STALL_TIMEOUT + 2 * SLACK)).head.status

        gate.open.clear()
        asking = [asyncio.create_task(newcomer()) for _ in sizes]
        await until(lambda: gate.waiting == len(sizes), timeout=STALL_TIMEOUT + 2 * SLACK)
        gate.open.set()
        assert set(await asyncio.gather(*asking)) == {200}
        whole = 0
        for each, size in zip(stalled, sizes, strict=True):
            each.read_on()
            try:
                assert len((await each.message()).body) == size
                whole += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
        assert whole == len(sizes) - len(round_trips) + complete
        await until(lambda: in_flight(app) == 0)
        await all_places_are_free(app, gate, len(sizes))


async def test_who_holds_what_others_wait_for_and_makes_no_use_of_it_gives_way(tmp_path: Path) -> None:
    """All of these take ``STALL_TIMEOUT`` or ``EVICT_AFTER`` seconds, so they are shown at once."""
    rows = {what: stalled_clients(what) for what in HELD}
    rows["a reply that had come"] = replies_that_had_come(tmp_path)
    rows["a connection that has never asked"] = idle_connection(asked=False)
    results = await asyncio.gather(*rows.values(), return_exceptions=True)
    failed = {what: result for what, result in zip(rows, results, strict=True) if result is not None}
    assert failed == {}


async def leaves_in_flight(app: App, gate: Gate) -> None:
    async with client(app.urls[0]) as each:
        await each.send(get("/v2/held"))
        await until(lambda: gate.waiting == 1)


async def leaves_while_it_waits_for_a_place(app: App, gate: Gate) -> None:
    async with clients(app.urls[0], PLACES) as first, clients(app.urls[0], PLACES) as others:
        for each in first:
            await each.send(get("/v2/held"))
        await until(lambda: gate.waiting == PLACES)
        for each in others:
            await each.send(get("/v2/held"))
        await until(lambda: in_flight(app) == 2 * PLACES)


async def leaves_an_upload(app: App, gate: Gate) -> None:
    for name in ("an upload with a length", "an upload in chunks"):
        async with client(app.urls[0]) as each:
            await each.send(HELD[name])
            await until(lambda: len(app.upstream.slots.round_trips) == 1)


async def leaves_a_download(app: App, gate: Gate) -> None:
    for reading in (True, False):
        async with client(app.urls[0], reading=reading) as each:
            await each.send(DOWNLOADS["chunked"])
            await until(lambda: len(app.upstream.slots.round_trips) == 1)
            await asyncio.sleep(0.05)


async def stalls_an_upload(app: App, gate: Gate) -> None:
    async with client(app.urls[0]) as each:
        await each.send(HELD["an upload in chunks"])
        assert problem_in(await each.message()) == TIMED_OUT


async def breaks_an_upload(app: App, gate: Gate) -> None:
    async with client(app.urls[0]) as each:
        await each.send(HELD["an upload in chunks"] + b"zz\r\n")
        assert problem_in(await each.message())[0] == 400


async def reads_nothing(app: App, gate: Gate) -> None:
    async with client(app.urls[0], receive=SMALL, reading=False) as each:
        await each.send(DOWNLOADS["chunked"])
        await until(lambda: len(app.upstream.slots.round_trips) == 1)
        await until(lambda: len(app.upstream.slots.round_trips) == 0, timeout=SHORT + 2 * SLACK)


async def is_refused(app: App, gate: Gate) -> None:
    for target in ("/v2/..", "/v1", "/_slproxy/healthz"):
        await raw(app.urls[0], get(target))


@pytest.mark.parametrize(
    "ending",
    [
        leaves_in_flight,
        leaves_while_it_waits_for_a_place,
        leaves_an_upload,
        leaves_a_download,
        stalls_an_upload,
        breaks_an_upload,
        reads_nothing,
        is_refused,
    ],
)
async def test_however_a_request_ends_its_place_is_free_again(ending: Callable[[App, Gate], Awaitable[None]]) -> None:
    gate = Gate()
    limits = LimitSettings(body_timeout=SHORT)
    async with pair(hold_and_gate(gate), whole=False, places=PLACES, limits=limits, send_timeout=SHORT) as (_, app):
        for _ in range(2):
            await ending(app, gate)
            await until(lambda: in_flight(app) == 0)
        await all_places_are_free(app, gate)


# Too much of something: pipelines, heads without end, half-closed connections.


async def test_a_burst_of_10000_requests_is_served_one_at_a_time_in_order_and_no_faster_than_answers_are_read(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    many, size = 10_000, 3000
    now = most = 0

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += message.head.target != "/v2/me.json"  # the proxy's own request, at its start
        most = max(most, now)
        await asyncio.sleep(0)
        writer.write(reply(body=message.head.target.encode().ljust(size)))
        now -= message.head.target != "/v2/me.json"

    async with (
        ScriptedUpstream(script) as upstream,
        program("serve", "--port", "0", home=tmp_path, env=environment_of(upstream.url)) as running,
        client(running.url, receive=SMALL, reading=False) as deaf,
    ):
        await raw(running.url, get("/v2/warm"))
        before = memory_of(running.process.pid)
        deaf.writer.write(b"".join(get(f"/v2/{number}") for number in range(many)))
        last = -1
        while len(upstream.seen) != last:
            last = len(upstream.seen)
            await asyncio.sleep(0.5)
        assert 1 < last < many  # what the kernel holds of the answers was asked for, and no more
        assert (await raw(running.url, get("/v2/other"))).head.status == 200
        assert memory_of(running.process.pid) - before < 4 * MIB
        deaf.read_on()
        for number in range(many if pytestconfig.getoption("--long") else many // 5):
            answer = await deaf.message()
            assert (answer.head.status, answer.body) == (200, f"/v2/{number}".encode().ljust(size))
    assert most == 1


# What is poured, and the status of the answer where there is one.
FLOODS = {
    "a target without end": (b"GET /v2/", b"a", 414),
    "a header without end": (b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a", 431),
    "a name without end": (b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n", b"a", 431),
    "headers without end": (b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n", 431),
    "no header at all, without end": (b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n", b":\r\n", 400),
    "a method without end": (b"", b"A", 501),
    "line ends": (b"", b"\r\n", None),
    "a chunk's size": (get("/v2/a", "Transfer-Encoding: chunked", method="POST"), b"0", 408),
    "a chunk's extension": (get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"1;", b"a", 408),
    "trailers": (get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"0\r\n", b"X-A: b\r\n", 431),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_what_never_ends_is_refused_after_little_of_it(flood: str) -> None:
    begin, again, status = FLOODS[flood]
    piece = again * (64 * KIB // len(again))
    sent, told = 0, asyncio.Event()
    limits = LimitSettings(header_timeout=SHORT, body_timeout=SHORT)
    async with pair(limits=limits) as (upstream, app), client(app.urls[0]) as mad:

        async def pour() -> None:
            nonlocal sent
            with contextlib.suppress(ConnectionError):
                await mad.send(begin)
                while sent < 256 * MIB and not told.is_set():
                    await mad.send(piece)
                    sent += len(piece)

        pouring = asyncio.create_task(pour())
        began = time.monotonic()
        got = b""  # and none it is where a reset overtakes the answer, since more was sent than read (RFC 9112 §9.6)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(SLACK):
                got = await mad.reader.read(MIB)
        assert time.monotonic() - began < SLACK
        told.set()
        async with asyncio.timeout(SOON):
            await pouring
        assert sent < 256 * MIB
        assert not got or Head(got).status == status
        mad.leave()
        assert (await raw(app.urls[0], get("/v2/a"))).head.status == 200
        await until(lambda: connections(app) == 0)
    assert [message.head.method for message in upstream.seen] == ["GET"]


MANY = b"".join(b"X-%04d: bc\r\n" % number for number in range(900))
HEAD = b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n"
# What is poured, and the statuses of the answers.
HOARDS = {
    "a head of long headers": (HEAD, b"X-A: %b\r\n" % (b"a" * 4000), [431]),
    "a head without a target": (b"GET", b" ", [414]),
    "long trailers": (FLOODS["trailers"][0], b"X-A: %b\r\n" % (b"a" * 60_000), [431]),
    "a head behind a request": (get("/v2/a") + HEAD, b"X-A: %b\r\n" % (b"a" * 4000), [200, 431]),
    "a head behind one in flight": (get("/v2/hold") + HEAD, b"X-A: %b\r\n" % (b"a" * 4000), []),
    "whole heads behind one in flight": (get("/v2/hold"), HEAD + MANY + b"\r\n", []),
}


async def hoard(url: str, begin: bytes, again: bytes, most: int) -> list[int]:
    """Pour until the proxy ends the connection or takes no more; return the statuses of its answers."""
    got = b""
    piece = again * max(1, 64 * KIB // len(again))
    async with client(url) as mad:

        async def pour() -> None:
            with contextlib.suppress(ConnectionError):
                await mad.send(begin)
                for _ in range(most // len(piece)):
                    await mad.send(piece)

        pouring = asyncio.create_task(pour())
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(TAKES_NO_MORE):
                while more := await mad.reader.read(MIB):
                    got += more
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
    return [int(each[:3]) for each in got.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.skipif(sys.platform != "linux", reason="the most that a process had in memory is told in /proc")
async def test_a_client_cannot_fill_the_memory_with_heads_and_trailers_that_are_not_whole(tmp_path: Path) -> None:
    """Nor with whole ones behind a request in flight, nor with many connections."""
    many = 40

    def peak() -> int:
        status = Path(f"/proc/{running.process.pid}/status").read_text("ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * KIB

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/hold":
            await asyncio.Event().wait()
        writer.write(reply())

    async with (
        ScriptedUpstream(script) as upstream,
        program("serve", "--port", "0", home=tmp_path, env=environment_of(upstream.url)) as running,
    ):
        await raw(running.url, get("/v2/a"))
        grown: dict[str, float] = {}
        for name, (begin, again, statuses) in HOARDS.items():
            before = peak()
            told = await hoard(running.url, begin, again, 24 * MIB)
            grown[name] = (peak() - before) / MIB
            # A reset may overtake an answer, since more was sent than read (RFC 9112 §9.6).
            assert told in (statuses, statuses[:-1], []), name
        before = peak()
        for each in await asyncio.gather(*(_begun(running.url, HEAD + MANY * 5) for _ in range(many))):
            each.leave()
        grown["heads that are nearly whole"] = (peak() - before) / MIB / many * 10
    assert {name: size for name, size in grown.items() if size > 6} == {}, grown


async def _begun(url: str, head: bytes) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    each = Client(reader, writer)
    await each.send(head)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await reader.read(MIB)
    return each


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (get("/v2/a"), 1),
        (get("/v2/a", method="POST", body=b"{}"), 1),
        (get("/v2/a", "Transfer-Encoding: chunked", method="POST") + chunk(b"{}") + chunk(b""), 1),
        (get("/v2/a") * 3, 3),
        (get("/v2/a") + b"GET /v2/b HT", 1),
    ],
    ids=["get", "post", "chunks", "pipeline", "and a half"],
)
async def test_a_client_that_closes_its_half_after_a_whole_request_is_answered(sent: bytes, answers: int) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        writer.write(reply())

    async with pair(script) as (upstream, app), client(app.urls[0]) as half:
        await half.send(sent)
        half.writer.write_eof()
        for _ in range(answers):
            assert (await half.message()).head.status == 200
        await half.rest()
        await until(lambda: connections(app) == 0, timeout=SOON)
    assert len(upstream.seen) == answers


async def test_a_client_that_closes_its_half_and_takes_its_time_gets_all_of_a_long_reply() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"a" * MIB))
        await asyncio.sleep(1.2)
        writer.write(chunk(b"b") + chunk(b""))

    async with pair(script) as (_, app), client(app.urls[0]) as half:
        await half.send(get("/v2/a"))
        half.writer.write_eof()
        async with asyncio.timeout(SOON):
            message = await half.message()
        assert message.body == b"a" * MIB + b"b"
        await until(lambda: connections(app) == 0, timeout=SOON)


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /v2/a HTT", *(get("/v2/up", length, method="POST") + some for length, some in FRAMINGS.values())],
    ids=["nothing", "a head", *FRAMINGS],
)
async def test_half_a_request_is_none_when_the_client_closes_its_half(sent: bytes) -> None:
    async with pair() as (upstream, app), client(app.urls[0]) as half:
        await half.send(sent)
        half.writer.write_eof()
        got, _ = await half.rest()
        assert got == b"" or Head(got).status == 400
        await until(lambda: connections(app) == 0)
    assert upstream.seen == []


# All of them at once, against the program as it is started.


def environment_of(url: str, **more: str) -> dict[str, str]:
    return {
        "SALESLOFT_API_KEY": API_KEY,
        "SLPROXY_UPSTREAM__API_URL": url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": url,
        "SLPROXY_STORE__KIND": "memory",
        "SLPROXY_LOG__LEVEL": "error",
        # More is asked here than a team may ask in a minute.
        "SLPROXY_PACE__MODE": "off",
        **more,
    }


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Let this process, and those that it starts, have ``count`` files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"only {hard} open files are allowed here (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def slow_headers(each: Client, number: int) -> None:
    await each.dribble(ENDLESS_HEAD, every=TRICKLE)


async def slow_body(each: Client, number: int) -> None:
    length = ("Content-Length: 4096", "Content-Length: 1000000", "Transfer-Encoding: chunked")[number % 3]
    await each.send(get("/v2/up", length, method="POST"))
    while True:
        await each.send(chunk(b"x") if "chunked" in length else b"x")
        await asyncio.sleep(TRICKLE)


async def slow_reader(each: Client, number: int) -> None:
    each.stop_reading()
    await each.send(DOWNLOADS["chunked" if number % 2 else "length"])
    descriptor = each.writer.get_extra_info("socket").fileno()
    while True:
        await asyncio.sleep(TRICKLE)
        with contextlib.suppress(BlockingIOError):
            if not os.read(descriptor, 32):
                return


async def test_others_are_served_while_slow_clients_hold_all_they_can(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """docs/hazards.md, L1."""
    long = pytestconfig.getoption("--long")
    number, seconds = (1000, 120.0) if long else (300, 8.0)
    attacks = (slow_headers, slow_body, slow_reader)
    began = Counter[str]()

    async def attacker(url: str, turn: int) -> None:
        attack = attacks[turn % len(attacks)]
        # 100 a second, or the upstream's own work on so many replies is what others wait for: it runs beside the test.
        await asyncio.sleep(turn / 100)
        while True:
            with contextlib.suppress(ConnectionError):
                async with client(url, receive=SMALL) as each:
                    began[attack.__name__] += 1
                    await attack(each, turn // len(attacks))
            await asyncio.sleep(TRICKLE)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.method == "POST":
            await reader.read()
            raise ConnectionResetError
        await endless(message, reader, writer)

    took: list[float] = []

    async def one(ask: Callable[[], Awaitable[Message]]) -> None:
        started = time.monotonic()
        assert (await ask()).head.status == 200
        took.append(time.monotonic() - started)

    with many_files(number * 5):
        async with (
            ScriptedUpstream(script, whole=False) as upstream,
            program(
                *("serve", "--port", "0"),
                home=tmp_path,
                env=environment_of(upstream.url, SLPROXY_LIMITS__MAX_CONNECTIONS=str(2 * number)),
            ) as running,
            client(running.url) as kept,
        ):
            attackers = [asyncio.create_task(attacker(running.url, turn)) for turn in range(number)]
            try:
                started = time.monotonic()
                names = [attack.__name__ for attack in attacks]
                while time.monotonic() - started < seconds or min(began[name] for name in names) < number // 3:
                    await one(lambda: raw(running.url, get("/v2/new")))
                    await one(lambda: kept.ask("/v2/kept", timeout=PATIENCE))
                    await asyncio.sleep(0.1)
            finally:
                for task in attackers:
                    task.cancel()
                await asyncio.gather(*attackers, return_exceptions=True)
            await one(lambda: raw(running.url, get("/v2/after")))
    assert max(took) < SLACK, sorted(took)[-10:]  # who holds something may do so for a minute


# Memory.


def memory_of(pid: int) -> int:
    """Return the resident size of a process in bytes (proc_pid_statm(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


@asynccontextmanager
async def origin(script: Handler, home: Path, *, tls: bool) -> AsyncIterator[dict[str, str]]:
    """Run an upstream, over TLS as SalesLoft's is or without; give the settings that point at it."""
    context, more = None, {}
    if tls:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(home / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        more = {"SLPROXY_UPSTREAM__CA_FILE": str(home / "ca.pem")}
    async with ScriptedUpstream(script, whole=False, tls=context) as upstream:
        yield environment_of(upstream.url, **more)


def without_uvloop(home: Path) -> Mapping[str, str]:
    """Return an environment in which uvloop is not found, wherever it is installed."""
    hidden = home / "hidden"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text('raise ImportError("hidden from this process")\n')
    root = str(ROOT)
    return {"PYTHONPATH": os.pathsep.join([str(hidden), root])}


async def settled(count: Callable[[], int]) -> int:
    """Wait until a number no longer changes, and return it; one that changes for ever is returned as it is then."""
    last = -1
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2 * SOON):
            while (now := count()) != last:
                last = now
                await asyncio.sleep(0.4)
    return last


async def memory_per_client(home: Path, *, tls: bool, loop: str) -> dict[str, float]:
    """Return what one client of each kind costs: KiB of the proxy's memory, MiB that the other side could send."""
    idle, deaf, pouring = 200, 30, 6
    sent = taken = 0

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        if message.head.method == "POST":
            await asyncio.Event().wait()
        elif message.head.target == "/v2/big":
            writer.write(reply("200 OK", b"", f"Content-Length: {2**40}", length=False))
            while True:
                writer.write(PIECE)
                await writer.drain()
                sent += len(PIECE)
        else:
            writer.write(reply())

    async def pour(each: Client) -> None:
        nonlocal taken
        await each.send(get("/v2/up", f"Content-Length: {2**40}", method="POST"))
        while True:
            await each.send(PIECE)
            taken += len(PIECE)

    figures: dict[str, float] = {}
    async with contextlib.AsyncExitStack() as stack:
        env = await stack.enter_async_context(origin(script, home, tls=tls))
        env = {**env, "SLPROXY_UPSTREAM__MAX_CONNECTIONS": "500"}
        if loop == "asyncio":
            env |= without_uvloop(home)
        running = await stack.enter_async_context(program("serve", "--port", "0", home=home, env=env))
        pid = running.process.pid
        for _ in range(20):
            assert (await raw(running.url, get("/v2/a"))).head.status == 200

        before = memory_of(pid)
        kept = await stack.enter_async_context(clients(running.url, idle))
        await asyncio.sleep(0.2)
        figures["fresh, KiB"] = (memory_of(pid) - before) / idle / KIB
        for each in kept:
            assert (await each.ask()).head.status == 200
        figures["kept, KiB"] = (memory_of(pid) - before) / idle / KIB

        # Those stay open, so that nothing which was freed hides what comes.
        before = memory_of(pid)
        for each in await stack.enter_async_context(clients(running.url, deaf, receive=SMALL, reading=False)):
            await each.send(get("/v2/big"))
        figures["sent to who does not read, MiB"] = await settled(lambda: sent) / deaf / MIB
        figures["does not read, KiB"] = (memory_of(pid) - before) / deaf / KIB

        before = memory_of(pid)
        many = await stack.enter_async_context(clients(running.url, pouring))
        uploads = [asyncio.create_task(pour(each)) for each in many]
        figures["taken for who does not read, MiB"] = await settled(lambda: taken) / pouring / MIB
        figures["uploads, KiB"] = (memory_of(pid) - before) / pouring / KIB
        for task in uploads:
            task.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
    return figures


# 450 KiB for a client that does not read, 20 KiB for an idle connection. What the other side can send
# lies in the buffers of four sockets, which the kernel lets grow to 4 MiB and more (tcp(7), tcp_wmem and tcp_rmem).
BOUNDS = {
    "fresh, KiB": 20,
    "kept, KiB": 20,
    "does not read, KiB": 450,
    # No figure is promised for an upstream that does not read; this one tells that the body is not piling up.
    "uploads, KiB": 4096,
    "sent to who does not read, MiB": 32,
    "taken for who does not read, MiB": 48,
}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_client_takes_little_memory_whatever_it_does_not_do(tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="the extra `uvloop` is not installed")
    homes = tmp_path / "plain", tmp_path / "tls"
    for home in homes:
        home.mkdir()
    plain, tls = await asyncio.gather(*(memory_per_client(home, tls=home.name == "tls", loop=loop) for home in homes))
    for figures in (plain, tls):
        assert {name: value for name, value in figures.items() if value > BOUNDS[name]} == {}, (plain, tls)
