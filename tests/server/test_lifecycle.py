"""The life of the process: what keeps it from starting, what it does on the way down, and what is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.app import GRACE
from slproxy.config import ListenSettings
from tests.support.programs import Program, program, run, spawn
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, read_message, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import SLACK, SOON, until

PIECE = b"x" * 65536
# Held until the client or the proxy leaves.
FOR_EVER = 3600.0


def pointed_at(url: str, **more: str) -> dict[str, str]:
    return {
        "SALESLOFT_API_KEY": API_KEY,
        "SLPROXY_UPSTREAM__API_URL": url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": url,
        "SLPROXY_STORE__KIND": "memory",
        "SLPROXY_LOG__FORMAT": "json",
        **more,
    }


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    if url.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix:"))
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def asked(url: str, target: str = "/v2/a") -> Message:
    async with asyncio.timeout(SOON), connected(url) as (reader, writer):
        writer.write(get(target))
        return await read_message(reader)


async def rest(reader: asyncio.StreamReader, *, timeout: float = SOON) -> tuple[bytes, str]:
    """Return what still comes, and how it ends: ``closed`` or ``reset``."""
    got = bytearray()
    async with asyncio.timeout(timeout):
        try:
            while piece := await reader.read(65536):
                got += piece
        except ConnectionError:
            return bytes(got), "reset"
    return bytes(got), "closed"


async def together(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Run what waits at the same time."""
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


def told(running: Program) -> list[dict[str, object]]:
    """Return what it logged; whatever else it says is not JSON."""
    return [json.loads(line) for line in running.errors if line.startswith("{")]


def no_defect_in(running: Program) -> None:
    assert not re.search(r"Traceback|never awaited|never retrieved|defect|was destroyed", running.output), (
        running.output
    )


# On the way down.


async def goes_down(number: signal.Signals, home: Path) -> None:
    idle_are_closed = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target.startswith("/v2/slow"):
            await idle_are_closed.wait()
        writer.write(reply(body=message.head.target.encode()))

    async with (
        ScriptedUpstream(script) as upstream,
        program("serve", "--port", "0", home=home, env=pointed_at(upstream.url)) as running,
        contextlib.AsyncExitStack() as stack,
    ):
        busy = [await stack.enter_async_context(connected(running.url)) for _ in range(20)]
        idle = [await stack.enter_async_context(connected(running.url)) for _ in range(5)]
        for reader, writer in [*busy[:10], *idle[:4]]:  # some have asked before, some have not
            writer.write(get("/v2/before"))
            assert (await read_message(reader)).head.status == 200
        idle[3][1].write(b"GET /v2/half HT")
        for turn, (_, writer) in enumerate(busy):
            writer.write(get(f"/v2/slow/{turn}"))
        await until(lambda: sum("slow" in message.head.target for message in upstream.seen) == 20)

        running.process.send_signal(number)
        assert await asyncio.gather(*(rest(reader) for reader, _ in idle)) == [(b"", "closed")] * 5
        assert running.process.returncode is None
        with pytest.raises(ConnectionError):
            await asked(running.url)
        idle_are_closed.set()
        answers = await asyncio.gather(*(read_message(reader) for reader, _ in busy))
        async with asyncio.timeout(SOON):
            assert await running.process.wait() == 0
    assert [(answer.head.status, answer.body.decode()) for answer in answers] == [
        (200, f"/v2/slow/{turn}") for turn in range(20)
    ]
    # So that nobody sends another request on a connection that is about to go (RFC 9112 §9.6).
    assert {answer.head.get("Connection") for answer in answers} == {"close"}
    assert [line["status"] for line in told(running) if str(line.get("path")).startswith("/v2/slow")] == [200] * 20
    no_defect_in(running)


