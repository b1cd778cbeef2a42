"""Commands of slproxy as a person types them, and the logins and settings that they work on.

``run_here`` runs a command in this process, as ``main`` of ``slproxy.cli`` would: an interpreter that imports all
anew takes most of the processor time of a command. What a process is (signals, streams, its end) is shown with real
ones, by ``run`` of ``programs``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import pty
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import keyring
import pytest
from aiohttp import ClientSession
from keyrings.alt.file import PlaintextKeyring

from slproxy.cli.program import run as run_command
from slproxy.sandbox import Options, Sandbox
from slproxy.store import FileStore
from tests.support.programs import Program, environment, spawn
from tests.support.raw_http import get, raw
from tests.support.sandboxes import login_at, running_sandbox
from tests.support.waiting import PATIENCE, until

# Marked, so that it can be searched for wherever something is said.
SECRET = "marker-secret-0a1b2c"
KEY = "ak_" + "5ec2e70a1b2c3d4e" * 4
# Port 0 of a registered loopback address is any port, to the sandbox.
ANY_PORT = "http://localhost:0/callback"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pointed_at(url: str, **more: str) -> dict[str, str]:
    """Return an environment that points the program at ``url``, and at a port that nobody else has."""
    return {
        "SLPROXY_UPSTREAM__API_URL": url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": url,
        "SLPROXY_LISTEN__PORT": "0",
        **more,
    }


def oauth(sandbox: Sandbox, **more: str) -> dict[str, str]:
    """Return an environment with the sandbox's client, whose redirect URI is on a free port."""
    return pointed_at(
        sandbox.url,
        SALESLOFT_CLIENT_ID=sandbox.options.client_id,
        SALESLOFT_CLIENT_SECRET=sandbox.options.client_secret,
        SALESLOFT_REDIRECT_URI=f"http://localhost:{free_port()}/callback",
        **more,
    )


def token_file(home: Path, profile: str = "default") -> Path:
    return home / "state" / "slproxy" / f"{profile}.json"


@asynccontextmanager
async def sandboxed(**options: object) -> AsyncIterator[Sandbox]:
    given = {"client_secret": SECRET, "api_key": KEY, "redirect_uris": (ANY_PORT,), **options}
    async with running_sandbox(Options(**given)) as sandbox:  # type: ignore[arg-type]
        yield sandbox


