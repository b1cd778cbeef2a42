"""Server: accepts connections, limits them, and serves each request.

It stands on aiohttp's server, and changes what that decides wrongly for a proxy:

1. Bodies are passed on as they came: nothing is decompressed on the way in (docs/hazards.md, trap 3).
2. ``100 Continue`` is sent when the body is first read, so never to a request that Check refused.
3. A reply gets no header that the upstream did not send: aiohttp would add Content-Type, Date and Server.
4. A reply that breaks off is cut off: the client must never take a short body for a whole one.
5. A client that leaves cancels its request, and so the upstream's.
6. A connection is not held for nothing: a head, a body and the reading of a reply each have a timeout; idle ones give
   way (``admission``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, hdrs, web
from aiohttp.http import HttpVersion11
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from multidict import istr

from slproxy.config import LimitSettings
from slproxy.errors import BadRequest, ClientLeft, ConfigError, InternalError, Overloaded, Problem
from slproxy.forward import Answer, Inbound, cors
from slproxy.http import by_name
from slproxy.observe import LEFT, LEFT_WAITING, Audit, Exchange, Observer, loggable_path
from slproxy.server.admission import Admission
from slproxy.server.aiohttp_private import REST_TIMEOUT
from slproxy.server.arrival import Heads, most_headers
from slproxy.server.client_end import broken_body
from slproxy.server.client_request import ClientRequest
from slproxy.server.connection import ClientConnection
from slproxy.server.framing import request_fault
from slproxy.server.open_files import Room
from slproxy.server.respond import respond
from slproxy.server.response import REPORT, Response, overloaded, problem_answer
from slproxy.server.trace_context import trace_context
from slproxy.sockets import Peers

log = logging.getLogger("slproxy.server")

# How much of a body is read ahead of an upstream that takes it slowly; aiohttp stops at twice this.
BODY_READ_AHEAD = 16 * 1024
# Room for the method and the version around a request target.
REQUEST_LINE_REST = 64
# A client that takes nothing of a reply for so long is cut off, in seconds; nginx's send_timeout.
SEND_TIMEOUT = 60.0
# How often clients are looked at that wait, in seconds.
WATCH_EVERY = 0.25
# What the log says of a client that left before it was answered; nginx's number for it.
CLIENT_CLOSED_REQUEST = 499
REQUEST_ID = istr("X-Request-Id")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

Handle = Callable[[Inbound, Exchange], Awaitable[Answer]]


class Server(web.Server):
    """aiohttp's low-level server, without its router: paths are matched raw, by the policy."""

    def __init__(
        self,
        handle: Handle,
        limits: LimitSettings,
        *,
        monotonic: Callable[[], float],
        observer: Observer,
        audit: Audit | None = None,
        peers: Peers,
        room: Room,
        room_in: Callable[[int], int],
        allow_origins: frozenset[str] = frozenset(),
    ) -> None:
        """Serve by ``handle``, whose answers go to pages of ``allow_origins`` as well.

        ``room_in`` tells after how many seconds the first of so many requests will have ended.

        Raises:
            ConfigError: aiohttp's compiled parser is missing; its fallback hangs on hostile input
                (docs/hazards.md, trap 15).
        """
        if HttpRequestParser is HttpRequestParserPy:
            raise ConfigError(
                "aiohttp was installed without its compiled HTTP parser.",
                hint="Install its wheel: pip install --force-reinstall --only-binary :all: aiohttp",
            )
        # Called by aiohttp's own loop over requests, which is not used (`aiohttp_private.RequestHandler.start`).
        super().__init__(self.serve, handler_cancellation=True)  # type: ignore[arg-type]
        self._loop_time = asyncio.get_running_loop().time
        self.handle = handle
        self._room_in = room_in
        self._monotonic = monotonic
        self._observer, self._audit = observer, audit
        self.peers = peers
        self.admission = Admission(room)
        self.heads = Heads()
        self.reconfigure(limits, room, allow_origins=allow_origins)
        self.send_timeout = SEND_TIMEOUT
        self._in_flight: dict[Exchange, ClientConnection] = {}
        self._watching: asyncio.TimerHandle | None = None
        # Whether no request comes after those in flight, and whether those that are left are cut off.
        self._draining = self._aborting = False
        # Made by whoever waits for the end of a request.
        self._next_end: asyncio.Future[None] | None = None
        self.served = 0
        # Requests that were not sent, or not again, since their clients had left while they waited.
        self.spared = 0

    def __call__(self) -> web.RequestHandler:
        return ClientConnection(
            self,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            access_log=None,
            keepalive_timeout=0,  # the admission closes them, and with a linger
            lingering_time=REST_TIMEOUT,
            read_bufsize=BODY_READ_AHEAD,
            max_line_size=self.limits.max_target + REQUEST_LINE_REST,
            max_field_size=self.limits.max_headers,
            max_headers=most_headers(self.limits.max_headers),
        )

    def reconfigure(self, limits: LimitSettings, room: Room, *, allow_origins: frozenset[str]) -> None:
        """Put other settings in force for new connections and requests."""
        self.limits, self._allow_origins = limits, allow_origins
        self.admission.resize(room)
        self.heads.resize(limits.max_target + limits.max_headers)

    def overloaded(self) -> Overloaded:
        """Return the problem of a connection that is one too many."""
        return overloaded(self._room_in(self.in_flight), self.admission.room.limit)

    async def wait_for_in_flight(self) -> None:
        """Wait until the requests that are in flight now have ended."""
        now = set(self._in_flight)
        while now & self._in_flight.keys():
            await self._wait_for_end()

    async def _wait_for_end(self) -> None:
        """Wait until a request has ended."""
        if self._next_end is None:
            self._next_end = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._next_end)

    @property
    def in_flight(self) -> int:
        """The number of requests that are being served."""
        return len(self._in_flight)

    async def drain(self, grace: float) -> bool:
        """Wait until no request is in flight, for ``grace`` seconds at most; return whether none is."""
        self._draining = True
        for connection in self.admission.connections:
            connection.close_if_idle()
        try:
            async with asyncio.timeout(grace):
                while self._in_flight:
                    await self._wait_for_end()
        except TimeoutError:
            return False
        finally:
            self._aborting = True
        return True

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's signature
        """Close all connections."""
        self.admission.close()
        await super().shutdown(timeout)

    async def serve(self, request: ClientRequest, connection: ClientConnection) -> Response:
        """Serve one request: the outermost frame, where each failure becomes an answer and a line in the log."""
        connection.begin_request(request)
        request_id = self._observer.request_ids.kept(request.headers.get(REQUEST_ID))
        exchange = Exchange(request.method, loggable_path(request.target), self._monotonic(), request_id)
        if self._observer.takes_context:
            exchange.trace_context = trace_context(request.headers)
        for tell in self._observer.request_began:
            tell(exchange)
        self._in_flight[exchange] = connection
        if self._watching is None:
            self._watching = connection.loop.call_later(WATCH_EVERY, self._watch)
        self.served += 1
        answer: Answer | None = None
        try:
            answer = await self._answer(request, connection, exchange)
            connection.client.is_held = False
            if self._allow_origins:
                answer.headers.extend(cors.shared(by_name(request.raw_headers), self._allow_origins))
            exchange.status = answer.status
            if not answer.has_request_id:
                answer.headers.append((REQUEST_ID, exchange.id))
            if exchange.recording is not None:
                exchange.recording.answer = answer
            if answer.is_endless:
                connection.ends_with_client = True
                self._forget(exchange)
            # aiohttp drops what came in one packet behind a request for an upgrade to anything but WebSocket, and takes
            # the rest of it for a request of its own (web_protocol.py, `if upgraded and tail`).
            last = (
                self._draining
                or connection.over_limit
                or connection.is_closing
                or answer.close_connection
                or hdrs.UPGRADE in request.headers
                # Its client may leave the body out, and what it sends next would be taken for that (RFC 9110 §10.1.1).
                or (not request.body.is_eof() and hdrs.EXPECT in request.headers)
            )
            return await respond(request, connection, answer, exchange, last=last, may_end=self._may_end)
        except (asyncio.CancelledError, ConnectionError, ClientLeft) as end:
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
            exchange.aborted = exchange.aborted or self._why_aborted(connection)
            exchange.line = ""
            self.spared += exchange.aborted == LEFT_WAITING
            if isinstance(end, ClientLeft):
                raise ConnectionResetError from end
            raise
        finally:
            if answer is not None:
                answer.close()
            connection.client.release()
            connection.idle_since = self._loop_time()
            self._forget(exchange)
            self._request_ended(exchange)

    def _forget(self, exchange: Exchange) -> None:
        """Count a request as in flight no more."""
        if self._in_flight.pop(exchange, None) is not None and self._next_end is not None:
            self._next_end.set_result(None)
            self._next_end = None

    def _why_aborted(self, connection: ClientConnection) -> str:
        if connection.is_stalled:
            return "client stopped reading"
        if self._aborting:
            return "shut down"
        return LEFT_WAITING if connection.client.is_held else LEFT

    def _watch(self) -> None:
        """Look whether those are still there who wait."""
        self._watching = None
        for connection in self._in_flight.values():
            connection.client.watch()
        if self._in_flight:
            self._watching = asyncio.get_running_loop().call_later(WATCH_EVERY, self._watch)

    def _may_end(self, exchange: Exchange) -> bool:
        """Have the audit told of an answer whose last byte is about to go; return whether it may."""
        if self._audit is None:
            return True
        exchange.ended = self._monotonic()
        return self._audit.append(exchange)

    def _request_ended(self, exchange: Exchange) -> None:
        if not exchange.line:  # else it has ended when that was written
            exchange.ended = self._monotonic()
        for tell in self._observer.request_ended:
            tell(exchange)

    def answer_unparsed(self, problem: Problem) -> Answer:
        """Return the answer to a request that did not parse, and tell of it."""
        exchange = Exchange(
            method="-",
            path="-",
            began=self._monotonic(),
            id=self._observer.request_ids.new(),
            status=problem.status,
            error=problem.type,
        )
        answer = problem_answer(problem, request_id=exchange.id)
        answer.headers.append((REQUEST_ID, exchange.id))
        exchange.bytes_sent = len(answer.body) if isinstance(answer.body, bytes) else 0
        for tell in self._observer.request_began:
            tell(exchange)
        if exchange.recording is not None:
            exchange.recording.answer = answer
        self._request_ended(exchange)
        return answer

    async def _answer(self, request: ClientRequest, connection: ClientConnection, exchange: Exchange) -> Answer:
        try:
            if connection.over_limit and not await self.admission.admit(connection):
                raise self.overloaded()
            connection.over_limit = False
            if (fault := _fault(request, connection)) is not None:
                raise BadRequest(f"The request {fault}.", hint="Send HTTP/1.1, with Content-Length or chunked.")
            return await self.handle(_inbound(request, connection, self.limits, exchange), exchange)
        except ClientLeft:
            raise
        except Problem as problem:
            answered = problem
            if (cause := problem.__cause__) is not None:
                # The system's own words help; a parser's may quote the bytes it failed on.
                told = cause if isinstance(cause, OSError) else type(cause).__name__
                log.info("%s: %s", problem.type, told, extra={"request_id": exchange.id})
        except Exception:
            log.exception("a defect in slproxy", extra={"request_id": exchange.id})
            answered = InternalError("slproxy failed on this request.", hint=REPORT)
            if len(exchange.attempts) > 1:
                answered.headers = (("X-Slproxy-Attempts", str(len(exchange.attempts))),)
        exchange.error = answered.type
        return problem_answer(answered, request_id=exchange.id)


