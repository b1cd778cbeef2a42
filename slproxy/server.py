"""The listening side: aiohttp's server, and what it decides wrongly for a proxy.

1. Bodies are passed on as they came: nothing is decompressed on the way in (hazards, trap 3).
2. ``100 Continue`` is sent when the body is first wanted, so never to a request that Check refused.
3. A reply gets no header that the upstream did not send: aiohttp would add Content-Type, Date and Server.
4. A reply that breaks off is cut off: the client must never take a short body for a whole one.
5. A client that leaves cancels its request, and so the upstream's.
6. Nobody holds a connection for nothing: a head, a body and the taking of a reply each have their time, and past
   ``limits.max_connections`` the longest idle connection gives way, or the newcomer is told.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, hdrs, web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from multidict import CIMultiDict

from slproxy import cors
from slproxy.errors import (
    BadRequest,
    ConfigError,
    InternalError,
    MethodRefused,
    Overloaded,
    Problem,
    TooLarge,
    UpstreamFault,
)
from slproxy.forward import Answer, Inbound
from slproxy.headers import Fields, by_name
from slproxy.journal import Exchange, Journal, path_of
from slproxy.settings import Limits

log = logging.getLogger("slproxy.server")

# How much of a body is read ahead of an upstream that takes it slowly; aiohttp stops at twice this.
READ_AHEAD = 16 * 1024
# Idle connections of clients are kept as long as nginx keeps them.
KEEPALIVE = 75.0
# Room for the method and the version around a request target.
REQUEST_LINE_REST = 64
# A client that takes nothing of a reply for so long is cut off, in seconds; nginx's send_timeout.
SEND_TIMEOUT = 60.0
# When there are too many connections, those give way that have waited for a request for so long, in seconds: one that
# has had an answer before, and one that has not and may be about to ask.
IDLE_LONG, IDLE_LONG_UNASKED = 1.0, 5.0
# How long a connection past the limit may take to ask, so that it can be told, in seconds.
REFUSAL_PATIENCE = 1.0
# Looking for room takes a while, so not for each of a flood: for so long after a vain search, there is none.
NO_ROOM = 0.1
# What the log says of a client that left before it was answered; nginx's number for it.
CLIENT_LEFT = 499
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REPORT = "Please report it, with the traceback in the log."

Handle = Callable[[Inbound, Exchange], Awaitable[Answer]]


class Server(web.Server):
    """aiohttp's low-level server, without its router: paths are matched raw, by the policy."""

    def __init__(
        self,
        handle: Handle,
        limits: Limits,
        *,
        monotonic: Callable[[], float],
        journal: Journal | None = None,
        allow_origins: frozenset[str] = frozenset(),
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        """Serve by ``handle``, whose answers go to pages of ``allow_origins`` as well.

        Raises:
            ConfigError: aiohttp's compiled parser is missing; its fallback hangs on hostile input (hazards, trap 15).
        """
        if HttpRequestParser is HttpRequestParserPy:
            raise ConfigError(
                "aiohttp was installed without its compiled HTTP parser.",
                hint="Install its wheel: pip install --force-reinstall --only-binary :all: aiohttp",
            )
        super().__init__(
            self._serve,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=KEEPALIVE,
            read_bufsize=READ_AHEAD,
            max_line_size=limits.max_target + REQUEST_LINE_REST,
            max_field_size=limits.max_headers,
            # Their size is limited, not their number: a header takes at least four bytes.
            max_headers=limits.max_headers // 4,
        )
        self._handle = handle
        self._monotonic = monotonic
        self._journal = journal
        self._allow_origins = allow_origins
        self.limits = limits
        self.send_timeout = send_timeout
        self._admitted: set[_Connection] = set()
        self._refused: set[_Connection] = set()
        self._no_room_until = 0.0
        self._in_flight: set[Exchange] = set()
        # No request comes after those in flight; those that are still there are cut off.
        self._draining = self._cutting = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.served = 0

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    @property
    def in_flight(self) -> int:
        """The number of requests that are being served."""
        return len(self._in_flight)

    async def drain(self, patience: float) -> bool:
        """Wait until no request is in flight, for ``patience`` seconds at most; tell whether that came true."""
        self._draining = True
        for connection in self._admitted | self._refused:
            connection.close_if_idle()
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            return False
        finally:
            self._cutting = True
        return True

    def admit(self, connection: _Connection) -> bool:
        """Count a new connection; tell whether there is room for it, after making some where that harms nobody."""
        admitted = len(self._admitted) < self.limits.max_connections or self._make_room()
        (self._admitted if admitted else self._refused).add(connection)
        return admitted

    def forget(self, connection: _Connection) -> None:
        """Count a connection no more."""
        self._admitted.discard(connection)
        self._refused.discard(connection)

    @property
    def is_flooded(self) -> bool:
        """Whether there are too many connections even to wait for what each of them asks."""
        return len(self._refused) > self.limits.max_connections

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, if that is long."""
        now = self._loop.time()
        if now < self._no_room_until:
            return False
        longest = max(self._admitted, key=lambda connection: connection.idle_too_long(now))
        if longest.idle_too_long(now) < 0:
            self._no_room_until = now + NO_ROOM
            return False
        self._admitted.discard(longest)
        longest.force_close()
        return True

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request: the outermost frame, where whatever went wrong becomes an answer and a line in the log."""
        connection = _connection(request)
        exchange = Exchange(method=request.method, path=path_of(request.raw_path), started=self._monotonic())
        self._in_flight.add(exchange)
        self._idle.clear()
        self.served += 1
        answer: Answer | None = None
        try:
            answer = await self._answer(request, exchange)
            if self._allow_origins:
                answer.headers.extend(cors.shared(by_name(request.raw_headers), self._allow_origins))
            exchange.status = answer.status
            return await _respond(request, answer, exchange, last=self._draining or connection.refused)
        except (asyncio.CancelledError, ConnectionError):
            exchange.status = exchange.status or CLIENT_LEFT
            exchange.ended = exchange.ended or (
                "client took nothing" if connection.stalled else "shut down" if self._cutting else "client left"
            )
            raise
        finally:
            if answer is not None:
                answer.close()
            connection.went_idle()
            self._in_flight.discard(exchange)
            if not self._in_flight:
                self._idle.set()
            self.record(exchange)

    def record(self, exchange: Exchange) -> None:
        """Write the line of an exchange that has ended."""
        if self._journal is not None:
            self._journal.record(exchange, now=self._monotonic())

    def unparsed(self, answer: Answer, error: str) -> None:
        """Write the line of a request that did not parse."""
        self.record(Exchange(method="-", path="-", started=self._monotonic(), status=answer.status, error=error))

    async def _answer(self, request: web.BaseRequest, exchange: Exchange) -> Answer:
        try:
            if _connection(request).refused:
                raise _overloaded()
            return await self._handle(_inbound(request, self.limits), exchange)
        except Problem as problem:
            answered = problem
            if (cause := problem.__cause__) is not None:
                # The system's own words help; a parser's quote the bytes that it choked on.
                log.info("%s: %s", problem.type, cause if isinstance(cause, OSError) else type(cause).__name__)
        except Exception:
            log.exception("a defect in slproxy")
            answered = InternalError("slproxy failed on this request.", hint=_REPORT)
        exchange.error = answered.type
        answer = problem_answer(answered)
        if exchange.attempts > 1:
            answer.headers.append(("X-Slproxy-Attempts", str(exchange.attempts)))
        return answer


def _overloaded() -> Overloaded:
    return Overloaded(
        "There are more connections than limits.max_connections.",
        hint="Close some, or raise the limit.",
        headers=(("Retry-After", "1"),),
    )


def _connection(request: web.BaseRequest) -> _Connection:
    connection = request.protocol
    assert isinstance(connection, _Connection), "our server makes no others"
    return connection


def problem_answer(problem: Problem) -> Answer:
    """Return a problem as the client gets it: RFC 9457 with RFC 9209's ``Proxy-Status``."""
    body = problem.body()
    headers: Fields = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Proxy-Status", problem.proxy_status),
        *problem.headers,
    ]
    return Answer(status=problem.status, headers=headers, body=body)


