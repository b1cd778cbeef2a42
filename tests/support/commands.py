"""Commands of slproxy as a person types them, and the logins and settings that they work on."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import ClientSession

from slproxy.sandbox import Options, Sandbox
from slproxy.store import FileStore
from tests.support.rig import PATIENCE, Program, get, login_at, raw, running_sandbox, spawn

# Marked, so that it can be searched for wherever something is said.
SECRET = "marker-secret-0a1b2c"
KEY = "ak_" + "marker0a1b2c" * 4
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


async def allowed(url: str, consent: str = "allow") -> str:
    """Open an authorize URL as the browser of somebody who clicks Allow; return where it is sent."""
    async with (
        ClientSession() as session,
        session.get(f"{url}&sandbox_consent={consent}", allow_redirects=False) as response,
    ):
        assert response.status == 302, await response.text()
        return response.headers["Location"]


async def log_in(home: Path, env: Mapping[str, str], *arguments: str) -> Interactive:
    async with interactive("login", "--no-browser", *arguments, home=home, env=env) as login:
        code = await login.end(await allowed(await login.url()) + "\n")
        assert code == 0, login.err
        return login


async def logged_in(home: Path, sandbox: Sandbox) -> None:
    """Leave the store as a login leaves it, where the login itself is not what is shown."""
    await FileStore(token_file(home)).write(login_at(sandbox))


async def state_of(server: Program) -> dict[str, object]:
    document = json.loads((await raw(server.url, get("/_slproxy/status.json"))).body)
    assert isinstance(document, dict)
    return document


def no_secret_in(*texts: str, secrets: tuple[str, ...] = (SECRET, KEY)) -> None:
    for text in texts:
        for secret in secrets:
            assert secret not in text
