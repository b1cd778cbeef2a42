"""Sends one request to the upstream, once. The only module that knows aiohttp's client.

1. The target goes out byte for byte, to one fixed origin. No URL is joined or normalised, and no redirect followed.
2. One call is one request on the wire. A pooled connection that died while it was idle is noticed before a byte is
   written, and replaced.
3. Nothing is added: no User-Agent, Accept, Content-Type or Content-Length that the client did not send; no cookies;
   nothing is decompressed.
4. Foreign exceptions end here: whatever aiohttp raises becomes an ``UpstreamFault`` that knows whether a byte of the
   request may have left.
5. The certificate is verified before a byte of the request, and so of the token, is written; no setting turns it off.

It stands on aiohttp's connector (names, TLS, the pool) and response parser, not on its session. The session repeats
idempotent requests by itself (``retry_persistent_connection``), merges headers that differ in case only
(``_prepare_headers``), adds ``Content-Length: 0`` to a POST without a body, and takes a third of a request's time
(benchmarks/README.md); for none of these it has a switch.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import asyncio.sslproto
import errno
import functools
import math
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError, StreamWriter
from yarl import URL

from slproxy import settings
from slproxy.errors import ConfigError, Overloaded, Problem, UpstreamFault, UpstreamTimeout, UpstreamUnreachable
from slproxy.framing import ReplyWatch
from slproxy.headers import Fields, RawHeaders
from slproxy.oauth import Answer, Form
from slproxy.retry import Outcome

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage
    from aiohttp.tracing import Trace

# How much is read ahead of a client that reads slowly: aiohttp stops at twice this (hazards, trap 14).
READ_AHEAD = 16 * 1024
# aiohttp's limits of 8,190 bytes a header and 128 headers make errors of legitimate replies (hazards, trap 10).
MAX_HEADER_LINE = 64 * 1024
MAX_HEADER_COUNT = 1000
# A server says 100, 102 or 103 once or a few times before it replies.
MAX_INFORMATIONAL = 100
# An idle connection is given up before common servers give theirs up (nginx: 75 s), which spares most stale ones.
KEEPALIVE = 50.0
# An answer of the accounts host, in bytes and in seconds from the first to its last byte, the connecting included.
MAX_ANSWER = 64 * 1024
ANSWER_TIMEOUT = 10.0
# A connection that waits for nothing but its client for so long goes to whoever waits for one; both in seconds.
STALLED = 1.0
MAKE_ROOM_EVERY = 0.1
# A client that moves less than this in that time is as one that moves nothing, in bytes.
MOVEMENT = 16 * 1024
# What the kernel may hold of a reply, in bytes; Linux doubles it (socket(7)). asyncio reads as much in one go, and two
# such pieces are in memory for a client that does not read. 64 KiB a round trip are plenty for pages of an API.
RECEIVE_BUFFER = 32 * 1024
READ_SIZE = 32 * 1024
# The same for TLS, whose buffers are asyncio's own.
TLS_READ_AHEAD = 16 * 1024
TLS_BUFFER = 32 * 1024

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
        self, message: RawResponseMessage, content: aiohttp.StreamReader, line: _Line, *, idle_timeout: float
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
        if isinstance(error, _GaveWayError):
            return _gave_way()
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


class _GaveWayError(aiohttp.ClientError):
    """A connection was taken from a client that held it and did not use it, for others that waited."""


def _gave_way() -> Overloaded:
    return Overloaded(
        f"For {STALLED:g} s nothing moved between the client and the proxy, and others waited for the connection.",
        hint="Read and send without pauses, or raise upstream.max_connections.",
    )


class _Line:
    """One use of a connection: the request that goes out on it, and what is known of the connection itself."""

    def __init__(self, connection: Connection, on_close: Callable[[], None], among: set[_Line]) -> None:
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
        assert isinstance(protocol, _Protocol), "the connector makes no others"
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
            self.protocol.set_exception(_GaveWayError())  # `exchange` raises it, and `send` frees the place
        elif self._content.is_eof():  # all of the reply is here: the connection can go without harm
            self.close(keep=True)
        else:
            self._content.set_exception(_GaveWayError())
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
        while self._reply is None and _is_readable(self._connection):
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


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make the socket of a connection to come, with a small buffer (``RECEIVE_BUFFER``)."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


class _Protocol(ResponseHandler):
    """A connection whose replies are looked at as their bytes arrive, before aiohttp's parser has mended them."""

    watch: ReplyWatch | None = None

    def data_received(self, data: bytes) -> None:
        if self.watch is not None:
            self.watch.feed(data)
            if self.watch.is_faulty:
                self.set_exception(HttpProcessingError(message="a reply that can be read in two ways"))
                if self.transport is not None:
                    self.transport.abort()  # which breaks the body that was on its way
                return
        super().data_received(data)