async def test_a_signal_lets_calls_in_flight_finish_and_closes_idle_connections_at_once(tmp_path: Path) -> None:
    """docs/hazards.md, D1."""
    homes = {number: tmp_path / number.name for number in (signal.SIGTERM, signal.SIGINT)}
    for home in homes.values():
        home.mkdir()
    await together(goes_down(number, home) for number, home in homes.items())


async def holding(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer nothing, or without end, until the other side leaves."""
    match message.head.target:
        case "/v2/silent" | "/v2/up":
            while await reader.read(65536):
                pass
            raise ConnectionResetError
        case "/v2/length":
            writer.write(reply("200 OK", b"", f"Content-Length: {2**40}", length=False))
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        case "/v2/stream":
            writer.write(reply("200 OK", b"", "Transfer-Encoding: chunked", length=False))
            while True:
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        case _:
            writer.write(reply())


HELD = {
    "silent": get("/v2/silent"),
    "length": get("/v2/length"),
    "chunks": get("/v2/stream"),
    # Only a reset tells that such a body is not whole: its regular end is the connection's (RFC 9112 §8).
    "until close": b"GET /v2/stream HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "upload": get("/v2/up", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n",
}


def never_looks_whole(what: str, got: bytes, ended: str) -> None:
    """Hold what a client got of a reply that was cut off to being no reply, or not a whole one."""
    assert not got.endswith(b"0\r\n\r\n"), what
    if what == "until close":
        assert ended == "reset"
    if what in ("silent", "upload"):
        assert got == b"", what


@asynccontextmanager
async def held(
    url: str, upstream: ScriptedUpstream
) -> AsyncIterator[dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """Hold one request of each kind in flight."""
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for what, request in HELD.items():
            clients[what] = await stack.enter_async_context(connected(url))
            clients[what][1].write(request)
        await until(lambda: len(upstream.seen_of_clients) == len(HELD))
        for what in ("length", "chunks", "until close"):
            await clients[what][0].readuntil(b"\r\n\r\n")
        yield clients


async def cut_by_a_second_signal(first: signal.Signals, second: signal.Signals, home: Path) -> None:
    async with (
        ScriptedUpstream(holding, whole=False) as upstream,
        program("serve", "--port", "0", home=home, env=pointed_at(upstream.url)) as running,
        held(running.url, upstream) as clients,
    ):
        running.process.send_signal(first)
        await until(lambda: any("shutting down" in line for line in running.errors))
        await asyncio.sleep(0.2)
        assert running.process.returncode is None
        began = time.monotonic()
        await running.stop(second)
        assert time.monotonic() - began < 1.0 + SLACK
        for what, (reader, _) in clients.items():
            never_looks_whole(what, *await rest(reader))
        await until(lambda: upstream.closed == upstream.connections)
    ends = {str(line["path"]): line.get("ended") for line in told(running) if "path" in line}
    ends.pop("/v2/me.json", None)  # the proxy's own request, at its start
    assert set(ends.values()) == {"shut down"}
    no_defect_in(running)


async def test_a_second_signal_cuts_whatever_is_in_flight_and_nothing_of_it_looks_whole(tmp_path: Path) -> None:
    pairs = [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)]
    homes = [tmp_path / str(number) for number in range(len(pairs))]
    for home in homes:
        home.mkdir()
    await together(cut_by_a_second_signal(*signals, home) for signals, home in zip(pairs, homes, strict=True))


async def test_what_has_no_end_is_cut_off_when_the_patience_of_the_way_down_is_over() -> None:
    async with ScriptedUpstream(holding, whole=False) as upstream:
        settings = settings_for(upstream.url)
        async with contextlib.AsyncExitStack() as stack:
            app = await stack.enter_async_context(proxy(settings))
            clients = await stack.enter_async_context(held(app.urls[0], upstream))
            assert app.server is not None
            began = time.monotonic()
            assert await app.server.drain(0.3) is False
            assert 0.3 <= time.monotonic() - began < 0.3 + SLACK
            assert app.server.in_flight == len(HELD)
            # The stack ends with the clients, which are to see how the proxy ends.
            ends = [asyncio.create_task(rest(reader)) for reader, _ in clients.values()]
            await app.__aexit__(None, None, None)
            for what, end in zip(clients, ends, strict=True):
                never_looks_whole(what, *await end)
        await until(lambda: upstream.closed == upstream.connections)


async def test_a_signal_cuts_an_endless_stream_after_30_seconds_and_no_sooner(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    if not pytestconfig.getoption("--long"):
        pytest.skip("takes half a minute: --long")
    async with (
        ScriptedUpstream(holding, whole=False) as upstream,
        program("serve", "--port", "0", home=tmp_path, env=pointed_at(upstream.url)) as running,
        held(running.url, upstream) as clients,
    ):
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GRACE + 10.0):
            ends = await asyncio.gather(*(rest(reader, timeout=GRACE + 10.0) for reader, _ in clients.values()))
            assert await running.process.wait() == 0
        assert GRACE - 0.1 < time.monotonic() - began < GRACE + 2 * SLACK
        for what, (got, ended) in zip(clients, ends, strict=True):
            never_looks_whole(what, got, ended)
    no_defect_in(running)


# Starting.


async def test_a_start_with_the_api_down_works_and_once_it_is_up_it_is_used(tmp_path: Path) -> None:
    """The same with both hosts down and a token to be had first is among the faults."""
    async with ScriptedUpstream() as gone:
        url = gone.url

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply("200 OK", b"{}", "Connection: close"))
        writer.close()

    async with program("serve", "--port", "0", home=tmp_path, env=pointed_at(url)) as running:
        assert (await asked(running.url, "/_slproxy/healthz")).head.status == 200
        request = get("/v2/a", "X-Slproxy-Retry: off")
        down = await raw(running.url, request)
        assert (down.head.status, down.head.get("Proxy-Status")) == (502, "slproxy; error=connection_refused")
        async with await asyncio.start_server(answer, "127.0.0.1", port_of(url)):
            up = await raw(running.url, request)
            assert (up.head.status, up.head.get("Proxy-Status")) == (200, None)
        assert await running.stop() == 0
    no_defect_in(running)


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "192.0.2.1"), ("no-such-name.invalid", "no-such-name.invalid")],
    ids=["not of this machine", "no such name"],
)
async def test_an_address_that_cannot_be_had_is_told_and_no_traceback(tmp_path: Path, host: str, said: str) -> None:
    env = pointed_at("http://127.0.0.1:9", SLPROXY_LISTEN__KEY="a-local-key-of-some-length")
    code, out, err = await run("serve", "--host", host, "--port", "0", home=tmp_path, env=env)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert "Unknown error" not in err


async def test_a_socket_file_of_a_living_process_is_left_alone_and_told(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url)
        async with program("serve", "--uds", str(path), home=tmp_path, env=env) as running:
            before = path.stat()
            code, out, err = await run("serve", "--uds", str(path), home=tmp_path, env=env)
            assert (code, out) == (2, "")
            assert str(path) in err
            assert "--uds" in err
            assert "Traceback" not in err
            assert path.stat().st_ino == before.st_ino
            assert (await asked(running.url)).head.status == 200
            assert await running.stop() == 0


async def test_a_socket_file_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url)
        async with program("serve", "--uds", str(path), home=tmp_path, env=env) as killed:
            assert await killed.stop(signal.SIGKILL) == -signal.SIGKILL
        assert path.is_socket()
        async with program("serve", "--uds", str(path), home=tmp_path, env=env) as running:
            assert (await asked(running.url)).head.status == 200
            assert await running.stop() == 0
        assert not path.exists()


async def stays_what_it_was(home: Path, kind: str) -> None:
    path, precious = home / "s", home / "precious"
    precious.write_text("kept")
    if kind == "file":
        path.write_text("kept")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(precious)
    code, out, err = await run("serve", "--uds", str(path), home=home, env=pointed_at("http://127.0.0.1:9"))
    assert (code, out) == (2, ""), kind
    # A folder is a mistake in the settings, which name no value but the flag.
    assert ("listen.uds (flag --uds)" if kind == "folder" else str(path)) in err
    assert "Traceback" not in err
    assert path.is_symlink() == (kind == "link")
    assert path.is_dir() if kind == "folder" else path.read_text() == "kept"


async def test_what_is_no_socket_is_never_replaced_by_one(tmp_path: Path) -> None:
    homes = [tmp_path / kind for kind in ("file", "folder", "link")]
    for home in homes:
        home.mkdir()
    await together(stays_what_it_was(home, home.name) for home in homes)


async def test_one_that_goes_down_leaves_the_socket_file_of_the_one_that_took_over(tmp_path: Path) -> None:
    """A restart: the old one still has requests in flight when the new one finds that nobody listens, and does."""
    path = tmp_path / "s"

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/slow":
            await go_on.wait()
        writer.write(reply())

    go_on = asyncio.Event()
    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url)
        async with (
            program("serve", "--uds", str(path), home=tmp_path, env=env) as old,
            connected(old.url) as (reader, writer),
        ):
            writer.write(get("/v2/slow"))
            await until(lambda: len(upstream.seen_of_clients) == 1)
            old.process.send_signal(signal.SIGTERM)
            await until(lambda: any("shutting down" in line for line in old.errors))
            async with program("serve", "--uds", str(path), home=tmp_path, env=env) as new:
                assert (await asked(new.url)).head.status == 200
                go_on.set()
                assert (await read_message(reader)).head.status == 200
                async with asyncio.timeout(SOON):
                    assert await old.process.wait() == 0
                assert (await asked(new.url)).head.status == 200
                assert await new.stop() == 0


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666], ids=oct)
async def test_a_socket_file_has_its_mode_from_its_first_moment(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "s"
    seen: list[int] = []

    def look(frame: object, event: str, called: object) -> None:
        """Look at the file whenever a call has returned, as somebody who waits for it would (sys.setprofile)."""
        if event == "c_return" and called is not os.lstat:
            with contextlib.suppress(OSError):
                seen.append(stat.S_IMODE(os.lstat(path).st_mode))

    settings = settings_for("http://127.0.0.1:9")
    settings = replace(settings, listen=ListenSettings(uds=str(path), uds_mode=mode))
    before = os.umask(0o022)
    os.umask(before)
    sys.setprofile(look)
    try:
        async with proxy(settings):
            sys.setprofile(None)
    finally:
        sys.setprofile(None)
    assert set(seen) == {mode}
    assert os.umask(before) == before  # as it was


async def ended_in_the_start(home: Path, delay: float) -> tuple[int | None, str]:
    process = await spawn(
        ["serve", "--uds", str(home / "s")], home, pointed_at("http://127.0.0.1:9"), stdin=asyncio.subprocess.DEVNULL
    )
    await asyncio.sleep(delay)
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(SOON):
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    return process.returncode, err.decode()


async def test_a_signal_in_the_start_ends_it_whenever_it_comes(tmp_path: Path) -> None:
    began = time.monotonic()
    async with program("serve", "--port", "0", home=tmp_path, env=pointed_at("http://127.0.0.1:9")) as running:
        starts = time.monotonic() - began
        assert await running.stop() == 0
    # Around the moment where it takes over the signal from the system, and where it begins to listen.
    for share in (0.3, 0.7, 0.85, 1.0):
        home = tmp_path / str(share)
        home.mkdir()
        code, err = await ended_in_the_start(home, starts * share)
        assert code in (0, -signal.SIGTERM, 128 + signal.SIGTERM), (share, err)
        assert "Traceback" not in err, (share, err)
        assert not (home / "s").exists() or code == -signal.SIGTERM, share
