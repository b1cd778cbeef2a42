"""One request and its reply on one connection."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import asyncio.sslproto
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, StreamWriter

from slproxy.errors import Problem, UpstreamTimeout, UpstreamUnreachable
from slproxy.http import Fields, RawHeaders
from slproxy.retry import Outcome
from slproxy.upstream.faults import EvictedError, evicted
from slproxy.upstream.framing import ReplyWatch
from slproxy.upstream.pool import UpstreamProtocol, is_readable

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage


# How much is read ahead of a client that reads slowly: aiohttp stops at twice this (docs/hazards.md, trap 14).
READ_AHEAD = 16 * 1024
# aiohttp's limits of 8,190 bytes a header and 128 headers make errors of legitimate replies (docs/hazards.md, trap 10).
MAX_HEADER_LINE = 64 * 1024
MAX_HEADER_COUNT = 1000
# A server says 100, 102 or 103 once or a few times before it replies.
MAX_INFORMATIONAL = 100
# A client that moves less than this in that time is as one that moves nothing, in bytes.
MOVEMENT = 16 * 1024

ReadBody = Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outbound:
    """One request as it goes out: an origin-form target, headers less ``Host``, and a body, whole or to be streamed."""

    method: str
    target: str
    headers: Fields = field(repr=False)
    body: ReadBody | bytes | None = field(default=None, repr=False)


class Reply:
    """The upstream's reply: its head, and a body that is read once. Close it, or read it to the end."""

    def __init__(
        self, message: RawResponseMessage, content: aiohttp.StreamReader, line: RoundTrip, *, idle_timeout: float
    ) -> None:
        self._idle_timeout = idle_timeout
        self._content = content
        self._line = line
        # How the connection ends is part of a body that lasts until then (RFC 9112 §8); aiohttp takes a reset for it.
        until_close = not message.chunked and "Content-Length" not in message.headers and not content.is_eof()
        self._end = line.protocol.closed if until_close else None
        self.status = message.code
        self.reason = message.reason
        self.headers: RawHeaders = message.raw_headers
        # Returns the first value of a header, by any case of its name.
        self.header: Callable[[str], str | None] = message.headers.get

    @property
    def outcome(self) -> Outcome:
        """What the attempt came to, for the retries."""
        return Outcome(
            status=self.status, reached=True, retry_after=self.header("Retry-After"), date=self.header("Date")
        )

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read. Raises UpstreamFault when it was not whole."""
        if not self._content.at_eof():
            return False
        self._check_end()
        return True

    def read_nowait(self) -> bytes:
        """Return what has arrived of the body and was not read yet, perhaps nothing. Raises UpstreamFault."""
        self._line.waits_for_client()
        try:
            return self._content.read_nowait()
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise self._broken(error) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; the next chunk is read once the last was taken.

        Raises:
            UpstreamFault: the body broke off, or nothing came for ``upstream.idle_timeout``.
        """
        self._line.waits_no_more(moved=0)
        try:
            while chunk := self._content.read_nowait() or await self._next():
                self._line.waits_for_client()
                yield chunk
                self._line.waits_no_more(moved=len(chunk))
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise self._broken(error) from error
        self._check_end()
        self.close()

    async def _next(self) -> bytes:
        """Wait for more of the body. aiohttp's own timer starts again with each byte, be it none of a body."""
        try:
            async with asyncio.timeout(self._idle_timeout):
                return await self._content.readany()
        except TimeoutError as error:
            raise aiohttp.SocketTimeoutError from error

    def _check_end(self) -> None:
        if self._end is not None and self._end.done() and (error := self._end.exception()) is not None:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> Problem:
        self.close()
        if isinstance(error, EvictedError):
            return evicted()
        if isinstance(error, aiohttp.SocketTimeoutError):
            return UpstreamTimeout(
                "SalesLoft sent nothing for upstream.idle_timeout in the middle of a body.",
                reached=True,
                proxy_error="connection_read_timeout",
            )
        return UpstreamUnreachable(
            "SalesLoft's reply broke off in the middle of its body.",
            reached=True,
            proxy_error="http_response_incomplete",
        )

    def close(self) -> None:
        """Give the connection back if both bodies were carried to their ends, else close it. May be called again."""
        self._line.close(keep=self._content.is_eof())