class _Connector(aiohttp.TCPConnector):
    """A pool that never hands out a connection which the upstream has closed while it was idle."""

    bodies: WeakKeyDictionary[ResponseHandler, _Body]

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's signature
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None, "a connection in hand has a protocol"
            # Only one that has carried a request can have died while idle. On a new one, bytes that wait to be read
            # are TLS 1.3 session tickets (RFC 8446 §4.6.1), not an end of file.
            if protocol not in self.bodies:
                self.bodies[protocol] = body = _Body()
                if protocol.closed is not None:
                    protocol.closed.add_done_callback(body.on_closed)
                # Only TLS transports have it: by default they decrypt 256 KiB ahead of a protocol that has paused.
                if (limit := getattr(connection.transport, "set_read_buffer_limits", None)) is not None:
                    limit(TLS_READ_AHEAD)
                return connection
            # Bytes that came while it was idle are an answer to nothing, such as a load balancer's 408: the next
            # request must not get them. aiohttp may have read them already (`should_close`), or not yet.
            if not protocol.should_close and not _is_readable(connection):
                return connection
            connection.close()


class _Body:
    """The body that is being read from a connection, so that it breaks when the connection does.

    aiohttp forgets it when a later chunk does not parse: in ``_http_parser.pyx``, ``feed_data`` drops its payload
    before it raises, ``connection_lost`` finds none to tell, and the reader waits until its own timeout.
    """

    content: aiohttp.StreamReader | None = None

    def on_closed(self, closed: asyncio.Future[None]) -> None:
        """Break the body that the connection leaves unfinished."""
        if not closed.cancelled():
            closed.exception()  # retrieved, or asyncio would complain that nobody did
        # Let go of: it knows the connection that `bodies` knows it by, and neither would ever be freed.
        content, self.content = self.content, None
        if content is None or content.exception() is not None:
            return
        if not content.is_eof():
            content.set_exception(aiohttp.ClientPayloadError("the connection closed within a body"))


def _is_readable(connection: Connection) -> bool:
    """Tell whether the socket has something to read: on an idle connection that is its end, or nothing we asked for."""
    transport = connection.transport
    if transport is None or transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


class Slot:
    """One of the connections that there may be at a time, whether or not it has been made; ``waited`` is in seconds."""

    def __init__(self, free: asyncio.Semaphore, *, waited: float = 0.0) -> None:
        self._free: asyncio.Semaphore | None = free
        self.waited = waited

    def free(self) -> None:
        """Let another one have it; may be called again."""
        if self._free is not None:
            self._free.release()
            self._free = None


