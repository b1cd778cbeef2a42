"""Round trip: one request on a connection, and its reply."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable

from slproxy.upstream.connection import READ_AHEAD, READ_SIZE, Connection
from slproxy.upstream.faults import EvictedError
from slproxy.upstream.outbound import Outbound
from slproxy.upstream.parser import NotHTTPError, ReplyParser
from slproxy.upstream.reuse import UNACKNOWLEDGED_TIMEOUT, set_unacknowledged_timeout

# A client that moves less than this within `STALL_TIMEOUT` counts as one that moves nothing, in bytes.
PROGRESS = 16 * 1024
# What every peer's kernel takes of a request although nobody reads it yet, in bytes.
SURELY_BUFFERED = 16 * 1024


class RoundTrip:
    """One use of a connection: it writes the request, reads the reply, and knows who holds it up."""

    def __init__(
        self, connection: Connection, method: str, on_close: Callable[[bool], None], others: set[RoundTrip]
    ) -> None:
        """``others`` are the round trips under way.

        ``on_close`` is called when this one no longer is, with whether the connection may carry another one.
        """
        self._connection = connection
        self._on_close = on_close
        self._others = others
        others.add(self)
        self.reply = ReplyParser(method != "HEAD")
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._upload: asyncio.Task[None] | None = None
        # Until when there has to be a head, in loop time.
        self._deadline = math.inf
        self._closed = False
        # Whether the peer may leave for long what was sent.
        self._is_patient = False
        self._loop = connection.loop
        # How long all that was missing was the client (the next piece of its body, or its taking of the last one of the
        # reply's), in seconds, and since when it is, in loop time.
        self._waited = 0.0
        self._waits_since: float | None = None
        self._moved = 0
        # Whether the last byte of the request was written.
        self._sent = False
        connection.exchange = self

    # What the connection calls.

    @property
    def room(self) -> int:
        """How much may come now, in bytes: much where somebody waits for it, else the rest of ``READ_AHEAD``."""
        return READ_SIZE if self._waiter is not None else READ_AHEAD - len(self.reply.body)

    def received(self, data: memoryview) -> None:
        """Take what came. Raises NotHTTPError."""
        self.reply.feed(data)
        self._wake()

    def ended(self, error: Exception | None) -> None:
        """Take the end of the connection: an ordinary one, or its error."""
        if error is None and not self.reply.end():
            error = ConnectionResetError("the connection ended within a reply")
        if error is not None:
            self.reply.keeps_alive = False
            self._fail(error)
        self._wake()

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self.reply.is_complete:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _news(self) -> None:
        """Wait until something came, or can come no more."""
        self._waiter = self._loop.create_future()
        await self._waiter

    # The request.

    async def exchange(self, head: bytes, outbound: Outbound, *, response_timeout: float) -> None:
        """Write a request and wait for the head of its reply; the body may still be on its way, both ways.

        Raises:
            NotHTTPError: the reply does not parse.
            OSError: the connection broke, or there was no head in time (TimeoutError).
            EvictedError: the connection was taken from a stalled client.
        """
        connection, body = self._connection, outbound.body
        if callable(body) or len(body or b"") > SURELY_BUFFERED:
            # A peer that takes its time to read acknowledges nothing more once its buffer is full.
            self._is_patient = True
            set_unacknowledged_timeout(connection.socket, 0)
        if callable(body):
            connection.transport.write(head)
            uploading = self._stream(body(), chunked=outbound.is_chunked, response_timeout=response_timeout)
            self._upload = asyncio.create_task(uploading, name="slproxy: stream a request's body")
        else:
            connection.transport.write(head + body if body else head)
            self._all_is_sent(response_timeout)
        while not self.reply.has_head:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            await self._waiter
        if isinstance(self._error, NotHTTPError):
            raise self._error  # its body came along, and does not parse: nothing of it has been passed on
        self.client_wait_ended(moved=PROGRESS)

    async def _stream(self, body: AsyncIterator[bytes], *, chunked: bool, response_timeout: float) -> None:
        """Write the client's body as it comes. While it waits for the client, the upstream's silence does not count.

        What goes wrong here shows where the reply is read: it may have come already, such as a 413 in the middle of an
        upload.
        """
        write = self._connection.transport.write
        try:
            self.client_wait_started()
            async for chunk in body:
                self._received_from_client(chunk)
                if await self._upload_is_refused():
                    return
                write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                async with asyncio.timeout(response_timeout):
                    await self._connection.drain()
                if not self.reply.has_head:
                    self.client_wait_started()
            self._received_from_client(b"")
            if chunked:
                write(b"0\r\n\r\n")
            self._all_is_sent(response_timeout)
        except TimeoutError:
            self._fail_without_head()
        except Exception as error:  # noqa: BLE001  # `body.Body` keeps it, and `forward` raises it to the client
            broken = ConnectionError("the client's body broke off")
            broken.__cause__ = error
            self._fail(broken)

    async def _upload_is_refused(self) -> bool:
        """Return whether the upstream has answered and wants no more of the body; what has arrived is read first.

        An upstream that refuses a body answers and closes. To write once more then is to get a reset, with which
        asyncio throws away the answer that it had not read yet.
        """
        # It is the event loop that reads, in its next turn.
        while not self.reply.has_head and self._error is None and self._connection.is_readable:  # noqa: ASYNC110
            await asyncio.sleep(0)
        if self._error is not None:
            return True
        return self.reply.has_head and (self.reply.status >= 400 or not self.reply.keeps_alive)

    def _all_is_sent(self, response_timeout: float) -> None:
        self._sent = True
        self._deadline = self._loop.time() + response_timeout

    def check_deadline(self, now: float) -> None:
        """Fail where there is no whole head in time, however it dribbles in; ``now`` is in loop time."""
        if now >= self._deadline:
            self._fail_without_head()

    def _fail_without_head(self) -> None:
        if not self.reply.has_head:
            self._fail(TimeoutError("no head in time"))

    # The reply.

    @property
    def is_complete(self) -> bool:
        """Whether all of the reply has arrived: nobody needs the connection any more."""
        return self.reply.has_head and self.reply.is_complete

    @property
    def is_read(self) -> bool:
        """Whether all of the reply has been taken."""
        reply = self.reply
        return reply.is_complete and reply.has_head and not reply.body

    def take(self) -> bytes:
        """Return what has arrived of the body and was not taken yet, perhaps nothing.

        Raises:
            OSError, NotHTTPError, EvictedError: the body broke off there.
        """
        if data := self.reply.take():
            if not self._closed:  # else it is another one's, such as after an eviction
                self._connection.resume_reading()
            return data
        if self._error is not None:
            raise self._error
        return b""

    async def take_more(self, *, idle_timeout: float) -> bytes:
        """Return the next of the body, once there is some; nothing at its end.

        Raises:
            OSError, NotHTTPError, EvictedError: the body broke off, or nothing came in time (TimeoutError).
        """
        data = self.take()
        if not data and not self.is_complete:
            # Bytes that are none of a body do not count.
            async with asyncio.timeout(idle_timeout):
                while not (data := self.take()) and not self.is_complete:
                    await self._news()
        return data

    # The client.

    def _received_from_client(self, chunk: bytes) -> None:
        """Count a piece of the client's body as progress; once there is a reply, only the reply counts."""
        if not self.reply.has_head:
            self.client_wait_ended(moved=len(chunk))

    def client_wait_started(self) -> None:
        """Start counting the time for which the connection waits for nothing but the client."""
        if self._waits_since is None:
            self._waits_since = self._loop.time()

    def client_wait_ended(self, *, moved: int) -> None:
        """Stop counting; enough bytes ``moved`` since set the count back to zero."""
        if self._waits_since is not None:
            self._waited += self._loop.time() - self._waits_since
            self._waits_since = None
        self._moved += moved
        if self._moved >= PROGRESS:
            self._waited, self._moved = 0.0, 0

    def held_by_client_for(self, now: float) -> float:
        """Return for how many seconds the client alone has held this connection; ``now`` is in loop time."""
        if self.is_complete:
            return math.inf
        return self._waited + (0.0 if self._waits_since is None else now - self._waits_since)

    def evict(self) -> None:
        """Take the connection from a client that holds it and does not use it."""
        if self.is_complete:
            self.close()
            return
        self.reply.take()
        self._fail(EvictedError())  # `exchange` raises it, and `send` releases the slot, or who reads the body does
        if self.reply.has_head:
            self.close()

    def close(self) -> None:
        """Let the connection go, for another request if both bodies were carried to their ends.

        On a connection that waits for the rest of a body, the next request would become that rest, bearer and all.
        """
        if self._closed:
            return
        self._closed = True
        self._others.discard(self)
        if self._upload is not None:
            self._upload.cancel()
        connection = self._connection
        connection.exchange = None
        keep = self._sent and self.is_complete and self.reply.keeps_alive and self._error is None
        if keep:
            connection.resume_reading()
            if self._is_patient:
                set_unacknowledged_timeout(connection.socket, UNACKNOWLEDGED_TIMEOUT)
        self._on_close(keep)
