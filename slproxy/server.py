"""The listening side: aiohttp's server, and what it decides wrongly for a proxy.

1. Bodies are passed on as they came: nothing is decompressed on the way in (hazards, trap 3).
2. ``100 Continue`` is sent when the body is first wanted, so never to a request that Check refused.
3. A reply gets no header that the upstream did not send: aiohttp would add Content-Type, Date and Server.
4. A reply that breaks off is cut off: the client must never take a short body for a whole one.
5. A client that leaves cancels its request, and so the upstream's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, hdrs, web
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from multidict import CIMultiDict

from slproxy.errors import BadRequest, InternalError, MethodRefused, Problem, TooLarge, UpstreamFault
from slproxy.forward import Answer, Inbound
from slproxy.headers import Fields
from slproxy.journal import Exchange, Journal, path_of
from slproxy.settings import Limits

log = logging.getLogger("slproxy.server")

# How much of a body is read ahead of an upstream that takes it slowly; aiohttp stops at twice this.
READ_AHEAD = 16 * 1024
# Idle connections of clients are kept as long as nginx keeps them.
KEEPALIVE = 75.0
# Room for the method and the version around a request target.
REQUEST_LINE_REST = 64
# What the log says of a client that left before it was answered; nginx's number for it.
CLIENT_LEFT = 499
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REPORT = "Please report it, with the traceback in the log."

Handle = Callable[[Inbound, Exchange], Awaitable[Answer]]


class Server(web.Server):
    """aiohttp's low-level server, without its router: paths are matched raw, by the policy."""

    def __init__(
        self, handle: Handle, limits: Limits, *, monotonic: Callable[[], float], journal: Journal | None = None
    ) -> None:
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
        self._in_flight: set[Exchange] = set()
        self._draining = False
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
        for connection in self.connections:
            if isinstance(connection, _Connection):
                connection.close_if_idle()
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request: the outermost frame, where whatever went wrong becomes an answer and a line in the log."""
        exchange = Exchange(method=request.method, path=path_of(request.raw_path), started=self._monotonic())
        self._in_flight.add(exchange)
        self._idle.clear()
        self.served += 1
        answer: Answer | None = None
        try:
            answer = await self._answer(request, exchange)
            exchange.status = answer.status
            return await _respond(request, answer, exchange, last=self._draining)
        except (asyncio.CancelledError, ConnectionError):
            exchange.status = exchange.status or CLIENT_LEFT
            exchange.ended = exchange.ended or "client left"
            raise
        finally:
            if answer is not None:
                answer.close()
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
            return await self._handle(_inbound(request), exchange)
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


def _inbound(request: web.BaseRequest) -> Inbound:
    length = request.headers.get(hdrs.CONTENT_LENGTH)
    return Inbound(
        method=request.method,
        target=request.raw_path,
        headers=request.raw_headers,
        # A body that is said to be empty is a body all the same to who reads headers; there is nothing to read.
        has_body=request.body_exists and length != "0",
        length=int(length) if length is not None else None,
        read=_reader(request),
    )


def _reader(request: web.BaseRequest) -> Callable[[], Awaitable[bytes]]:
    """Return what reads the next bytes of the body, and says ``100 Continue`` before the first."""
    expects = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"

    async def read() -> bytes:
        nonlocal expects
        if expects:
            expects = False
            await request.writer.write(CONTINUE)
            # aiohttp takes written bytes for a response that has begun (web_protocol.py, handle_error).
            request.writer.output_size = 0
        try:
            return await request.content.readany()
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
    except UpstreamFault as fault:
        exchange.ended = "upstream broke off"
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
    """One connection of a client; answers what does not parse in the proxy's own form."""

    __slots__ = ("_unparsed",)

    def __init__(self, server: Server, **options: object) -> None:
        super().__init__(server, **options)  # type: ignore[arg-type]  # aiohttp's own options, passed through
        self._unparsed = server.unparsed

    def close_if_idle(self) -> None:
        """Close a connection on which no request is being served, or waits to be."""
        if self._current_request is None and not self._messages:
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; fail a body that does not parse.

        aiohttp queues the error as a further message and leaves the body of the current one open, so that whoever
        reads it waits for ever (aiohttp/web_protocol.py, ``data_received``). A message can only be queued behind a
        body that has not ended when it is such an error.
        """
        super().data_received(data)
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
        self._unparsed(answer, problem.type)
        response = _Response(status=answer.status, reason=None, headers=answer.headers, whole=problem.body())
        response.force_close()
        return response