class _Origin:
    """Where requests go: fixed at the start, so that nothing a client sends can change it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        # What aiohttp's connector knows an origin by. It is never sent.
        self.request = aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())


class Upstream:
    """The way to SalesLoft: a pool of connections to the API's and to the accounts' origin."""

    _connector: _Connector
    _api: _Origin
    _accounts: _Origin

    def __init__(self, rules: settings.Upstream) -> None:
        self._rules = rules
        self._connect_timeout = aiohttp.ClientTimeout(connect=rules.connect_timeout)
        # The pool itself is unlimited: a wait for a free connection is the proxy's, and must not look like a timeout of
        # the upstream (hazards, trap 13).
        self._free = asyncio.Semaphore(rules.max_connections)
        self._lines: set[_Line] = set()
        self._waiting = 0
        self._making_room: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        # asyncio zeroes 256 KiB for each TLS connection, and there is no parameter for it (asyncio/sslproto.py).
        asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER
        # Nor for this: it allocates 256 KiB for each read, on the clients' side as well, and gives back what it did not
        # need, which leaves holes in the C heap (asyncio/selector_events.py; benchmarks/README.md, Soak).
        asyncio.selector_events._SelectorTransport.max_size = READ_SIZE  # type: ignore[attr-defined]  # noqa: SLF001
        self._connector = connector = _Connector(
            limit=0, keepalive_timeout=KEEPALIVE, ssl=_ssl_context(self._rules), socket_factory=_socket
        )
        # There is no parameter for the protocol that a connection gets (aiohttp/connector.py, BaseConnector.__init__).
        connector._factory = functools.partial(_Protocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # noqa: SLF001
        connector.bodies = WeakKeyDictionary()
        self._api, self._accounts = _Origin(self._rules.api_url), _Origin(self._rules.accounts_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connector.close()

    async def send(self, outbound: Outbound, slot: Slot, *, patience: float) -> Reply:
        """Send one request to the API and return the head of its reply, whatever its status.

        The head is waited for as long as ``upstream.response_timeout``, or ``patience`` if that is less, in seconds.
        The slot is freed once the reply is done with; where there is none, by the caller.

        Raises:
            UpstreamFault: there was no reply.
            Overloaded: the connection had to be given up for others.
        """
        timeout = min(self._rules.response_timeout, patience)
        return await self._send(self._api, outbound, response_timeout=timeout, on_close=slot.free)

    async def slot(self) -> Slot:
        """Wait for one of ``upstream.max_connections``, no longer than for a reply.

        Raises:
            Overloaded: none came free in time.
        """
        if not self._free.locked():
            await self._free.acquire()
            return Slot(self._free)
        since = asyncio.get_running_loop().time()
        self._waiting += 1
        if self._making_room is None:
            self._make_room()
        try:
            async with asyncio.timeout(self._rules.response_timeout):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded(
                f"All of upstream.max_connections were in use for {self._rules.response_timeout:g} s.",
                hint="Send fewer requests at a time, or raise the limit.",
                headers=(("Retry-After", "1"),),
            ) from error
        finally:
            self._waiting -= 1
        return Slot(self._free, waited=asyncio.get_running_loop().time() - since)

    def _make_room(self) -> None:
        """As long as somebody waits for a connection, take those that stalled clients hold, the longest first.

        A few hundred clients that read nothing would otherwise keep everybody else out for as long as they like.
        """
        self._making_room = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        stalled = sorted(
            (line for line in self._lines if line.idle_for(now) >= STALLED), key=lambda line: -line.idle_for(now)
        )
        for line in stalled[: self._waiting]:
            line.give_way()
        self._making_room = loop.call_later(MAKE_ROOM_EVERY, self._make_room)

    async def ask(self, form: Form) -> Answer:
        """Post a form to the accounts host and return its whole answer.

        Raises:
            UpstreamFault: there was no answer, or none within ``ANSWER_TIMEOUT``.
        """
        body = form.encode()
        headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        outbound = Outbound(method="POST", target=form.path, headers=headers, body=body)
        content = b""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                reply = await self._send(
                    self._accounts, outbound, response_timeout=ANSWER_TIMEOUT, on_close=lambda: None
                )
                try:
                    async for chunk in reply.chunks():
                        content += chunk
                        if len(content) > MAX_ANSWER:  # no answer of a token endpoint; what is cut off reads as none
                            break
                finally:
                    reply.close()
        except TimeoutError as error:
            raise _fault(error, reached=True, patience=ANSWER_TIMEOUT) from error
        return Answer(status=reply.status, headers=_by_name(reply), body=content)

    async def glance(self, *, accounts: bool) -> Answer:
        """Ask one of the two hosts for its front page, without a token, and return what it says but for the body.

        Raises UpstreamFault: it cannot be reached, or is not who it should be.
        """
        outbound = Outbound(method="GET", target="/", headers=[("Accept", "*/*")])
        reply = await self._send(
            self._accounts if accounts else self._api,
            outbound,
            response_timeout=ANSWER_TIMEOUT,
            on_close=lambda: None,
        )
        reply.close()
        return Answer(status=reply.status, headers=_by_name(reply), body=b"")

    async def _send(
        self, origin: _Origin, outbound: Outbound, *, response_timeout: float, on_close: Callable[[], None]
    ) -> Reply:
        """Make the one physical send; ``on_close`` is called once the reply is done with."""
        head = _head(outbound, origin.host)
        line: _Line | None = None
        try:
            connection = await self._connector.connect(origin.request, [], self._connect_timeout)
            line = _Line(connection, on_close, self._lines)
            message, content = await line.exchange(head, outbound, response_timeout=response_timeout)
            if message.code < 200:
                # 101 without having asked for an upgrade, which is not passed on (RFC 9110 §15.2.2).
                raise _not_http()
            if not content.is_eof():
                self._connector.bodies[line.protocol].content = content
            return Reply(message, content, line, idle_timeout=self._rules.idle_timeout)
        except BaseException as error:
            if line is not None:
                line.close(keep=False)  # which frees what it held; the caller does where there was none
            if isinstance(error, _GaveWayError):
                raise _gave_way() from error
            if isinstance(error, aiohttp.ClientError | HttpProcessingError | OSError):
                reached = line is not None and line.reached
                raise _fault(error, reached=reached, patience=response_timeout) from error
            raise


def _by_name(reply: Reply) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reply.headers}


def _head(outbound: Outbound, host: str) -> bytes:
    """Return the request line and headers as they go over the wire."""
    lines = [f"{outbound.method} {outbound.target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in outbound.headers]
    if callable(outbound.body) and not any(name.lower() == "content-length" for name, _ in outbound.headers):
        lines.append("Transfer-Encoding: chunked")
    head = "\r\n".join([*lines, "", ""])
    # No header that the parser or the settings let through holds a line end; one that did would be a second request.
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise ValueError("a line end within a header")
    return head.encode("utf-8")


def _ssl_context(rules: settings.Upstream) -> ssl.SSLContext | bool:
    """Return how certificates are verified: against the system's CAs, and ``ca_file`` besides."""
    if not rules.api_url.startswith("https:") and not rules.accounts_url.startswith("https:"):
        return True  # loopback only; reading the system's CAs takes 20 ms
    context = ssl.create_default_context()
    if rules.ca_file is not None:
        try:
            context.load_verify_locations(cafile=rules.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"upstream.ca_file: {rules.ca_file} is not a file of PEM certificates.", hint="Export the CA as PEM."
            ) from error
    return context


