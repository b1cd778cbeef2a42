"""What goes wrong with the place of the token while proxies run on it: no request fails while any token is valid.

Most logins here are soon to be renewed by the proxy's reckoning, and good for hours by SalesLoft's: so a test chooses
when a proxy renews, and what is in force does not hang on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from slproxy.config import Secret
from slproxy.sandbox import Options, Sandbox
from slproxy.store import Record, TokenCipher
from slproxy.store.redis import RedisStore
from slproxy.store.token_store import LOCK_TIMEOUT
from tests.support.commands import state_of
from tests.support.load import Load
from tests.support.programs import Program, run
from tests.support.raw_http import get, port_of, raw
from tests.support.redis import needs_redis, redis_server
from tests.support.replicas import NO_LIMIT, Place, environment_of, in_a_file, in_redis, replicas
from tests.support.sandboxes import login_at, running_sandbox
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy

LIFE = 7200.0
LOCK = "slproxy:lock:default"


@asynccontextmanager
async def salesloft(**options: object) -> AsyncIterator[Sandbox]:
    async with running_sandbox(Options(token_lifetime=LIFE, budget=NO_LIMIT, **options)) as sandbox:  # type: ignore[arg-type]
        yield sandbox


def login(sandbox: Sandbox, *, valid: float) -> Record:
    """Return a login that the proxies take for over in ``valid`` seconds."""
    return login_at(sandbox, now=time.time() + valid - LIFE, lifetime=LIFE)


async def adopted(place: Place, record: Record, proxies: list[Program]) -> None:
    """Store a login, as `slproxy login` does beside running proxies, and see that they have it."""
    await place.store.write(record)
    for reply in await asyncio.gather(*(raw(proxy.url, get("/v2/me.json")) for proxy in proxies)):
        assert reply.head.status == 200, reply.body


async def token_of(proxy: Program) -> dict[str, object]:
    token = (await state_of(proxy))["token"]
    assert isinstance(token, dict)
    return token


async def comes_to(proxy: Program, *, timeout: float = PATIENCE, **wanted: object) -> None:
    """Wait until the proxy tells this of its token."""
    last: dict[str, object] = {}
    try:
        async with asyncio.timeout(timeout):
            while not wanted.items() <= (last := await token_of(proxy)).items():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"wanted {wanted}, it is {last}:\n{proxy.output}") from None


async def stored(place: Place) -> Record:
    kept = await place.store.read()
    assert kept is not None
    return kept


async def generation_in(place: Place) -> int:
    kept = await stored(place)
    assert not kept.refused
    return kept.generation


def token_requests(sandbox: Sandbox) -> list[tuple[str, int | None]]:
    return [(request.grant_type, request.status) for request in sandbox.token_requests]


# The disk.


@dataclass(frozen=True)
class Fault:
    """What keeps a proxy from writing, and what ends that."""

    strike: Callable[[Program], object]
    mend: Callable[[Program], object]


@contextmanager
def a_limit_on_the_size_of_files(folder: Path) -> Iterator[Fault]:
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux sets the limits of a process that runs (prlimit(2))")
    file_size, unlimited = resource.RLIMIT_FSIZE, resource.RLIM_INFINITY
    yield Fault(
        strike=lambda proxy: resource.prlimit(proxy.process.pid, file_size, (100, unlimited)),
        mend=lambda proxy: resource.prlimit(proxy.process.pid, file_size, (unlimited, unlimited)),
    )


def mount(*arguments: str) -> None:
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting takes root on Linux")
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        pytest.skip(f"mount is not allowed here: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True, timeout=PATIENCE)


@contextmanager
def a_full_disk(folder: Path) -> Iterator[Fault]:
    mount("-t", "tmpfs", "-o", "size=64k,mode=700", "slproxy-test", str(folder))
    filler = folder / "filler"

    def fill(proxy: Program) -> None:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 512)

    try:
        yield Fault(strike=fill, mend=lambda proxy: filler.unlink())
    finally:
        unmount(folder)


@contextmanager
def a_read_only_folder(folder: Path) -> Iterator[Fault]:
    if os.geteuid() != 0:
        try:
            yield Fault(strike=lambda proxy: folder.chmod(0o500), mend=lambda proxy: folder.chmod(0o700))
        finally:
            folder.chmod(0o700)
        return
    # Root may write where the mode says no, but not where the mount does.
    mount("--bind", str(folder), str(folder))
    try:
        yield Fault(
            strike=lambda proxy: mount("-o", "remount,bind,ro", str(folder)),
            mend=lambda proxy: mount("-o", "remount,bind,rw", str(folder)),
        )
    finally:
        unmount(folder)


@pytest.mark.parametrize(
    ("breaking", "leeway", "valid"),
    [
        # Long enough for two renewals to fail before it is over: each failure makes the pause to the next one longer.
        pytest.param(a_limit_on_the_size_of_files, 2.4, 4.6, id="a limit on the size of files"),
        pytest.param(a_full_disk, 1.2, 3.0, id="a full disk"),
        pytest.param(a_read_only_folder, 1.2, 3.0, id="a read-only folder"),
    ],
)
async def test_a_proxy_that_cannot_write_goes_on_says_so_and_writes_when_it_can(
    tmp_path: Path, breaking: Callable[[Path], AbstractContextManager[Fault]], leeway: float, valid: float
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o700)
    place = in_a_file(folder / "token.json")
    async with salesloft() as sandbox:
        env = environment_of(place, sandbox, SLPROXY_AUTH__LEEWAY=str(leeway))
        with breaking(folder) as fault:
            async with replicas(1, env, home=tmp_path) as [proxy]:
                # Due between one and a half and two and a half seconds from now: until then it breaks.
                await adopted(place, login(sandbox, valid=valid), [proxy])
                fault.strike(proxy)
                async with Load(proxy.url) as load:
                    await comes_to(proxy, generation=2, valid=True, saved=False)
                    await until(lambda: "The newest token is only in memory." in proxy.output)
                    assert await generation_in(place) == 1

                    ready = await raw(proxy.url, get("/_slproxy/readyz"))
                    told = json.loads(ready.body)
                    assert (ready.head.status, told["status"]) == (200, "ready")
                    assert "only in memory" in told.get("warning", "")
                    at = {"SLPROXY_LISTEN__PORT": str(port_of(proxy.url))}
                    code, out, _ = await run("status", home=tmp_path, env=env | at)
                    assert code == 0
                    assert "only in memory" in out

                    fault.mend(proxy)
                    await comes_to(proxy, saved=True)
                    assert await generation_in(place) == 2
                    told = json.loads((await raw(proxy.url, get("/_slproxy/readyz"))).body)
                    assert told == {"status": "ready"}
                assert load.failed == {}
                assert load.served > 10
                await proxy.stop(signal.SIGKILL)
            async with replicas(1, env, home=tmp_path) as [again]:
                assert (await raw(again.url, get("/v2/me.json"))).head.status == 200
        assert token_requests(sandbox) == [("refresh_token", 200)]


async def test_a_folder_that_vanishes_is_made_again_with_the_newest_token(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "token.json"
    place = in_a_file(path)
    async with salesloft() as sandbox:
        env = environment_of(place, sandbox, SLPROXY_AUTH__LEEWAY="1.2")
        async with replicas(2, env, home=tmp_path) as proxies:
            await adopted(place, login(sandbox, valid=3.0), proxies)
            shutil.rmtree(path.parent)
            async with Load(proxies[0].url) as one, Load(proxies[1].url) as other:
                for proxy in proxies:
                    await comes_to(proxy, generation=2, saved=True)
            assert (one.failed, other.failed) == ({}, {})
            assert await generation_in(place) == 2
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert token_requests(sandbox) == [("refresh_token", 200)]


# Redis.


@contextmanager
def lasting_redis(port: int, folder: Path) -> Iterator[str]:
    """Run a real Redis that has on disk what it has answered."""
    folder.mkdir(exist_ok=True)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(
        [*command, "--appendonly", "yes", "--appendfsync", "always"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@dataclass
class Server:
    """A Redis that is stopped and started again at the same address: with its data, or empty."""

    lasting: bool
    folder: Path
    port: int = 0
    # Bound, but not listening: nobody else is given the port while Redis is down, and connections are refused.
    _reserved: socket.socket = field(default_factory=socket.socket)
    _up: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = self._reserved.getsockname()[1]
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._reserved.close()

    def start(self) -> str:
        running = lasting_redis(self.port, self.folder) if self.lasting else redis_server(self.port)
        return self._up.enter_context(running)

    def stop(self) -> None:
        self._up.close()


async def with_its_data_and_empty(scene: Callable[[Server, Path], Awaitable[None]], folder: Path) -> None:
    """Play a scene with a Redis that comes back with its data, and with one that does not, at the same time."""

    async def play(name: str) -> None:
        home = folder / name
        home.mkdir()
        with Server(lasting=name == "with its data", folder=home / "redis") as server:
            await scene(server, home)

    async with asyncio.TaskGroup() as group:
        for name in ("with its data", "empty"):
            group.create_task(play(name))


async def down_when_the_token_is_due(server: Server, home: Path) -> None:
    async with salesloft() as sandbox, in_redis(server.start()) as place:
        env = environment_of(place, sandbox, SLPROXY_AUTH__LEEWAY="12")
        async with replicas(2, env, home=home) as proxies:
            # Due after three to six seconds, also on a busy machine after Redis is down; over after eighteen.
            await adopted(place, login(sandbox, valid=18.0), proxies)
            server.stop()
            async with Load(proxies[0].url) as one, Load(proxies[1].url) as other:
                await until(lambda: all("renewing the token failed" in proxy.output for proxy in proxies))
                server.start()
                for proxy in proxies:
                    await comes_to(proxy, generation=2, saved=True)
            assert (one.failed, other.failed) == ({}, {})
            assert await generation_in(place) == 2
        assert token_requests(sandbox) == [("refresh_token", 200)]


@needs_redis
async def test_a_redis_that_is_down_when_the_token_is_due_costs_no_request(tmp_path: Path) -> None:
    await with_its_data_and_empty(down_when_the_token_is_due, tmp_path)


async def down_when_the_token_is_granted(server: Server, home: Path) -> None:
    async with salesloft() as sandbox, in_redis(server.start()) as place:
        env = environment_of(place, sandbox, SLPROXY_AUTH__LEEWAY="60")
        sandbox.fault("slow=1", on="token")
        async with replicas(1, env, home=home) as [proxy]:
            await adopted(place, login(sandbox, valid=60.0), [proxy])
            await until(lambda: len(sandbox.token_requests) == 1)
            server.stop()
            # SalesLoft has rotated, so the old token is over: what a request gets must be the new one.
            async with Load(proxy.url) as load:
                await comes_to(proxy, generation=2, saved=False)
                assert (await raw(proxy.url, get("/_slproxy/readyz"))).head.status == 200
                async with Redis.from_url(server.start()) as client:
                    # Where Redis comes back with the lock, and too late for its holder to release it, it expires.
                    await client.delete(LOCK)
                await comes_to(proxy, generation=2, saved=True)
            assert load.failed == {}
            assert await generation_in(place) == 2
            await proxy.stop(signal.SIGKILL)
        async with replicas(1, env, home=home) as [again]:
            assert (await raw(again.url, get("/v2/me.json"))).head.status == 200
        assert token_requests(sandbox) == [("refresh_token", 200)]


@needs_redis
async def test_a_token_that_was_granted_while_redis_is_down_gets_there_when_it_is_back(tmp_path: Path) -> None:
    await with_its_data_and_empty(down_when_the_token_is_granted, tmp_path)


@needs_redis
async def test_an_older_token_in_an_empty_redis_does_not_cost_the_newer_one_that_a_replica_holds(
    tmp_path: Path,
) -> None:
    with Server(lasting=False, folder=tmp_path / "redis") as server:
        async with (
            salesloft() as sandbox,
            in_redis(server.start()) as place,
            replicas(2, environment_of(place, sandbox), home=tmp_path) as [ahead, behind],
        ):
            newest = login(sandbox, valid=LIFE)
            await adopted(place, newest, [ahead, behind])
            # One replica renews for a request of its own; the other has none, and does not know, unless it looks at the
            # store just then.
            while (await token_of(behind))["generation"] == newest.generation:
                sandbox.expire(newest.token.access_token)
                assert (await raw(ahead.url, get("/v2/me.json"))).head.status == 200
                newest = await stored(place)
            server.stop()
            server.start()
            # Its token is dead: what it is told is not what counts here, but what it makes of the store.
            await raw(behind.url, get("/v2/me.json"))
            sandbox.expire(newest.token.access_token)
            assert (await raw(ahead.url, get("/v2/me.json"))).head.status == 200
            for proxy in (ahead, behind):
                await comes_to(proxy, generation=newest.generation + 1, valid=True)
                assert (await raw(proxy.url, get("/v2/me.json"))).head.status == 200
            assert await generation_in(place) == newest.generation + 1


def redis_port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@dataclass
class Relay:
    """Stands between the proxies and Redis, and holds up what Redis answers by ``delay`` seconds; ``None``: for ever.

    It loses one answer to a request in which ``lose`` stands.
    """

    port: int
    delay: float | None = 0.0
    lose: bytes = b""
    url: str = ""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        lost = asyncio.Event()

        async def ask() -> None:
            while asked := await reader.read(65536):
                if self.lose and self.lose in asked:
                    self.lose = b""
                    lost.set()
                back.write(asked)

        async def answer() -> None:
            while answered := await there.read(65536):
                if self.delay is not None and not lost.is_set():
                    await asyncio.sleep(self.delay)
                    writer.write(answered)

        both = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            pass
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._tasks.discard(task)
            writer.close()
            back.close()


@asynccontextmanager
async def held_by_the_test(place: Place) -> AsyncIterator[None]:
    """Hold the lock in Redis, so that a renewal that is due waits for what the test does meanwhile."""
    async with Redis.from_url(place.env["SLPROXY_STORE__REDIS_URL"]) as client:
        assert await client.set(LOCK, "the test", nx=True, px=int(LOCK_TIMEOUT * 1000))
        yield
        await client.delete(LOCK)


async def renewed_past_a_slow_redis(home: Path, *, delay: float | None) -> None:
    with redis_server() as url:
        async with salesloft() as sandbox, Relay(redis_port(url)) as relay, in_redis(url) as place:
            through = {"SLPROXY_STORE__REDIS_URL": relay.url}
            env = environment_of(place, sandbox, SLPROXY_AUTH__LEEWAY="60", **through)
            async with replicas(1, env, home=home) as [proxy]:
                async with held_by_the_test(place):
                    await adopted(place, login(sandbox, valid=60.0), [proxy])
                    relay.delay = delay
                async with Load(proxy.url) as load:
                    if delay is None:
                        await until(lambda: load.served >= 30)
                        relay.delay = 0.0
                    await comes_to(proxy, generation=2, saved=True)
                assert load.failed == {}
                assert await generation_in(place) == 2
            assert token_requests(sandbox) == [("refresh_token", 200)]


@needs_redis
async def test_a_redis_that_answers_late_or_never_costs_no_request(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # At the same time, since each of them waits most of the time.
    delays = (0.5, 2.0, None) if request.config.getoption("--long") else (0.5, None)
    async with asyncio.TaskGroup() as group:
        for delay in delays:
            group.create_task(renewed_past_a_slow_redis(tmp_path, delay=delay))


async def test_a_lock_that_was_given_by_an_answer_that_got_lost_is_not_waited_for(tmp_path: Path) -> None:
    with redis_server() as url:
        async with Relay(redis_port(url)) as relay:
            store = RedisStore(Secret(relay.url), "default", TokenCipher("off", key=None, keyring=lambda: None))
            try:
                assert await store.read() is None
                relay.lose = LOCK.encode()
                async with asyncio.timeout(LOCK_TIMEOUT / 2), store.lock():
                    pass
                assert relay.lose == b""
            finally:
                await store.close()


# Who holds the lock.


async def expire_the_lock(place: Place) -> None:
    """Do what time does within half a minute: see that the lock will expire, and let it."""
    async with Redis.from_url(place.env["SLPROXY_STORE__REDIS_URL"]) as client:
        assert 0 < await client.pttl(LOCK) <= LOCK_TIMEOUT * 1000
        await client.delete(LOCK)


@asynccontextmanager
async def holder_and_waiter(
    place: Place, sandbox: Sandbox, home: Path, *, hangs: bool = False
) -> AsyncIterator[tuple[Program, Program]]:
    """Run a proxy that holds the lock and waits for the token endpoint, and one that wants to renew as well.

    The holder may hang from the moment on at which the token endpoint was asked.
    """
    await place.store.write(login(sandbox, valid=300.0))
    env = environment_of(place, sandbox, SLPROXY_AUTH__LEEWAY="300")
    async with replicas(1, env, home=home) as [holder]:
        await until(lambda: len(sandbox.token_requests) == 1)
        if hangs:
            holder.process.send_signal(signal.SIGSTOP)
        async with replicas(1, env, home=home) as [waiter]:
            yield holder, waiter


async def test_a_proxy_that_is_killed_with_the_lock_does_not_keep_the_others(place: Place, tmp_path: Path) -> None:
    async with salesloft() as sandbox:
        # Longer than this test: the old token stays good.
        sandbox.fault("slow-before=60", on="token")
        async with holder_and_waiter(place, sandbox, tmp_path) as (holder, waiter), Load(waiter.url) as load:
            await until(lambda: load.served >= 10)
            assert len(sandbox.token_requests) == 1
            await holder.stop(signal.SIGKILL)
            killed = time.monotonic()
            if "SLPROXY_STORE__REDIS_URL" in place.env:
                await expire_the_lock(place)
            await comes_to(waiter, generation=2, saved=True)
            # At once; half of it is for a busy machine.
            assert time.monotonic() - killed < LOCK_TIMEOUT / 3
        assert load.failed == {}
        assert await generation_in(place) == 2
        assert token_requests(sandbox)[1:] == [("refresh_token", 200)]


async def test_a_proxy_that_hangs_with_the_lock_keeps_the_others_for_half_a_minute_at_most(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--long"):
        pytest.skip("takes 35 seconds; run with --long")
    place = in_a_file(tmp_path / "kept" / "token.json")
    async with salesloft() as sandbox:
        sandbox.fault("slow-before=120", on="token")
        async with (
            holder_and_waiter(place, sandbox, tmp_path, hangs=True) as (holder, waiter),
            Load(waiter.url, every=0.25) as load,
        ):
            began = time.monotonic()
            await comes_to(waiter, generation=2, saved=True, timeout=LOCK_TIMEOUT + PATIENCE)
            assert time.monotonic() - began < LOCK_TIMEOUT + 5
            holder.process.send_signal(signal.SIGCONT)
            async with Load(holder.url) as late:
                await comes_to(holder, generation=2, saved=True, timeout=LOCK_TIMEOUT + PATIENCE)
        assert load.failed == {}
        assert late.failed == {}
        assert await generation_in(place) == 2
        assert token_requests(sandbox)[1:] == [("refresh_token", 200)]


async def test_a_proxy_that_wakes_after_its_lock_expired_does_not_put_an_older_token_in_place(tmp_path: Path) -> None:
    with redis_server() as url:
        # Both tokens that came of the old one are good until the other is used: so what is late is not refused.
        async with salesloft(rotation="on-use") as sandbox, in_redis(url) as place:
            sandbox.fault("slow=0.5", on="token")
            async with holder_and_waiter(place, sandbox, tmp_path, hangs=True) as (holder, waiter):
                await expire_the_lock(place)
                async with Load(waiter.url) as load:
                    await comes_to(waiter, generation=2, saved=True)
                    kept = await place.store.read()
                    assert kept is not None
                    sandbox.expire(kept.token.access_token)
                    await comes_to(waiter, generation=3, saved=True)
                    newest = await place.store.read()
                    holder.process.send_signal(signal.SIGCONT)
                    async with Load(holder.url) as late:
                        await comes_to(holder, generation=3, saved=True)
                    assert await place.store.read() == newest
                assert load.failed == {}
                assert late.failed == {}


async def test_a_proxy_that_wakes_after_its_lock_expired_brings_the_only_token_that_is_alive(tmp_path: Path) -> None:
    with redis_server() as url:
        async with salesloft() as sandbox, in_redis(url) as place:
            sandbox.fault("slow=0.5", on="token")
            async with holder_and_waiter(place, sandbox, tmp_path, hangs=True) as (holder, waiter):
                await expire_the_lock(place)
                # SalesLoft has rotated, and the one who was told sleeps: to the other the login looks dead.
                await until(lambda: "invalid_grant" in waiter.output)
                holder.process.send_signal(signal.SIGCONT)
                await comes_to(holder, generation=2, saved=True)
                assert await generation_in(place) == 2
                await comes_to(waiter, generation=2, valid=True)
                async with Load(holder.url) as one, Load(waiter.url) as other:
                    await until(lambda: min(one.served, other.served) >= 5)
                assert (one.failed, other.failed) == ({}, {})
