"""Connection: bytes to and from the upstream, with back-pressure both ways."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Protocol, cast

from slproxy.upstream.parser import NotHTTPError

# How much is read at once, in bytes: into a buffer that all connections share, since what came is taken at once. A
# little less than a client's socket takes at once (`SEND_BUFFER` there, of which Linux makes twice as much).
READ_SIZE = 120 * 1024
# How much of a reply is read ahead of a client that takes it slowly, in bytes.
READ_AHEAD = 64 * 1024
# Within so many turns an event loop has read what has come: in the next one, a task that yields goes first.
READING_TURNS = 5


class Exchange(Protocol):
    """What a connection carries at the moment."""

    @property
    def room(self) -> int:
        """How much may come now, in bytes."""

    def received(self, data: memoryview) -> None:
        """Take what came. Raises NotHTTPError."""

    def ended(self, error: Exception | None) -> None:
        """Take the end of the connection: an ordinary one, or its error."""


class Connection(asyncio.BufferedProtocol):
    """One connection. It carries an ``exchange`` at a time; bytes that come in between are an answer to nothing."""

    transport: asyncio.Transport
    socket: socket.socket

    def __init__(self, buffer: memoryview, on_lost: Callable[[Connection], None]) -> None:
        """Read into ``buffer``, which others may use as well; ``on_lost`` is called once the connection is gone."""
        self._buffer = buffer
        self._on_lost = on_lost
        self.loop = asyncio.get_running_loop()
        self._poll = select.poll()
        self._writable: asyncio.Future[None] | None = None
        self._is_full = self._is_paused = False
        self.exchange: Exchange | None = None
        self.made_in = 0
        # When it went back to the pool, in loop time.
        self.idle_since = 0.0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.socket = transport.get_extra_info("socket")
        self._poll.register(self.socket.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        return self._buffer if self.exchange is None else self._buffer[: self.exchange.room]

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self.exchange
        if exchange is None:
            # Such as a load balancer's 408: the next request must not get it.
            self.transport.abort()
            return
        try:
            exchange.received(self._buffer[:nbytes])
        except NotHTTPError as error:
            self._end(error)
            self.transport.abort()
            return
        if exchange.room <= 0:
            self._is_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionResetError("the connection is closed"))
        self._wake_writer()
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._wake_writer()

    # What an exchange calls.

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent on it."""
        return self.transport.is_closing()

    @property
    def is_readable(self) -> bool:
        """Whether there is something to read: on an idle connection mostly its end, or bytes not asked for."""
        return self.transport.is_closing() or bool(self._poll.poll(0))

    async def outlives_reading(self) -> bool:
        """Let the event loop read what has come to an idle connection; return whether that was but a ticket of TLS.

        If not, it is closed: it was its end, or bytes not asked for.
        """
        try:
            for _ in range(READING_TURNS):
                if not self.is_readable:
                    return True
                await asyncio.sleep(0)
            self.transport.abort()
        except asyncio.CancelledError:
            self.transport.abort()
            raise
        return False

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was written, or the connection is gone."""
        if self._is_full and not self.transport.is_closing():
            self._writable = self.loop.create_future()
            await self._writable

    def resume_reading(self) -> None:
        """Read on, after an exchange had enough."""
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def _end(self, error: Exception | None) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.ended(error)

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
