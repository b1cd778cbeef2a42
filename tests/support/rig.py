"""What the tests stand on: a scripted upstream, raw clients, the proxy in this process and as a process of its own.

Nothing here pretends to be a part of slproxy: all of it talks over loopback sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from slproxy.app import App, Clock
from slproxy.config import AuthSettings, ListenSettings, Secret, Settings, StoreSettings
from slproxy.config.schema import UpstreamSettings
from slproxy.sandbox import Options, Sandbox
from slproxy.store import Record, Token, TokenStore
from tests.support import ROOT

# Longer than anything on loopback takes, even on a machine that is busy: what waits this long has failed.
PATIENCE = 20.0


class Head:
    """The head of an HTTP/1.1 message as it stood on the wire."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        first, _, rest = raw.partition(b"\r\n")
        self.first = first.decode("latin-1")
        self.fields = [
            (name.decode("latin-1"), value.strip().decode("latin-1"))
            for line in rest.split(b"\r\n")
            if line
            for name, _, value in [line.partition(b":")]
        ]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    @property
    def target(self) -> str:
        return self.first.split(" ")[1]

    @property
    def method(self) -> str:
        return self.first.split(" ")[0]

    @property
    def status(self) -> int:
        return int(self.first.split(" ")[1])


@dataclass
class Message:
    """A whole message that was read off a socket."""

    head: Head
    body: bytes


