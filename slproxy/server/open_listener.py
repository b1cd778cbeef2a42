"""Open listener: a listening side of its own for what everybody may read, as orchestrators and Prometheus do.

They ask by the address of a pod, know no local key, and are no clients of the API: what they reach is no way to it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from slproxy.config import LimitSettings
from slproxy.forward import Answer, Inbound
from slproxy.http import ByName, by_name
from slproxy.observe import Exchange, Observer
from slproxy.server.acceptor import Acceptor
from slproxy.server.open_files import OPEN_ROOM
from slproxy.server.server import Server
from slproxy.sockets import Peers, url_of

# A page by its method and path, for these headers.
Page = Callable[[str, str, ByName], Answer]
# Who asks for more than a few pages at a time is told to come later, in seconds.
ROOM_IN = 1


@asynccontextmanager
async def serve_openly(
    sockets: list[socket.socket],
    page: Page,
    *,
    limits: LimitSettings,
    monotonic: Callable[[], float],
    peers: Peers,
) -> AsyncIterator[list[str]]:
    """Serve ``page`` at listening sockets, for as long as the context is open; it gives their addresses."""

    async def handle(inbound: Inbound, _: Exchange) -> Answer:
        return page(inbound.method, inbound.target.partition("?")[0], by_name(inbound.headers))

    server = Server(
        handle,
        limits,
        monotonic=monotonic,
        # Nobody is told: scrapes and probes come every few seconds, and change nothing.
        observer=Observer(),
        peers=peers,
        room=OPEN_ROOM,
        room_in=lambda _: ROOM_IN,
    )
    async with contextlib.AsyncExitStack() as stack:
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.1)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        for sock in sockets:
            stack.callback(Acceptor(sock, server, server.admission.run_out).close)
        yield [url_of(*sock.getsockname()[:2]) for sock in sockets]
