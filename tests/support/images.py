"""The image as it runs, in podman or without an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from slproxy.sandbox import Sandbox
from tests.support.commands import free_port
from tests.support.deployment import HEALTHCHECK, PROGRAM, SIDECAR
from tests.support.imitation import Imitation
from tests.support.podman import Podman
from tests.support.raw_http import get, raw
from tests.support.waiting import PATIENCE, until

Image = Imitation | Podman


def at(sandbox: Sandbox) -> dict[str, str]:
    """Return the variables that point the program at a sandbox."""
    return {"SLPROXY_UPSTREAM__API_URL": sandbox.url, "SLPROXY_UPSTREAM__ACCOUNTS_URL": sandbox.url}


@dataclass
class Container:
    """A started image."""

    built: Image
    env: dict[str, str]
    process: asyncio.subprocess.Process
    url: str

    async def healthcheck(self) -> int:
        return (await self.built.run(*HEALTHCHECK, env=self.env))[0]

    async def probe(self, name: str) -> int:
        """Ask as the kubelet does: at another address than that of clients, by the pod's."""
        path, port = SIDECAR[name]["httpGet"]["path"], self.env["SLPROXY_METRICS__PORT"]
        return (await raw(f"http://127.0.0.1:{port}", get(path, host=f"10.1.2.3:{port}"))).head.status

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as client,
            client.get(
                self.url + path, headers={name.replace("_", "-"): value for name, value in headers.items()}
            ) as got,
        ):
            return got.status, await got.text()


@asynccontextmanager
async def container(built: Image, sandbox: Sandbox, more: Mapping[str, str]) -> AsyncIterator[Container]:
    """Run the image with ``more`` variables against a sandbox, and hold that it stops when it is told to."""
    port = free_port()
    env = built.environment({**more, **at(sandbox)}, port)
    if "SLPROXY_METRICS__PORT" in env:
        env["SLPROXY_METRICS__PORT"] = str(free_port())
    process = await built.start(*PROGRAM, env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[bytes] = []

    async def collect(stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            said.append(line)

    collecting = [asyncio.create_task(collect(stream)) for stream in (process.stdout, process.stderr)]
    try:
        await until(lambda: any(b"Listening on " in line for line in said) or process.returncode is not None)
        assert process.returncode is None, b"".join(said).decode()
        yield Container(built, env, process, f"http://127.0.0.1:{port}")
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0, b"".join(said).decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(*collecting)


async def log_in(built: Image, sandbox: Sandbox, environment: Mapping[str, str]) -> str:
    """Log in without a browser, in a container that ends with it; return what it printed."""
    process = await built.start(
        *(*PROGRAM[:1], "login", "--no-browser"),
        env=built.environment({**environment, **at(sandbox)}, free_port()),
        stdin=b"",
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while not (line := (await process.stderr.readline()).decode()).strip().startswith("http"):
            assert line, "the program ended before it named the address to open"
        async with (
            aiohttp.ClientSession() as browser,
            browser.get(line.strip() + "&sandbox_consent=allow", allow_redirects=False) as redirect,
        ):
            pasted = redirect.headers["Location"]
        out, _ = await process.communicate(pasted.encode() + b"\n")
    return out.decode()
