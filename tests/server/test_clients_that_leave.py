"""Clients that leave while their requests wait, and clients that only close their half of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.config import LimitSettings, ListenSettings
from slproxy.observe import Exchange, Listener
from slproxy.sandbox import Sandbox
from slproxy.server.server import WATCH_EVERY
from slproxy.store import MemoryStore
from tests.support.commands import run_here
from tests.support.listener import relay
from tests.support.pacing import Line, ManualClock
from tests.support.pair import chunked
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message, get, port_of, read_message, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import SOON, until

KIB = 1024
DISK = 256 * KIB


def posted(size: int, *headers: str) -> bytes:
    return get("/v2/people", *headers, method="POST", body=b"x" * size)


BODIES = {
    "none": get("/v2/people", "Content-Length: 0", method="POST"),
    "small": posted(100),
    "70 kB": posted(70_000),
    "200 kB": posted(200_000),
    "larger than what is kept": posted(2 * DISK),
    "chunks": get("/v2/people", "Transfer-Encoding: chunked", method="POST") + chunked(b"x" * 100),
    "many chunks": get("/v2/people", "Transfer-Encoding: chunked", method="POST") + chunked(*[b"x" * 10_000] * 20),
    "a part of it": posted(200_000)[:100_000],
    "none yet": get("/v2/people", "Expect: 100-continue", "Content-Length: 70000", method="POST"),
    "requests behind it": posted(100) + get("/v2/people", method="DELETE") * 1000,
    "an upload behind it": posted(100) + posted(300_000),
}


def closes(client: socket.socket) -> None:
    client.close()


def resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def closes_its_half_first(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    client.close()


WAYS: dict[str, Callable[[socket.socket], None]] = {
    "closes": closes,
    "resets": resets,
    "closes its half first": closes_its_half_first,
}


def connected(url: str, request: bytes) -> socket.socket:
    """Send what the kernel takes of a request, and return the socket."""
    if url.startswith("unix:"):
        client = socket.socket(socket.AF_UNIX)
        client.connect(url.removeprefix("unix:"))
    else:
        client = socket.create_connection(("127.0.0.1", port_of(url)))
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while request:
            request = request[client.send(request) :]
    return client


async def answered(client: socket.socket) -> Message:
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        async with asyncio.timeout(SOON):
            return await read_message(reader)
    finally:
        writer.close()


@contextlib.contextmanager
def killed_client(url: str, request: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Send a request from another process, which waits for its answer until it is killed."""
    script = (
        "import socket, sys\n"
        "with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as client:\n"
        "    client.sendall(sys.stdin.buffer.read())\n"
        "    client.recv(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(port_of(url))], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(request)
        process.stdin.close()
        try:
            yield process
        finally:
            process.kill()


class Ended(Listener):
    """How the requests ended."""

    def __init__(self) -> None:
        self.ended: list[Exchange] = []

    def request_ended(self, exchange: Exchange) -> None:
        self.ended.append(exchange)


def requests(line: Line) -> dict[str, int]:
    told = line.app.own_pages.state()["requests"]
    assert isinstance(told, dict)
    return told


@asynccontextmanager
async def exhausted(tmp_path: Path, *, unix: bool = False) -> AsyncIterator[tuple[Line, Sandbox, Ended]]:
    """Run a proxy whose budget is spent, a second before the next minute."""
    ended, clock = Ended(), ManualClock(59)
    async with running_sandbox(clock=clock) as sandbox:
        settings = replace(
            settings_for(sandbox.url),
            limits=LimitSettings(replay_memory=64 * KIB, replay_disk=DISK, max_headers=4 * KIB),
        )
        if unix:
            settings = replace(settings, listen=ListenSettings(uds=str(tmp_path / "s")))
        async with proxy(settings, clock=clock.proxys(), listeners=[ended]) as app:
            line = Line(app, clock)
            sandbox.spend(sandbox.remaining() - 1)
            assert (await answered(connected(line.url, get("/v2/me", "Connection: close")))).head.status == 200
            ended.ended.clear()
            yield line, sandbox, ended


def writes(sandbox: Sandbox) -> list[str]:
    return [request.method for request in sandbox.requests if request.method != "GET"]


# Leaving.


@pytest.mark.parametrize("when", ["seen while they wait", "seen right before they would be sent"])
@pytest.mark.parametrize("unix", [False, True], ids=["TCP", "Unix"])
async def test_no_write_is_sent_for_a_client_that_has_left(unix: bool, when: str, tmp_path: Path) -> None:
    """Held for the budget, whatever the body and the way the client goes (docs/contract.md, Clients that leave)."""
    async with exhausted(tmp_path, unix=unix) as (line, sandbox, ended):
        clients = [(connected(line.url, request), leave) for request in BODIES.values() for leave in WAYS.values()]
        await until(lambda: line.held == len(clients))
        for client, leave in clients:
            leave(client)
        if when == "seen while they wait":
            await until(lambda: requests(line)["in_flight"] == 0, timeout=SOON)
        line.clock.advance(1.0)
        await until(lambda: requests(line)["in_flight"] == 0, timeout=SOON)
        assert writes(sandbox) == []
        assert requests(line)["spared"] == len(clients)
        assert {(exchange.aborted, exchange.status) for exchange in ended.ended} == {("client left while waiting", 499)}
        assert line.budget["in_flight"] == 0
        # And nobody has lost its place to them.
        assert (await answered(connected(line.url, posted(70_000, "Connection: close")))).head.status == 200
        assert writes(sandbox) == ["POST"]


async def test_no_write_is_sent_for_a_client_that_was_killed_and_status_tells(tmp_path: Path) -> None:
    async with exhausted(tmp_path) as (line, sandbox, _):
        with killed_client(line.url, posted(200_000)) as client:
            await until(lambda: line.held == 1)
            client.send_signal(signal.SIGKILL)
            await until(lambda: line.held == 0, timeout=SOON)
        line.clock.advance(1.0)
        await until(lambda: requests(line)["in_flight"] == 0, timeout=SOON)
        assert (writes(sandbox), requests(line)["spared"]) == ([], 1)
        env = {"SLPROXY_LISTEN__PORT": str(port_of(line.url)), "SALESLOFT_API_KEY": API_KEY}
        code, out, _ = await run_here("status", home=tmp_path, env=env)
        assert code == 0
        assert "spared    1 request not sent: the client left while it waited\n" in out


async def test_a_write_that_waits_for_a_connection_is_not_sent_for_a_client_that_has_left() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    go_on = asyncio.Event()
    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, upstream=replace(settings.upstream, max_connections=1))
        async with proxy(settings) as app:
            line = Line(app)
            first = connected(line.url, get("/v2/first"))
            await until(lambda: len(upstream.seen) == 1)
            clients = [connected(line.url, posted(70_000)) for _ in WAYS]
            await until(lambda: requests(line)["in_flight"] == 1 + len(clients))
            for client, leave in zip(clients, WAYS.values(), strict=True):
                leave(client)
            await until(lambda: requests(line)["in_flight"] == 1, timeout=SOON)
            go_on.set()
            assert (await answered(first)).head.status == 200
            assert (await answered(connected(line.url, get("/v2/last")))).head.status == 200
            assert requests(line)["spared"] == len(clients)
    assert [message.head.target for message in upstream.seen] == ["/v2/first", "/v2/last"]


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
async def test_a_write_that_waits_to_be_sent_again_is_not_for_a_client_that_has_left(status: str) -> None:
    clock = ManualClock(10)
    async with ScriptedUpstream(replies(reply(status, b"{}", "Retry-After: 5"))) as upstream:
        async with proxy(settings_for(upstream.url), clock=clock.proxys()) as app:
            line = Line(app)
            for turn, leave in enumerate(WAYS.values(), start=1):
                client = connected(line.url, get("/v2/a", method="PUT", body=b"x" * 100) + posted(300_000))
                await until(lambda turn=turn: len(upstream.seen) == turn and clock.sleeping + line.held == 1)  # type: ignore[misc]
                leave(client)
                await until(lambda: requests(line)["in_flight"] == 0, timeout=SOON)
                clock.advance(60.0)
            assert requests(line)["spared"] == len(WAYS)
        assert len(upstream.seen) == len(WAYS)


