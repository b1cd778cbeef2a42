"""Sandbox: the fake SalesLoft on a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from slproxy.sandbox.http.endpoints import Endpoints
from slproxy.sandbox.options import DEFAULTS, Options
from slproxy.sandbox.salesloft import SalesLoft

# Wider than any proxy's own limits (slproxy's: 32 KiB and 64 KiB), so that it is never the sandbox that refuses.
LONGEST_LINE, MOST_HEADERS = 256 * 1024, 2_000


class Sandbox(SalesLoft):
    """Be SalesLoft on a loopback port, for both its hosts: `/oauth/*` and `/v2/*`, and `/_sandbox/` beside them.

    A page asks for consent at `/oauth/authorize`; a script adds `sandbox_consent=allow` or `=deny` and is redirected at
    once. `clock` gives seconds since the epoch and is the only time there is; `sleep` is how slow faults wait.
    `answered` is told of each request: its method, target and status, None where it was cut off, and its seconds.
    """

    def __init__(
        self,
        options: Options = DEFAULTS,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        answered: Callable[[str, str, int | None, float], None] = lambda *_: None,
    ) -> None:
        """Make it; `start` makes it listen."""
        super().__init__(options, clock=clock)
        self._answered = answered
        self._site = Endpoints(self, sleep)
        self._runner: web.AppRunner | None = None
        self.url = ""

    def app(self) -> web.Application:
        """Return an application that answers as this sandbox; it has no routes, for a router would decode the path."""

        @web.middleware
        async def respond(
            request: web.Request,
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]],  # noqa: ARG001
        ) -> web.StreamResponse:
            began, status = time.monotonic(), None
            try:
                response = await self._site.respond(request)
                if request.transport is not None and not request.transport.is_closing():
                    status = response.status
                return response
            finally:
                self._answered(request.method, request.raw_path, status, time.monotonic() - began)

        return web.Application(middlewares=[respond])

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen, and set `url`; port 0 is any free one."""
        self._runner = web.AppRunner(
            self.app(),
            access_log=None,
            auto_decompress=False,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            max_headers=MOST_HEADERS,
            shutdown_timeout=0.1,  # a slow fault must not hold up the end of a test
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_address=True).start()
        address = self._runner.addresses[0]
        self.url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"

    async def stop(self) -> None:
        """Close all connections and stop listening; the state stays, and it may be started again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@asynccontextmanager
async def running(
    options: Options = DEFAULTS,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Sandbox]:
    """Run a sandbox on a free loopback port for the length of a block."""
    sandbox = Sandbox(options, clock=clock, sleep=sleep)
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()