class Interactive:
    """A command that talks to a person."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""

    async def url(self) -> str:
        """Wait for the address that the person is told to open."""
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        while not (found := re.search(r"https?://\S+/oauth/authorize\?\S+", self.err)):
            line = (await self.process.stderr.readline()).decode()
            assert line, f"it ended without an address: {self.err}"
            self.err += line
        return found[0]

    async def end(self, typed: str | None = None) -> int:
        out, err = await self.process.communicate(None if typed is None else typed.encode())
        self.out += out.decode()
        self.err += err.decode()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def interactive(*arguments: str, home: Path, env: Mapping[str, str]) -> AsyncIterator[Interactive]:
    process = await spawn(arguments, home, env, stdin=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE):
            yield Interactive(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@dataclass
class AtTerminal:
    """A command whose standard input is a terminal, with a person at it."""

    login: Interactive
    keys: int
    terminal: int
    shown: bytes = b""

    async def type(self, text: str) -> None:
        """Type or paste a text, as fast as the terminal takes it."""
        rest = text.encode()
        while rest:
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self.keys, rest) :]
            with contextlib.suppress(BlockingIOError):
                self.shown += os.read(self.keys, 1 << 16)
            await asyncio.sleep(0)

    async def until_said(self, text: str) -> None:
        """Wait until the command has said a text, after all that was waited for before."""
        assert self.login.process.stderr is not None
        while True:
            line = (await self.login.process.stderr.readline()).decode()
            assert line, f"it ended before it said {text!r}: {self.login.err}"
            self.login.err += line
            if text in line:
                return


@asynccontextmanager
async def at_a_terminal(
    *arguments: str, home: Path, env: Mapping[str, str], blocking: bool = True
) -> AsyncIterator[AtTerminal]:
    keys, terminal = pty.openpty()
    os.set_blocking(terminal, blocking)
    os.set_blocking(keys, False)
    try:
        process = await spawn(arguments, home, env, stdin=terminal)
        try:
            async with asyncio.timeout(PATIENCE):
                yield AtTerminal(Interactive(process), keys, terminal)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
    finally:
        os.close(keys)
        os.close(terminal)


async def allowed(url: str, consent: str = "allow") -> str:
    """Open an authorize URL as the browser of somebody who clicks Allow; return where it is sent."""
    async with (
        ClientSession() as session,
        session.get(f"{url}&sandbox_consent={consent}", allow_redirects=False) as response,
    ):
        assert response.status == 302, await response.text()
        return response.headers["Location"]


async def logged_in(home: Path, sandbox: Sandbox, *, api_url: str | None = None) -> None:
    """Leave the store as a login leaves it, where the login itself is not what is shown."""
    await FileStore(token_file(home)).write(replace(login_at(sandbox), api_url=api_url or sandbox.url))


async def state_of(server: Program) -> dict[str, object]:
    document = json.loads((await raw(server.url, get("/_slproxy/status.json"))).body)
    assert isinstance(document, dict)
    return document


def no_secret_in(*texts: str, secrets: tuple[str, ...] = (SECRET, KEY)) -> None:
    for text in texts:
        for secret in secrets:
            assert secret not in text


def system_keyring(home: Path) -> PlaintextKeyring:
    """Return the keyring of the processes whose home that is."""
    backend = PlaintextKeyring()
    backend.file_path = str(home / ".local" / "share" / "python_keyring" / "keyring_pass.cfg")
    return backend


class Result(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str


# Environment, folder and streams are the process's: a second command waits for the first.
_ONE_AT_A_TIME = threading.Lock()


@dataclass
class Outcome:
    """What a command in this process has said so far, and its exit code once it has ended."""

    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)
    code: int = -1

    def result(self) -> Result:
        return Result(self.code, self.out.getvalue(), self.err.getvalue())


def _run(arguments: Sequence[str], home: Path, env: Mapping[str, str], outcome: Outcome, stdin: int | None) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ONE_AT_A_TIME)
        stack.enter_context(_logging_as_before())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in os.environ:
            patch.delenv(name)
        for name, value in environment(home, **env).items():
            patch.setenv(name, value)
        patch.chdir(home)
        if "PYTHON_KEYRING_BACKEND" in env:
            keyring.set_keyring(system_keyring(home))
        if stdin is not None:
            before = os.dup(0)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, 0)
            os.dup2(stdin, 0)
        stack.enter_context(contextlib.redirect_stdout(outcome.out))
        stack.enter_context(contextlib.redirect_stderr(outcome.err))
        outcome.code = run_command(arguments, in_loop=lambda work, _: asyncio.run(work))


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """A command sets up the log of its process: put back what pytest had there."""
    root, ours = logging.getLogger(), logging.getLogger("slproxy")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    flags = ("logThreads", "logProcesses", "logMultiprocessing")
    kept = {name: getattr(logging, name) for name in flags}
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
        for name, value in kept.items():
            setattr(logging, name, value)


async def run_here(*arguments: str, home: Path, env: Mapping[str, str] | None = None) -> Result:
    """Run a command in this process, in a thread."""
    outcome = Outcome()
    await asyncio.to_thread(_run, arguments, home, env or {}, outcome, None)
    return outcome.result()


async def log_in_here(
    *arguments: str,
    home: Path,
    env: Mapping[str, str],
    paste: Callable[[str], Awaitable[str]] = allowed,
    then: str = "",
) -> Result:
    """Run ``login --no-browser`` in this process, without a terminal; ``paste`` turns its URL into what is pasted.

    ``then`` is typed after it.
    """
    outcome, (reading, writing) = Outcome(), os.pipe()
    command = ["login", "--no-browser", *arguments]
    running = asyncio.create_task(asyncio.to_thread(_run, command, home, env, outcome, reading))
    try:
        await until(lambda: running.done() or "/oauth/authorize?" in outcome.err.getvalue())
        if not running.done():
            url = re.search(r"https?://\S+/oauth/authorize\?\S+", outcome.err.getvalue())
            assert url is not None
            os.write(writing, f"{await paste(url[0])}\n{then}".encode())
    finally:
        os.close(writing)
        async with asyncio.timeout(PATIENCE):
            await running
        os.close(reading)
    return outcome.result()


async def log_in(home: Path, env: Mapping[str, str], *arguments: str) -> Result:
    """Log in, which works."""
    done = await log_in_here(*arguments, home=home, env=env)
    assert done.code == 0, done.err
    return done