def _fault(request: ClientRequest, connection: ClientConnection) -> str | None:
    headers = request.headers
    is_plain = hdrs.TRANSFER_ENCODING not in headers and hdrs.CONTENT_LENGTH not in headers
    if is_plain and request.version == HttpVersion11 and not connection.not_http:
        return None
    return request_fault(
        version=None if connection.not_http else (request.version.major, request.version.minor),
        codings=headers.getall(hdrs.TRANSFER_ENCODING, ()),
        lengths=headers.getall(hdrs.CONTENT_LENGTH, ()),
    )


def _inbound(
    request: ClientRequest, connection: ClientConnection, limits: LimitSettings, exchange: Exchange
) -> Inbound:
    length = request.headers.get(hdrs.CONTENT_LENGTH)
    # By its headers, a body of length 0 is a body all the same; there is nothing to read.
    has_body = request.has_body and length != "0"
    return Inbound(
        request.method,
        request.target,
        request.raw_headers,
        has_body,
        None if length is None else int(length),
        _reader(request, connection, exchange, limits.body_timeout) if has_body else None,
        connection.other_user,
        connection.client,
    )


def _reader(
    request: ClientRequest, connection: ClientConnection, exchange: Exchange, timeout: float
) -> Callable[[], Awaitable[bytes]]:
    """Return a function that reads the next bytes of the body, and sends ``100 Continue`` before the first."""
    content = request.body
    # HTTP/1.0 knows no interim response (RFC 9110 §10.1.1).
    expects = request.version >= HttpVersion11 and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"

    async def read() -> bytes:
        nonlocal expects
        try:
            if expects:
                expects = False
                await connection.write(CONTINUE)
                connection.written = 0  # no response has begun
            chunk = content.read_nowait()
            if not chunk and not content.at_eof():
                async with asyncio.timeout(timeout), request.reading:
                    chunk = await content.readany()
        except TimeoutError as error:
            raise BadRequest(
                f"Nothing of the request's body came for {timeout:g} s (limits.body_timeout).",
                hint="Send it without pauses.",
                status=408,
            ) from error
        except (web.RequestPayloadError, ClientError, ValueError) as error:
            raise broken_body(error) from error
        exchange.bytes_received += len(chunk)
        return chunk

    return read
