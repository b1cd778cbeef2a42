"""Where the end of one use of a connection meets the next one; on both event loops, with TLS and without."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from slproxy.config import UpstreamSettings
from slproxy.upstream import Outbound, Reply, Upstream
from slproxy.upstream.connection import READ_AHEAD
from tests.support.listener import Listener
from tests.support.loops import LOOPS, in_loop
from tests.support.raw_http import Message, reply
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import SOON, until


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", name="ca_file")
def the_file_of_the_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority().cert_pem.write_to_path(path)
    return path


def serving() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def send(upstream: Upstream, target: str, *, body: bytes | None = None) -> Reply:
    outbound = Outbound(
        method="GET" if body is None else "POST",
        target=target,
        headers=b"" if body is None else b"Content-Length: %d\r\n" % len(body),
        body=body,
    )
    slot = await upstream.slots.acquire()
    return await upstream.send(outbound, slot, response_timeout=5.0, before_first_byte=lambda: None)


class Client:
    """The client of one upstream, that may have one connection."""

    def __init__(self, upstream: Upstream, server: ScriptedUpstream) -> None:
        self.upstream, self.server = upstream, server

    async def send(self, target: str, *, body: bytes | None = None) -> Reply:
        return await send(self.upstream, target, body=body)

    @property
    def read_ahead(self) -> int:
        """How much has come of the reply that there is, and was not taken."""
        (round_trip,) = self.upstream.slots.round_trips
        return len(round_trip.reply.body)


@asynccontextmanager
async def client(script: Handler, ca_file: Path | None) -> AsyncIterator[Client]:
    async with ScriptedUpstream(script, tls=None if ca_file is None else serving()) as server:
        rules = UpstreamSettings(api_url=server.url, accounts_url=server.url, ca_file=ca_file, max_connections=1)
        async with Upstream(rules) as upstream:
            yield Client(upstream, server)


async def read(answer: Reply) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks()])


@pytest.mark.parametrize("loop", LOOPS)
def test_a_reply_that_came_whole_before_a_reset_is_whole_and_gives_its_slot_back(loop: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", b"all of it"))
        await reset.wait()
        peer = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionResetError

    async def work() -> None:
        async with client(script, None) as here:
            # So large that its connection was told to be patient, which is taken back at its end.
            answer = await here.send("/v2/a", body=b"x" * 40_000)
            reset.set()
            await until(lambda: here.server.closed == 1)
            await asyncio.sleep(0.05)  # for what is sent by the kernel alone
            assert await read(answer) == b"all of it"
            async with asyncio.timeout(SOON):
                await here.upstream.slots.acquire()

    reset = asyncio.Event()
    in_loop(loop, work())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("loop", LOOPS)
def test_who_is_evicted_reads_on_at_nobodys_expense(loop: str, tls: bool, ca_file: Path) -> None:
    """A whole reply's connection is given to another request, whose client may take its reply as slowly as it likes."""
    size = 5_000_000

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", b"x" * (size if message.head.target == "/v2/large" else 50_000)))

    async def work() -> None:
        async with client(script, ca_file if tls else None) as here:
            evicted = await here.send("/v2/small")
            await until(lambda: here.read_ahead == 50_000)
            answer = await here.send("/v2/large")
            await until(lambda: here.read_ahead >= READ_AHEAD)
            come = here.read_ahead
            assert evicted.read_nowait() == b"x" * 50_000
            await asyncio.sleep(0.05)
            assert here.read_ahead == come, "it is nobody else's to ask for more"
            assert len(await read(answer)) == size
            assert here.server.connections == 1

    in_loop(loop, work())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("loop", LOOPS)
def test_what_comes_behind_a_reply_that_nobody_has_taken_is_no_reply(loop: str, tls: bool, ca_file: Path) -> None:
    """What was read ahead is full, so that what comes behind it was not parsed when the connection goes back."""
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/next":
            writer.write(reply("200 OK", b"true"))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % READ_AHEAD + b"x" * (READ_AHEAD - 100))
        await go_on.wait()
        writer.write(b"x" * 100 + reply("200 OK", b"forged"))

    async def work() -> None:
        async with client(script, ca_file if tls else None) as here:
            answer = await here.send("/v2/first", body=b"x" * 40_000)  # so that it takes an option back, too
            await until(lambda: here.read_ahead == READ_AHEAD - 100)
            go_on.set()
            await until(lambda: here.read_ahead == READ_AHEAD)
            await asyncio.sleep(0.05)
            answer.close()
            assert await read(await here.send("/v2/next")) == b"true"
            assert here.server.connections == 2

    in_loop(loop, work())


@pytest.mark.parametrize("size", [10, READ_AHEAD], ids=["small", "as much as is read ahead"])
@pytest.mark.parametrize("loop", LOOPS)
def test_an_end_that_came_with_a_reply_is_known_with_it(loop: str, size: int, ca_file: Path) -> None:
    """``close_notify`` came in one piece with the reply: a POST that went out on that connection would be lost."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = serving().wrap_bio(incoming, outgoing, server_side=True)

        async def step(do: Callable[[], object]) -> None:
            while True:
                try:
                    do()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
                else:
                    return

        await step(tls.do_handshake)
        await step(lambda: tls.read(65536))
        tls.write(reply("200 OK", b"x" * size))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        writer.write(outgoing.read())
        await reader.read()

    async def work() -> None:
        async with Listener(serve) as server:
            url = f"https://127.0.0.1:{server.port}"
            async with Upstream(UpstreamSettings(api_url=url, accounts_url=url, ca_file=ca_file)) as upstream:
                for _ in range(3):
                    answer = await send(upstream, "/v2/a", body=b"once")
                    await until(lambda: [len(each.reply.body) for each in upstream.slots.round_trips] == [size])
                    answer.close()
        assert server.connections == 3

    in_loop(loop, work())