class RoundTrip:
    """One use of a connection: the request that goes out on it, and what is known of the connection itself."""

    def __init__(self, connection: Connection, on_close: Callable[[], None], among: set[RoundTrip]) -> None:
        """``among`` are the lines in use; ``on_close`` is called when this one no longer is."""
        self._connection = connection
        self._on_close = on_close
        self._among = among
        among.add(self)
        self._upload: asyncio.Task[None] | None = None
        self._reply: RawResponseMessage | None = None
        self._content: aiohttp.StreamReader | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        # How long all that was missing was the client (the next piece of its body, or its taking of the last one of the
        # reply's), in seconds, and since when it is, in loop time.
        self._waited = 0.0
        self._waits_since: float | None = None
        self._moved = 0
        # Whether a byte of the request may have left, and whether the last one has.
        self.reached = self._sent = False

    @property
    def protocol(self) -> ResponseHandler:
        """The protocol behind the connection, as long as it is in use."""
        protocol = self._connection.protocol
        assert protocol is not None, "a line in use has a connection"
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
            read_bufsize=READ_AHEAD,
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
            max_headers=MAX_HEADER_COUNT,
        )
        assert isinstance(protocol, UpstreamProtocol), "the connector makes no others"
        protocol.watch = watch = ReplyWatch(outbound.method)
        writer = StreamWriter(protocol, self._loop)
        self.reached = True
        if callable(outbound.body):
            await writer.write(head, drain=False)
            uploading = self._stream(writer, outbound, patience=response_timeout)
            self._upload = asyncio.create_task(uploading, name="slproxy: stream a request's body")
        else:
            await writer.write(head + (outbound.body or b""), drain=False)
            self._sent = True
            self._expect_reply(response_timeout)
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
        self.waits_no_more(moved=MOVEMENT)
        if self._deadline is not None:
            self._deadline.cancel()
        return message, content

    async def _stream(self, writer: StreamWriter, outbound: Outbound, *, patience: float) -> None:
        """Write the client's body as it comes. While it waits for the client, the upstream's silence does not count.

        What goes wrong here shows where the reply is read: it may have come already, such as a 413 in the middle of an
        upload.
        """
        assert callable(outbound.body)
        chunked = not any(name.lower() == "content-length" for name, _ in outbound.headers)
        try:
            self.waits_for_client()
            async for chunk in outbound.body():
                self._took(chunk)
                if await self._is_refused():
                    return
                async with asyncio.timeout(patience):
                    await writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                if self._reply is None:
                    self.waits_for_client()
            self._took(b"")
            if chunked:
                await writer.write(b"0\r\n\r\n", drain=False)
            self._sent = True
            self._expect_reply(patience)
        except ConnectionError:
            pass  # the connection is gone, and its protocol has told the reader
        except TimeoutError:
            self._give_up()
        except Exception as error:  # noqa: BLE001  # `body.Body` keeps it, and `forward` raises it to the client
            self.protocol.set_exception(aiohttp.ClientConnectionError("the client's body broke off"), error)

    def _took(self, chunk: bytes) -> None:
        """Take note of a piece of the client's body; once there is a reply, it is the reply that counts."""
        if self._reply is None:
            self.waits_no_more(moved=len(chunk))

    def waits_for_client(self) -> None:
        """Take note that the connection now waits for the client."""
        if self._waits_since is None:
            self._waits_since = self._loop.time()

    def waits_no_more(self, *, moved: int) -> None:
        """Take note that the client has done its part, in bytes."""
        if self._waits_since is not None:
            self._waited += self._loop.time() - self._waits_since
            self._waits_since = None
        self._moved += moved
        if self._moved >= MOVEMENT:
            self._waited, self._moved = 0.0, 0

    def idle_for(self, now: float) -> float:
        """Return for how many seconds the client alone has held this connection; ``now`` is in loop time."""
        if self._content is not None and self._content.is_eof():
            return math.inf  # all of the reply is here: nobody needs the connection any more
        return self._waited + (0.0 if self._waits_since is None else now - self._waits_since)

    def give_way(self) -> None:
        """Part with the connection of a client that holds it and does not use it."""
        if self._content is None:
            self.protocol.set_exception(EvictedError())  # `exchange` raises it, and `send` frees the place
        elif self._content.is_eof():  # all of the reply is here: the connection can go without harm
            self.close(keep=True)
        else:
            self._content.set_exception(EvictedError())
            self.close(keep=False)

    def _expect_reply(self, seconds: float) -> None:
        """Give the upstream that long for its whole head: aiohttp's own timer starts again with each byte of it."""
        if self._reply is None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self._reply is None and self._connection.protocol is not None:
            self._connection.protocol.set_exception(aiohttp.SocketTimeoutError("no head in time"))

    async def _is_refused(self) -> bool:
        """Tell whether the upstream has answered without wanting the rest of the body; what waits is read first.

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
        self._among.discard(self)
        if self._upload is not None:
            self._upload.cancel()
        if self._deadline is not None:
            self._deadline.cancel()
        if keep and self._sent:
            self._connection.release()
        else:
            self._connection.close()
        self._on_close()
