"""Which connections of the pool are used again: after a sleep, a silence, and where nothing comes back any more."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from slproxy.app import App
from slproxy.upstream.reuse import KEEPALIVE_IDLE, MAX_SILENCE, UNACKNOWLEDGED_TIMEOUT, Era, may_carry, watch_peer
from tests.support.blackhole import needs_linux, sockets_to, swallow
from tests.support.clock import FakeTime
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, read_message, reply
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("made_in", "repeatable", "idle", "heard", "carries"),
    [
        pytest.param(3, True, 0.5, 0.0, True, id="used just now"),
        pytest.param(3, True, 49.0, KEEPALIVE_IDLE, True, id="idle for long, and its peer has answered the kernel"),
        pytest.param(3, False, 49.0, KEEPALIVE_IDLE, True, id="the same for a POST"),
        pytest.param(3, True, 49.0, MAX_SILENCE, False, id="its peer has not answered the kernel"),
        pytest.param(3, False, 49.0, MAX_SILENCE, False, id="the same for a POST"),
        pytest.param(3, True, 49.0, None, True, id="idle for long, and the kernel does not tell"),
        pytest.param(3, False, 49.0, None, False, id="which a POST does not risk"),
        pytest.param(3, False, 0.5, None, True, id="but where it was used just now"),
        pytest.param(2, True, 0.5, 0.0, False, id="older than a sleep"),
        pytest.param(2, False, 0.5, 0.0, False, id="the same for a POST"),
    ],
)
def test_what_may_go_on_a_pooled_connection(
    made_in: int, repeatable: bool, idle: float, heard: float | None, carries: bool
) -> None:
    assert may_carry(made_in=made_in, era=3, repeatable=repeatable, idle=idle, heard=heard) is carries


@pytest.mark.parametrize(
    ("looks", "eras"),
    [
        pytest.param([0.0, 0.0, 0.0001, 0.0], [0, 0, 0, 0], id="clocks that stay together"),
        pytest.param([0.0, 3600.0, 3600.0, 3600.0], [0, 1, 1, 1], id="one sleep"),
        pytest.param([5.0, 6.5, 6.5, 36.0], [0, 1, 1, 2], id="two sleeps"),
        pytest.param([9.0, 9.4, 9.8, 10.2], [0, 0, 0, 0], id="a wall clock that is slewed"),
        pytest.param([9.0, 9.0, -600.0, -600.0], [0, 0, 1, 1], id="a wall clock that is set"),
    ],
)
def test_an_era_ends_where_the_clocks_part(looks: list[float], eras: list[int]) -> None:
    left = [looks[0], *looks]
    era = Era(lambda: left.pop(0))
    assert [era.current() for _ in looks] == eras
    left = [looks[-1]]
    era.end()
    assert era.current() == eras[-1] + 1


@dataclass
class Machine:
    """A machine that can sleep."""

    slept: float = 0.0


@asynccontextmanager
async def machine(
    script: Handler | None = None, *, response_timeout: float = 60.0, whole: bool = True
) -> AsyncIterator[tuple[Machine, ScriptedUpstream, App]]:
    """Run a proxy on a machine; waits between attempts cost no time."""
    this = Machine()
    clock = replace(FakeTime().clock(), suspended=lambda: this.slept)
    async with ScriptedUpstream(script, whole=whole) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, upstream=replace(settings.upstream, response_timeout=response_timeout))
        async with proxy(settings, clock=clock) as app:
            yield this, upstream, app


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_after_a_sleep_no_connection_from_before_is_used(method: str) -> None:
    async with machine() as (this, upstream, app):
        for _ in range(2):
            await raw(app.urls[0], get("/v2/a", method=method))
        assert upstream.connections == 1, "else there is nothing to show"
        this.slept += 3600.0
        for _ in range(2):
            assert (await raw(app.urls[0], get("/v2/a", method=method))).head.status == 200
        assert upstream.connections == 2
        await until(lambda: upstream.closed == 1)


def answers_once(connections: dict[int, int]) -> Handler:
    """Return a script that answers the first request of each connection, all together, and no other one."""
    gate = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = writer.get_extra_info("peername")[1]
        connections[number] = connections.get(number, 0) + 1
        if len(connections) == 6:
            gate.set()
        await gate.wait()
        if connections[number] == 1:
            writer.write(reply())

    return script


async def test_after_a_timeout_no_connection_of_the_same_age_is_tried() -> None:
    connections: dict[int, int] = {}
    async with machine(answers_once(connections), response_timeout=0.3) as (_, _, app):
        await asyncio.gather(*(raw(app.urls[0], get(f"/v2/{number}")) for number in range(6)))
        answer = await raw(app.urls[0], get("/v2/a"))
    assert answer.head.status == 200
    assert answer.head.get("X-Slproxy-Attempts") == "2"
    assert sorted(connections.values()) == [1] * 6 + [2]


def options(upstream: ScriptedUpstream, *names: tuple[int, int]) -> list[list[int]]:
    """Return socket options of the connections to an upstream."""
    found = sockets_to(upstream.port)
    try:
        return [[sock.getsockopt(level, name) for level, name in names] for sock in found]
    finally:
        for sock in found:
            sock.close()


@needs_linux
async def test_the_kernel_watches_for_the_end_of_an_upstream_but_of_none_that_takes_an_upload_slowly() -> None:
    timeout, keepalive = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle = (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    watched = [int(UNACKNOWLEDGED_TIMEOUT * 1000), 1, KEEPALIVE_IDLE]
    uploading, reads_on = asyncio.Event(), asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uploading.set()
        if message.head.method == "POST":
            await reads_on.wait()
            await reader.readexactly(int(message.head.get("Content-Length") or 0))
        writer.write(reply())

    async with machine(script, whole=False) as (_, upstream, app):
        await raw(app.urls[0], get("/v2/a"))
        assert options(upstream, timeout, keepalive, idle) == [watched]
        # Streamed, and sent at once.
        for size in (100_000, 60_000):
            uploading.clear()
            reads_on.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
            writer.write(get("/v2/a", f"Content-Length: {size}", method="POST") + b"a" * size)
            await uploading.wait()
            assert options(upstream, timeout, keepalive, idle) == [[0, 1, KEEPALIVE_IDLE]]
            reads_on.set()
            assert (await read_message(reader)).head.status == 200
            writer.close()
            await until(lambda: options(upstream, timeout, keepalive, idle) == [watched])
        assert upstream.connections == 1


def test_a_connection_that_takes_no_option_any_more_is_no_fault_of_its_own() -> None:
    """As on macOS, where the peer has gone: a request that was not sent would count as one that may have been."""
    sock = socket.socket()
    sock.close()
    watch_peer(sock)


@pytest.fixture
def long(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--long"):
        pytest.skip("waits for the kernel's timers: --long")


def forgotten_on(forget: Callable[[], bool]) -> Handler:
    """Return a script that answers, and swallows what comes after on each connection that there is by then."""

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply())
        await writer.drain()
        if forget():
            swallow(writer)

    return script


@needs_linux
@pytest.mark.usefixtures("long")
async def test_a_request_on_a_connection_that_the_network_has_forgotten_is_answered_on_another() -> None:
    async with machine(forgotten_on(lambda: upstream.connections == 1)) as (_, upstream, app):
        await raw(app.urls[0], get("/v2/a"))
        began = time.monotonic()
        answer = await raw(app.urls[0], get("/v2/a"), timeout=30.0)
        took = time.monotonic() - began
        assert (answer.head.status, upstream.connections) == (200, 2)
        assert took < UNACKNOWLEDGED_TIMEOUT + 4.0


@needs_linux
async def test_no_post_is_lost_on_a_connection_that_the_network_has_forgotten_a_while_ago() -> None:
    async with machine(forgotten_on(lambda: upstream.connections == 1)) as (_, upstream, app):
        await raw(app.urls[0], get("/v2/a"))
        await asyncio.sleep(MAX_SILENCE + 0.5)
        began = time.monotonic()
        answer = await raw(app.urls[0], get("/v2/a", method="POST"))
        assert (answer.head.status, upstream.connections) == (200, 2)
        assert time.monotonic() - began < UNACKNOWLEDGED_TIMEOUT / 2
    assert [message.head.method for message in upstream.seen] == ["GET", "POST"]


@needs_linux
async def test_a_connection_whose_peer_is_there_is_used_however_long_it_was_idle() -> None:
    async with machine() as (_, upstream, app):
        await raw(app.urls[0], get("/v2/a"))
        await asyncio.sleep(MAX_SILENCE + 0.5)
        assert (await raw(app.urls[0], get("/v2/a", method="POST"))).head.status == 200
        assert upstream.connections == 1


@needs_linux
@pytest.mark.usefixtures("long")
async def test_an_upload_that_the_upstream_does_not_read_for_a_while_goes_on() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(UNACKNOWLEDGED_TIMEOUT + 4.0)
        await reader.readexactly(8_000_000)
        writer.write(reply())

    async with machine(script, whole=False) as (_, upstream, app):
        answer = await raw(app.urls[0], get("/v2/a", method="POST", body=b"a" * 8_000_000), timeout=40.0)
        assert (answer.head.status, upstream.connections) == (200, 1)