async def test_a_write_that_waits_for_a_token_is_not_sent_for_a_client_that_has_left_and_the_token_is_kept() -> None:
    async def hold(data: bytes) -> bytes:
        asked.set()
        await go_on.wait()
        return data

    asked, go_on = asyncio.Event(), asyncio.Event()
    store = MemoryStore()
    async with running_sandbox() as sandbox, relay(port_of(sandbox.url), asked=hold) as port:
        accounts = f"http://127.0.0.1:{port}"
        await store.write(replace(login_at(sandbox, lifetime=-1.0), accounts_url=accounts))
        settings = replace(settings_for(sandbox.url, accounts=accounts), auth=sandbox_auth(sandbox))
        async with proxy(settings, store=store) as app:
            line = Line(app)
            clients = [connected(line.url, posted(70_000)) for _ in WAYS]
            await asked.wait()
            await until(lambda: requests(line)["in_flight"] == len(clients))
            for client, leave in zip(clients, WAYS.values(), strict=True):
                leave(client)
            await until(lambda: requests(line)["in_flight"] == 0, timeout=SOON)
            go_on.set()
            assert (await answered(connected(line.url, get("/v2/me")))).head.status == 200
            assert (requests(line)["spared"], writes(sandbox)) == (len(clients), [])
            assert (record := await store.read()) is not None
            assert record.generation == 2


# Closing a half.


HALVES = {
    "GET": get("/v2/a"),
    "POST": posted(100),
    "a POST of 200 kB": posted(200_000),
    "chunks": BODIES["chunks"],
    "HTTP/1.0": b"GET /v2/a HTTP/1.0\r\nHost: localhost\r\n\r\n",
}


async def half_closed(url: str, request: bytes) -> socket.socket:
    """Send a request and close the half that sent it, as ``nc -N`` does."""
    client = connected(url, b"")
    await asyncio.get_running_loop().sock_sendall(client, request)
    client.shutdown(socket.SHUT_WR)
    return client


