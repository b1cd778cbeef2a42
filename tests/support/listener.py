"""TCP server on loopback: serves each connection as it is told, and ends its connections with itself.

Every server that a test writes stands on this one: a scripted upstream, a recorder, a relay before Redis or a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Hook = Callable[[bytes], Awaitable[bytes]]

# How a connection ends that the other side, or the end of the test, has cut.
ENDS = (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError)


def _reader() -> asyncio.StreamReader:
    return asyncio.StreamReader(limit=2**20)


class Listener:
    """A server on a free port; ``serve`` has a connection until it returns, and the connection is closed then."""

    def __init__(
        self, serve: Serve, *, tls: ssl.SSLContext | None = None, reader: Callable[[], asyncio.StreamReader] = _reader
    ) -> None:
        self.port = 0
        self.connections = 0
        self.closed = 0
        self._serve = serve
        self._tls = tls
        self._reader = reader
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def listen(self, *, port: int = 0, sock: socket.socket | None = None) -> None:
        """Start to accept: on any free port, a given one, or a socket that is bound already."""
        if sock is None:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
        self._server = await asyncio.get_running_loop().create_server(
            lambda: asyncio.StreamReaderProtocol(self._reader(), self._accept), sock=sock, ssl=self._tls
        )
        self.port = sock.getsockname()[1]

    async def close(self) -> None:
        """Accept nothing more, and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except ENDS:
            pass
        finally:
            self._tasks.discard(task)
            self.closed += 1
            writer.close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hook: Hook | None = None) -> None:
    """Copy what comes to where it goes, until it ends; what a hook returns goes in its place."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(2**16):
            writer.write(data if hook is None else await hook(data))
            await writer.drain()


def to_port(port: int, *, asked: Hook | None = None, answered: Hook | None = None) -> Serve:
    """Return what serves a connection by another server, until either side hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        pumps = [asyncio.create_task(pump(reader, back, asked)), asyncio.create_task(pump(there, writer, answered))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.close()  # first: whoever cancels this a second time must not leave it open
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    return serve


@asynccontextmanager
async def relay(port: int, *, asked: Hook | None = None, answered: Hook | None = None) -> AsyncIterator[int]:
    """Run a server that passes each connection on to ``port``; give the port on which it listens."""
    async with Listener(to_port(port, asked=asked, answered=answered)) as running:
        yield running.port


@contextmanager
def reserved_port() -> Iterator[int]:
    """Hold a port that only who asks for it by number can have."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