def _raw(answer: Answer, reason: str) -> bytes:
    """Return a problem as it goes over the wire to a client that gets nothing else."""
    assert isinstance(answer.body, bytes), "a problem is short"
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in answer.headers)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + answer.body


def _inbound(request: web.BaseRequest, limits: Limits) -> Inbound:
    length = request.headers.get(hdrs.CONTENT_LENGTH)
    return Inbound(
        method=request.method,
        target=request.raw_path,
        headers=request.raw_headers,
        # A body that is said to be empty is a body all the same to who reads headers; there is nothing to read.
        has_body=request.body_exists and length != "0",
        length=int(length) if length is not None else None,
        read=_reader(request, limits.body_timeout),
    )


def _reader(request: web.BaseRequest, patience: float) -> Callable[[], Awaitable[bytes]]:
    """Return what reads the next bytes of the body, and says ``100 Continue`` before the first."""
    content = request.content
    expects = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"

    async def read() -> bytes:
        nonlocal expects
        if expects:
            expects = False
            await request.writer.write(CONTINUE)
            # aiohttp takes written bytes for a response that has begun (web_protocol.py, handle_error).
            request.writer.output_size = 0
        try:
            if (chunk := content.read_nowait()) or content.at_eof():
                return chunk
            async with asyncio.timeout(patience):
                return await content.readany()
        except TimeoutError as error:
            raise BadRequest(
                f"Nothing of the request's body came for {patience:g} s (limits.body_timeout).",
                hint="Send it without pauses.",
                status=408,
            ) from error
        except (web.RequestPayloadError, ClientError, ValueError) as error:
            raise BadRequest("The body of the request broke off or does not parse.", hint="Send it whole.") from error

    return read