@pytest.mark.parametrize("unix", [False, True], ids=["TCP", "Unix"])
async def test_a_client_that_closes_its_half_is_answered_however_long_it_takes(unix: bool, tmp_path: Path) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.2)
        writer.write(reply())

    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url)
        if unix:
            settings = replace(settings, listen=ListenSettings(uds=str(tmp_path / "s")))
        async with proxy(settings) as app:
            line = Line(app)
            clients = await asyncio.gather(*(half_closed(line.url, request) for request in HALVES.values()))
            answers = await asyncio.gather(*map(answered, clients))
            assert [answer.head.status for answer in answers] == [200] * len(HALVES)
            assert {answer.head.get("Connection") for answer in answers} == {"close"}
            await until(lambda: requests(line)["in_flight"] == 0, timeout=SOON)
    assert len(upstream.seen) == len(HALVES)


@pytest.mark.parametrize("unix", [False, True], ids=["TCP", "Unix"])
async def test_a_client_that_closes_its_half_is_answered_though_it_was_held(unix: bool, tmp_path: Path) -> None:
    async with exhausted(tmp_path, unix=unix) as (line, sandbox, _):
        clients = await asyncio.gather(*(half_closed(line.url, posted(size)) for size in (0, 100, 70_000)))
        await until(lambda: line.held == len(clients))
        await asyncio.sleep(3 * WATCH_EVERY)
        line.clock.advance(1.0)
        assert {answer.head.status for answer in await asyncio.gather(*map(answered, clients))} <= {200, 422}
        assert (len(writes(sandbox)), requests(line)["spared"]) == (len(clients), 0)


@pytest.mark.parametrize("unix", [False, True], ids=["TCP", "Unix"])
async def test_a_client_that_closes_the_other_half_as_well_ends_the_request_upstream(
    unix: bool, tmp_path: Path
) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        raise ConnectionResetError

    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url)
        if unix:
            settings = replace(settings, listen=ListenSettings(uds=str(tmp_path / "s")))
        async with proxy(settings, listeners=[ended := Ended()]) as app:
            client = await half_closed(app.urls[0], get("/v2/a"))
            await until(lambda: len(upstream.seen) == 1)
            await asyncio.sleep(2 * WATCH_EVERY)
            assert upstream.closed == 0
            client.close()
            await until(lambda: upstream.closed == 1, timeout=SOON)
            # It was sent: nothing was spared.
            await until(lambda: requests(Line(app))["in_flight"] == 0)
            assert requests(Line(app))["spared"] == 0
            assert [exchange.aborted for exchange in ended.ended] == ["client left"]


async def test_where_nothing_tells_whether_a_client_still_waits_a_held_write_is_not_sent_and_what_is_safe_is(
    tmp_path: Path,
) -> None:
    """As a client on another machine looks: the kernel does not know its socket."""
    async with exhausted(tmp_path) as (line, sandbox, _):
        assert line.app.server is not None
        line.app.server.peers.close()
        # What is below is not held: a client that ends with its request is answered.
        line.clock.advance(1.0)
        assert (await answered(await half_closed(line.url, posted(100)))).head.status == 200
        sandbox.spend(sandbox.remaining() - 1)
        assert (await answered(connected(line.url, get("/v2/me", "Connection: close")))).head.status == 200
        reads = await asyncio.gather(
            *(half_closed(line.url, get("/v2/me", method=name)) for name in ("GET", "OPTIONS"))
        )
        held = [await half_closed(line.url, posted(size)) for size in (0, 100, 70_000)]
        await until(lambda: (line.held, requests(line)["spared"]) == (len(reads), len(held)), timeout=SOON)
        line.clock.advance(60.0)
        answers = await asyncio.gather(*map(answered, reads))
        assert [answer.head.status for answer in answers] == [200, 404]
        assert writes(sandbox) == ["POST", "OPTIONS"]
        for client in held:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            client.close()


async def test_where_the_end_of_a_client_is_behind_a_large_body_the_last_of_it_is_not_sent(tmp_path: Path) -> None:
    """As a client on another machine looks: its end stays there until there is room for all of its body."""
    async with exhausted(tmp_path) as (line, sandbox, _):
        assert line.app.server is not None
        line.app.server.peers.close()
        chunks = get("/v2/people", "Transfer-Encoding: chunked", method="POST") + chunked(*[b"x" * 10_000] * 150)
        clients = [connected(line.url, request) for request in (posted(1_500_000), chunks)]
        await until(lambda: line.held == len(clients))
        await asyncio.sleep(3 * WATCH_EVERY)
        for client in clients:
            client.close()
        await asyncio.sleep(2 * WATCH_EVERY)
        assert line.held == len(clients)  # nothing tells
        line.clock.advance(1.0)
        await until(lambda: requests(line)["in_flight"] == 0, timeout=SOON)
        await asyncio.sleep(0.1)
        assert [request.status for request in sandbox.requests if request.method == "POST"] in (
            [],
            [None],
            [None, None],
        )