async def read_message(reader: asyncio.StreamReader, *, has_body: bool = True) -> Message:
    """Read one message, framed by Content-Length, chunks or the end of the connection."""
    head = Head((await reader.readuntil(b"\r\n\r\n"))[:-2])
    if not has_body or (head.first.startswith("HTTP/") and head.status in (204, 304)):
        return Message(head, b"")
    if "chunked" in (head.get("Transfer-Encoding") or ""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return Message(head, body)
    if (length := head.get("Content-Length")) is not None:
        return Message(head, await reader.readexactly(int(length)))
    return Message(head, b"" if not head.first.startswith("HTTP/") else await reader.read())


Handler = Callable[[Message, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(status: str = "200 OK", body: bytes = b"{}", *headers: str, length: bool = True) -> bytes:
    """Return a reply as bytes, with its Content-Length unless told otherwise."""
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class ScriptedUpstream:
    """An upstream that does as it is told, byte by byte, and remembers every request that reached it.

    ``script`` is called with each whole request; ``None`` answers 200 ``{}``. ``whole=False`` hands over the head.
    """

    def __init__(self, script: Handler | None = None, *, whole: bool = True) -> None:
        self.script = script
        self.whole = whole
        self.seen: list[Message] = []
        self.connections = 0
        self.closed = 0
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
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
        self.connections += 1
        try:
            while True:
                message = await read_message(reader, has_body=self.whole)
                self.seen.append(message)
                if self.script is None:
                    writer.write(reply())
                else:
                    await self.script(message, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.closed += 1
            writer.close()


def replies(*scripted: bytes) -> Handler:
    """Return a script that gives these replies in turn, the last one for ever."""
    left = list(scripted)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return script


@dataclass
class FakeTime:
    """Time that passes only when somebody waits for it: ``sleep`` returns at once and moves every clock."""

    now: float = 1_795_000_010.0
    slept: list[float] = field(default_factory=list)
    die: float = 0.5

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep, dice=lambda: self.die)


API_KEY = "ak_" + "5a" * 32


def settings_for(
    upstream: str, *, accounts: str | None = None, auth: AuthSettings | None = None, path: Path | None = None
) -> Settings:
    """Return settings for a proxy on any free port; without ``path`` nothing is written to disk."""
    return Settings(
        listen=ListenSettings(port=0),
        upstream=UpstreamSettings(api_url=upstream, accounts_url=accounts or upstream, connect_timeout=2.0),
        auth=auth or AuthSettings(api_key=Secret(API_KEY)),
        store=StoreSettings(kind="file" if path else "memory", path=path or Path("unused")),
    )


@asynccontextmanager
async def proxy(
    settings: Settings, *, store: TokenStore | None = None, clock: Clock | None = None
) -> AsyncIterator[App]:
    """Run a proxy in this process, on a real socket; its address is ``app.urls[0]``."""
    async with App(settings, store=store, clock=clock or Clock()) as app:
        await app.listen()
        yield app


def sandbox_auth(sandbox: Sandbox, **changes: object) -> AuthSettings:
    """Return the settings of the sandbox's own client, for a login that is stored."""
    auth = AuthSettings(
        grant="authorization_code",
        client_id=sandbox.options.client_id,
        client_secret=Secret(sandbox.options.client_secret),
    )
    return replace(auth, **changes)  # type: ignore[arg-type]


def login_at(sandbox: Sandbox, *, now: float | None = None, lifetime: float | None = None) -> Record:
    """Return the record of somebody who has just logged in at the sandbox."""
    now = time.time() if now is None else now
    lifetime = sandbox.options.token_lifetime if lifetime is None else lifetime
    pair = sandbox.issue()
    return Record(
        client_id=sandbox.options.client_id,
        accounts_url=sandbox.url,
        token=Token(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            obtained_at=now,
            expires_at=now + lifetime,
        ),
    )


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


async def raw(url: str, request: bytes, *, method: str = "GET", timeout: float = PATIENCE) -> Message:
    """Send bytes to the proxy and read one whole response; nothing is tidied on the way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), limit=2**20)
    try:
        async with asyncio.timeout(timeout):
            writer.write(request)
            await writer.drain()
            return await read_message(reader, has_body=method != "HEAD")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def get(target: str, *headers: str, method: str = "GET", body: bytes = b"", host: str = "localhost") -> bytes:
    """Return a request as bytes; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


@dataclass
class Program:
    """``python -m slproxy`` as a process of its own, as a user runs it."""

    process: asyncio.subprocess.Process
    url: str
    lines: list[str]
    errors: list[str]

    @property
    def output(self) -> str:
        return "\n".join([*self.lines, *self.errors])

    async def stop(self, number: int = 15) -> int:
        """Send a signal and wait for the end; return the exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which nothing of the person who runs the tests is left."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
    root = str(ROOT)
    return {
        **kept,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "PYTHONPATH": root,
        "PYTHONWARNINGS": "error",
        **variables,
    }


async def spawn(
    arguments: Sequence[str], home: Path, env: Mapping[str, str] | None, *, stdin: int
) -> asyncio.subprocess.Process:
    """Start slproxy as a user does, in ``home`` and with nothing of the person who runs the tests."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slproxy", *arguments),
        cwd=home,
        env=environment(home, **(env or {})),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(
    *arguments: str, home: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> tuple[int, str, str]:
    """Run a command of slproxy to its end; return exit code, standard output and standard error."""
    process = await spawn(arguments, home, env, stdin=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def program(*arguments: str, home: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Run ``serve`` or ``sandbox`` until the block ends; its address is read from the line that it prints."""
    process = await spawn(arguments, home, env, stdin=asyncio.subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    errors: list[str] = []

    async def collect(stream: asyncio.StreamReader, into: list[str]) -> None:
        while line := await stream.readline():
            into.append(line.decode().rstrip("\n"))

    collecting = [
        asyncio.create_task(collect(process.stdout, lines)),
        asyncio.create_task(collect(process.stderr, errors)),
    ]
    try:
        await until(lambda: any(line.startswith("Listening on ") for line in lines) or process.returncode is not None)
        said = next((line for line in lines if line.startswith("Listening on ")), "")
        assert said, "the program did not start:\n" + "\n".join(errors)
        yield Program(process, said.split()[2].rstrip("."), lines, errors)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(*collecting)


async def until(true: Callable[[], bool], *, timeout: float = PATIENCE) -> None:
    """Wait until something has come true, and fail when it does not."""
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running_sandbox(options: Options | None = None, **more: object) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(options or Options(), **more)  # type: ignore[arg-type]
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()


@contextlib.contextmanager
def redis_server(port: int | None = None) -> Iterator[str]:
    """Run a real Redis that keeps nothing, on a free port or a given one; tests skip where none is installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    process = subprocess.Popen(
        [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"],
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