class _Response(web.StreamResponse):
    """A response with the headers it was given, and no others but those that frame it."""

    # aiohttp would write the headers on their own; they go out with the first bytes of the body instead.
    _send_headers_immediately = False

    def __init__(self, *, status: int, reason: str | None, headers: Fields, whole: bytes = b"") -> None:
        """``whole`` is the body, where it need not be streamed."""
        super().__init__(status=status, reason=reason, headers=CIMultiDict(headers))
        self._whole = whole

    async def write_eof(self, data: bytes = b"") -> None:
        """End the response; aiohttp calls this without arguments on whatever a handler returns."""
        await super().write_eof(data or (b"" if self._must_be_empty_body else self._whole))

    async def _prepare_headers(self) -> None:
        """Frame the message for this hop.

        Overridden because aiohttp's own adds Content-Type, Date and Server, and there is no switch for it
        (aiohttp/web_response.py, ``StreamResponse._prepare_headers``).
        """
        request, writer = self._req, self._payload_writer
        assert request is not None
        assert writer is not None
        keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
        if not self._must_be_empty_body:
            length = self.headers.get(hdrs.CONTENT_LENGTH)
            if length is not None:
                writer.length = int(length)
            elif request.version >= HttpVersion11:
                writer.enable_chunking()
                self.headers[hdrs.TRANSFER_ENCODING] = "chunked"
            else:
                keep_alive = False
        self._keep_alive = keep_alive
        if not keep_alive:
            self.headers[hdrs.CONNECTION] = "close"
        elif request.version < HttpVersion11:
            self.headers[hdrs.CONNECTION] = "keep-alive"


async def _respond(request: web.BaseRequest, answer: Answer, exchange: Exchange, *, last: bool) -> web.StreamResponse:
    """Send an answer to the client, as it comes and no faster than the client takes it; the ``last`` one closes."""
    whole = answer.body if isinstance(answer.body, bytes) else b""
    response = _Response(status=answer.status, reason=answer.reason, headers=answer.headers, whole=whole)
    if last:
        response.force_close()
    if isinstance(answer.body, bytes):
        return response
    await response.prepare(request)
    try:
        first = answer.body.read_nowait()
        if answer.body.ended:
            await response.write_eof(first)
            return response
        if first:
            await response.write(first)
        else:
            # The head does not wait for a body that may be long in coming.
            request.writer.send_headers()
        async for chunk in answer.body.chunks():
            await response.write(chunk)
    except (UpstreamFault, Overloaded) as fault:
        exchange.ended = "upstream broke off" if isinstance(fault, UpstreamFault) else "gave way to others"
        log.warning("%s %s: %s", exchange.method, exchange.path, fault.detail)
        _abort(request)
        return response
    await response.write_eof()
    return response


