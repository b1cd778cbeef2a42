"""Round trip: one request on one connection, up to the head of its reply."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.http import HttpProcessingError, StreamWriter

from slproxy.upstream.faults import EvictedError
from slproxy.upstream.framing import ReplyWatch
from slproxy.upstream.outbound import Outbound
from slproxy.upstream.pool import UpstreamProtocol, is_readable, socket_of
from slproxy.upstream.reuse import UNACKNOWLEDGED_TIMEOUT, set_unacknowledged_timeout

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage


# How much is read ahead of a client that reads slowly: aiohttp stops at twice this (docs/hazards.md, trap 14).
REPLY_READ_AHEAD = 16 * 1024
# aiohttp's limits of 8,190 bytes a header and 128 headers make errors of legitimate replies (docs/hazards.md, trap 10).
MAX_HEADER_LINE = 64 * 1024
MAX_HEADER_COUNT = 1000
# A server says 100, 102 or 103 once or a few times before it replies.
MAX_INFORMATIONAL = 100
# A client that moves less than this within `STALL_TIMEOUT` counts as one that moves nothing, in bytes.
PROGRESS = 16 * 1024
# What every peer's kernel takes of a request although nobody reads it yet, in bytes.
SURELY_BUFFERED = 16 * 1024


class RoundTrip:
    """One use of a connection: it writes the request, waits for the reply's head, and knows who holds it up."""

    def __init__(self, connection: Connection, on_close: Callable[[], None], others: set[RoundTrip]) -> None:
        """``others`` are the round trips under way; ``on_close`` is called when this one no longer is."""
        self._connection = connection
        self._on_close = on_close
        self._others = others
        others.add(self)
        self._upload: asyncio.Task[None] | None = None
        self._reply: RawResponseMessage | None = None
        self._content: aiohttp.StreamReader | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._closed = False
        # Whether the peer may leave for long what was sent.
        self._is_patient = False
        self._loop = asyncio.get_running_loop()
        # How long all that was missing was the client (the next piece of its body, or its taking of the last one of the
        # reply's), in seconds, and since when it is, in loop time.
        self._waited = 0.0
        self._waits_since: float | None = None
        self._moved = 0
        # Whether a byte of the request may have left, and whether the last one has.
        self.maybe_sent = self._sent = False

    @property
    def protocol(self) -> UpstreamProtocol:
        """The protocol behind the connection, as long as it is in use."""
        protocol = self._connection.protocol
        assert isinstance(protocol, UpstreamProtocol), "a round trip under way has a connection, made by our connector"
        return protocol

    async def exchange(
        self, head: bytes, outbound: Outbound, *, response_timeout: float
    ) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        """Write a request and return the head of its reply, and the body that may still be on its way."""
        protocol = self.protocol
        protocol.set_response_params(
            skip_payload=outbound.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=REPLY_READ_AHEAD,
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
            max_headers=MAX_HEADER_COUNT,
        )
        protocol.watch = watch = ReplyWatch(outbound.method)
        writer = StreamWriter(protocol, self._loop)
        self.maybe_sent = True
        if callable(outbound.body) or len(outbound.body or b"") > SURELY_BUFFERED:
            # A peer that takes its time to read acknowledges nothing more once its buffer is full.
            self._is_patient = True
            set_unacknowledged_timeout(socket_of(self._connection), 0)
        if callable(outbound.body):
            await writer.write(head, drain=False)
            uploading = self._stream(writer, outbound, response_timeout=response_timeout)
            self._upload = asyncio.create_task(uploading, name="slproxy: stream a request's body")
        else:
            await writer.write(head + (outbound.body or b""), drain=False)
            self._sent = True
            self._start_reply_timer(response_timeout)
        message, content = await protocol.read()
        informational = 0
        while 100 <= message.code < 200 and message.code != 101:  # RFC 9110 §15.2: none was asked for
            if (informational := informational + 1) > MAX_INFORMATIONAL:
                raise HttpProcessingError(message="no end of informational replies")
            message, content = await protocol.read()
        if watch.is_in_head:
            raise HttpProcessingError(message="a head whose end is not where the parser sees it")
        self._reply = message
        self._content = content
        self.client_wait_ended(moved=PROGRESS)
        if self._deadline is not None:
            self._deadline.cancel()
        return message, content

    async def _stream(self, writer: StreamWriter, outbound: Outbound, *, response_timeout: float) -> None:
        """Write the client's body as it comes. While it waits for the client, the upstream's silence does not count.

        What goes wrong here shows where the reply is read: it may have come already, such as a 413 in the middle of an
        upload.
        """
        assert callable(outbound.body)
        chunked = not any(name.lower() == "content-length" for name, _ in outbound.headers)
        try:
            self.client_wait_started()
            async for chunk in outbound.body():
                self._received_from_client(chunk)
                if await self._upload_is_refused():
                    return
                async with asyncio.timeout(response_timeout):
                    await writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                if self._reply is None:
                    self.client_wait_started()
            self._received_from_client(b"")
            if chunked:
                await writer.write(b"0\r\n\r\n", drain=False)
            self._sent = True
            self._start_reply_timer(response_timeout)
        except ConnectionError:
            pass  # the connection is gone, and its protocol has told the reader
        except TimeoutError:
            self._time_out()
        except Exception as error:  # noqa: BLE001  # `body.Body` keeps it, and `forward` raises it to the client
            self.protocol.set_exception(aiohttp.ClientConnectionError("the client's body broke off"), error)

    def _received_from_client(self, chunk: bytes) -> None:
        """Count a piece of the client's body as progress; once there is a reply, only the reply counts."""
        if self._reply is None:
            self.client_wait_ended(moved=len(chunk))

    def client_wait_started(self) -> None:
        """Start to count the time for which the connection waits for nothing but the client."""
        if self._waits_since is None:
            self._waits_since = self._loop.time()

    def client_wait_ended(self, *, moved: int) -> None:
        """Stop to count; enough bytes ``moved`` since set the count back to zero."""
        if self._waits_since is not None:
            self._waited += self._loop.time() - self._waits_since
            self._waits_since = None
        self._moved += moved
        if self._moved >= PROGRESS:
            self._waited, self._moved = 0.0, 0

    @property
    def is_complete(self) -> bool:
        """Whether all of the reply has arrived: nobody needs the connection any more."""
        return self._content is not None and self._content.is_eof()

    def held_by_client_for(self, now: float) -> float:
        """Return for how many seconds the client alone has held this connection; ``now`` is in loop time."""
        if self.is_complete:
            return math.inf
        return self._waited + (0.0 if self._waits_since is None else now - self._waits_since)

    def evict(self) -> None:
        """Take the connection from a client that holds it and does not use it."""
        if self._content is None:
            self.protocol.set_exception(EvictedError())  # `exchange` raises it, and `send` releases the slot
        elif self.is_complete:
            self.close(keep=True)
        else:
            self._content.set_exception(EvictedError())
            self.close(keep=False)

    def _start_reply_timer(self, seconds: float) -> None:
        """Start the timeout of the whole head: aiohttp's own starts again with each byte of it."""
        if self._reply is None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        if self._reply is None and self._connection.protocol is not None:
            self._connection.protocol.set_exception(aiohttp.SocketTimeoutError("no head in time"))

    async def _upload_is_refused(self) -> bool:
        """Return whether the upstream has answered and wants no more of the body; what has arrived is read first.

        An upstream that refuses a body answers and closes. To write once more then is to get a reset, with which
        asyncio throws away the answer that it had not read yet.
        """
        while self._reply is None and is_readable(self._connection):
            transport = self._connection.transport
            if transport is None or transport.is_closing():
                # Half-closed by the upstream: asyncio reads no more, and would wait to write for as long as it likes.
                self.protocol.set_exception(aiohttp.ServerDisconnectedError())
                return True
            await asyncio.sleep(0)
        return self._reply is not None and (self._reply.code >= 400 or self._reply.should_close)

    def close(self, *, keep: bool) -> None:
        """Give the connection back to the pool with ``keep``, if all of the request went out on it; else close it.

        On a connection that waits for the rest of a body, the next request would become that rest, bearer and all.
        """
        if self._closed:
            return
        self._closed = True
        self._others.discard(self)
        if self._upload is not None:
            self._upload.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        if keep and self._sent:
            self._set_idle()
            self._connection.release()
        else:
            self._connection.close()
        self._on_close()

    def _set_idle(self) -> None:
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            return
        self.protocol.idle_since = self._loop.time()
        if self._is_patient:
            set_unacknowledged_timeout(socket_of(self._connection), UNACKNOWLEDGED_TIMEOUT)