_CHECK_NETWORK = "Check the network and upstream.api_url."

# RFC 9209 §2.3 has a name for each way in which a connection does not come about.
_ERRNO = {
    errno.ECONNREFUSED: ("connection_refused", "SalesLoft's host refused the connection."),
    errno.EHOSTUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
    errno.ENETUNREACH: ("destination_ip_unroutable", "There is no route to SalesLoft's host."),
}


def _not_http() -> UpstreamUnreachable:
    return UpstreamUnreachable(
        "SalesLoft's reply was not valid HTTP.", reached=True, hint=_CHECK_NETWORK, proxy_error="http_protocol_error"
    )


def _fault(error: Exception, *, reached: bool, patience: float) -> UpstreamFault:
    """Return what a foreign exception means, with RFC 9209's name for it. Its text stays in the log."""
    hint = _CHECK_NETWORK
    match error:
        case aiohttp.ClientConnectorCertificateError():
            name, detail = "tls_certificate_error", "SalesLoft's certificate could not be verified."
            hint = "If a company proxy re-signs TLS, set upstream.ca_file to its CA. Verification is never turned off."
        case aiohttp.ClientConnectorSSLError():
            name, detail = "tls_protocol_error", "The TLS handshake with SalesLoft failed."
        case aiohttp.ClientConnectorDNSError():
            name, detail = "dns_error", "The name of SalesLoft's host could not be resolved."
        case TimeoutError() if not reached:
            name, detail = "connection_timeout", "Connecting to SalesLoft took too long."
        case TimeoutError():
            return UpstreamTimeout(
                f"SalesLoft did not answer within {patience:g} s.",
                reached=reached,
                hint="If it does not pass, see https://status.salesloft.com.",
            )
        case aiohttp.ClientConnectorError() if error.os_error.errno in (None, errno.ECONNRESET):
            name, detail = "connection_terminated", "SalesLoft's host closed the connection in the TLS handshake."
        case aiohttp.ClientConnectorError():
            name, detail = _ERRNO.get(
                error.os_error.errno or 0, ("destination_unavailable", "SalesLoft's host cannot be reached.")
            )
        case HttpProcessingError():
            return _not_http()
        case _:
            name, detail = "connection_terminated", "The connection to SalesLoft broke before a reply came."
    return UpstreamUnreachable(detail, reached=reached, hint=hint, proxy_error=name)