def _abort(request: web.BaseRequest) -> None:
    """Cut the client's connection off with a reset, which no client takes for the end of a body."""
    transport = request.transport
    if transport is None:
        return
    if (peer := transport.get_extra_info("socket")) is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class _Connection(web.RequestHandler):
    """One connection of a client: how long it may take for what, and what it is told when it does not parse."""

    __slots__ = ("_has_begun", "_head_timer", "_idle_since", "_sending_timer", "_server", "refused", "stalled")

    def __init__(self, server: Server, **options: object) -> None:
        super().__init__(server, **options)  # type: ignore[arg-type]  # aiohttp's own options, passed through
        self._server = server
        self._idle_since = self._loop.time()
        # Whether a part of a head has come.
        self._has_begun = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._sending_timer: asyncio.TimerHandle | None = None
        # Past the limit of connections: there is one answer for it.
        self.refused = False
        # Cut off since it took nothing of its reply.
        self.stalled = False

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being served, or waits to be: aiohttp's own sign for it (``_process_keepalive``)."""
        return self._request_count == 0 or (self._waiter is not None and not self._waiter.done())

    def close_if_idle(self) -> None:
        """Close a connection on which nobody waits for anything."""
        if self._is_idle:
            self.force_close()

    def idle_too_long(self, now: float) -> float:
        """Return by how many seconds it has been idle for longer than it may be when room is needed."""
        if not self._is_idle:
            return -math.inf
        return now - self._idle_since - (IDLE_LONG if self._request_count else IDLE_LONG_UNASKED)

    def went_idle(self) -> None:
        """Take note that a request has ended."""
        self._idle_since = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head, or refuse to."""
        super().connection_made(transport)
        self.refused = not self._server.admit(self)
        if self.refused and self._server.is_flooded:
            self._tell(_overloaded(), "Service Unavailable")
            return
        self._await_head(min(REFUSAL_PATIENCE, self._server.limits.header_timeout) if self.refused else None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End with the connection."""
        self._server.forget(self)
        for timer in (self._head_timer, self._sending_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _await_head(self, patience: float | None = None) -> None:
        if self._head_timer is None:
            seconds = self._server.limits.header_timeout if patience is None else patience
            self._head_timer = self._loop.call_later(seconds, self._head_overdue, seconds)

    def _stop_awaiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_overdue(self, patience: float) -> None:
        """Give up on a head that does not come; aiohttp has no limit for it but that of idle connections."""
        self._head_timer = None
        if not self._is_idle:
            return
        if self.refused:
            self._tell(_overloaded(), "Service Unavailable")
        elif self._has_begun:
            self._tell(
                BadRequest(
                    f"The request's head did not come within {patience:g} s (limits.header_timeout).",
                    hint="Send it at once.",
                    status=408,
                ),
                "Request Timeout",
            )
        else:
            self.force_close()

    def _tell(self, problem: Problem, reason: str) -> None:
        """Answer a connection on which no request has come, and close it."""
        answer = problem_answer(problem)
        self._server.unparsed(answer, problem.type)
        if self.transport is not None:
            self.transport.write(_raw(answer, reason))
        self.force_close()

    def pause_writing(self) -> None:
        """Watch a client that does not take what is written to it; asyncio would wait for as long as it likes."""
        super().pause_writing()
        if self.transport is not None:
            self._watch_sending(self.transport, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Watch no more."""
        super().resume_writing()
        if self._sending_timer is not None:
            self._sending_timer.cancel()
            self._sending_timer = None

    def _watch_sending(self, transport: asyncio.Transport, size: int) -> None:
        self._sending_timer = self._loop.call_later(self._server.send_timeout, self._check_sending, transport, size)

    def _check_sending(self, transport: asyncio.Transport, before: int) -> None:
        if (size := transport.get_write_buffer_size()) < before:
            self._watch_sending(transport, size)
        else:
            self.stalled = True
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; fail a body that does not parse.

        aiohttp queues the error as a further message and leaves the body of the current one open, so that whoever
        reads it waits for ever (aiohttp/web_protocol.py, ``data_received``). A message can only be queued behind a
        body that has not ended when it is such an error.
        """
        super().data_received(data)
        if self._is_idle:
            if data.strip(b"\r\n"):  # line ends before a head are nothing (RFC 9112 §2.2)
                self._has_begun = True
                self._await_head()
        elif self._head_timer is not None or self._has_begun:
            self._has_begun = False
            self._stop_awaiting()
        request = self._current_request
        if request is None or not self._messages:
            return
        body = request.content
        if not body.is_eof() and body.exception() is None:
            body.set_exception(web.RequestPayloadError("the body does not parse"))

    def handle_error(
        self,
        request: web.BaseRequest,  # aiohttp's signature, here and below
        status: int = 500,  # noqa: ARG002
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer with a problem: aiohttp's own page names its version and echoes the offending bytes.

        Raises ConnectionError, with which aiohttp ends the connection, where there is nobody to answer, or where an
        answer has begun: a second one would be written into the first.
        """
        if isinstance(exc, ConnectionError):
            raise exc
        if request.writer.output_size > 0:
            log.error("a defect in slproxy, in the middle of a response", exc_info=exc)
            _abort(request)
            raise ConnectionError from exc
        problem: Problem
        if isinstance(exc, LineTooLong):
            # Its arguments are the line and the limit that it broke (aiohttp/http_exceptions.py).
            target = exc.args[1] == self.max_line_size
            what = "request target" if target else "header block"
            problem = TooLarge(f"The {what} is over the limit.", hint="Send less.", status=414 if target else 431)
        elif isinstance(exc, BadHttpMethod):
            problem = MethodRefused(
                "The method is not one this proxy knows.",
                hint="Use a method of HTTP. If this was TLS: the proxy speaks plain HTTP, use http://.",
                status=501,
            )
        elif isinstance(exc, HttpProcessingError):
            problem = BadRequest("The request is not valid HTTP/1.1.", hint="Send it with an HTTP client.")
        else:
            log.error("a defect in slproxy", exc_info=exc)
            problem = InternalError("slproxy failed on this request.", hint=_REPORT)
        answer = problem_answer(problem)
        self._server.unparsed(answer, problem.type)
        response = _Response(status=answer.status, reason=None, headers=answer.headers, whole=problem.body())
        response.force_close()
        return response
