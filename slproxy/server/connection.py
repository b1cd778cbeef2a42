"""Client connection: its timeouts, how it ends, and the answers to what does not parse.

aiohttp has one limit for an idle connection and a head that does not come, none for a client that takes nothing, and
pages of its own for what does not parse. Each override says what it is there for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Awaitable
from typing import Protocol, cast

from aiohttp import StreamReader, web

from slproxy.config import LimitSettings
from slproxy.errors import InternalError, Problem
from slproxy.forward import Answer
from slproxy.server.aiohttp_private import RequestHandler
from slproxy.server.arrival import Arrival, Heads, too_large, too_many
from slproxy.server.client_end import ClientEnd
from slproxy.server.client_request import ClientRequest
from slproxy.server.framing import has_rtsp
from slproxy.server.lingering import LINGER_TIME, LINGER_TIME_OVER_LIMIT, Linger
from slproxy.server.response import REPORT, Response, on_the_wire, problem_answer, reset
from slproxy.server.trailers import TrailerWatch
from slproxy.server.unparsed import head_too_late, headers_too_large, limit_problem, other_protocol, unparsed_problem
from slproxy.server.unsent import unsent
from slproxy.sockets import Peers

log = logging.getLogger("slproxy.server")

# When there are too many connections, one that has been idle for so long is closed for another, in seconds.
EVICT_AFTER = 1.0
# How long a connection past the limit may take to send a request before it is answered all the same, in seconds.
OVER_LIMIT_TIMEOUT = 1.0

# What the kernel may hold of a reply, in bytes; Linux doubles it (socket(7)).
SEND_BUFFER = 64 * 1024


class Registry(Protocol):
    """The connections that there are."""

    def register(self, connection: ClientConnection) -> bool: ...

    def unregister(self, connection: ClientConnection) -> None: ...

    def turned_away(self) -> None: ...


class Owner(Protocol):
    """The server of a connection: its limits, and who is told."""

    limits: LimitSettings
    send_timeout: float
    peers: Peers
    heads: Heads

    @property
    def admission(self) -> Registry: ...

    async def serve(self, request: ClientRequest, connection: ClientConnection) -> Response: ...

    def answer_unparsed(self, problem: Problem) -> Answer: ...

    def overloaded(self) -> Problem: ...


class ClientConnection(RequestHandler):
    """One connection of a client: how long it may take for what, and what it is told when it does not parse."""

    # From `connection_made` on.
    client: ClientEnd

    __slots__ = (
        "_arrival",
        "_head_timer",
        "_linger",
        "_pauses",
        "_send_timer",
        "_server",
        "_trailers",
        "client",
        "ends_with_client",
        "idle_since",
        "is_stalled",
        "not_http",
        "other_user",
        "over_limit",
    )

    def __init__(self, server: Owner, **options: object) -> None:
        super().__init__(server, **options)  # type: ignore[arg-type]  # aiohttp's own options, passed through
        self._server = server
        self.current_request, self.written = None, 0
        # When its last request ended, in the loop's time.
        self.idle_since = self.loop.time()
        self._trailers = TrailerWatch()
        self._arrival = Arrival(self.max_line_size + self.max_field_size)
        self.limit_pipeline()
        # Whether its client speaks another protocol, which the parser takes for HTTP.
        self.not_http = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        # From the last answer on.
        self._linger: Linger | None = None
        # How often its client has not taken at once what was written.
        self._pauses = 0
        # The uid of its client, where that is another user of this machine.
        self.other_user: int | None = None
        # Past `limits.max_connections`: its one answer is a 503.
        self.over_limit = False
        # Whether nothing is left to do once its client has closed its half: the answer has no end of its own.
        self.ends_with_client = False
        # Whether it was cut off since its client read nothing of the reply.
        self.is_stalled = False

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being served, or waits to be: aiohttp's own sign for it (``_process_keepalive``)."""
        return self.requests_begun == 0 or (self.waiter is not None and not self.waiter.done())

    @property
    def is_busy(self) -> bool:
        """Whether a request is being served on it, or waits to be."""
        return self._linger is None and not self._is_idle

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being served on it."""
        if self._is_idle:
            self.linger()

    def turn_away(self) -> None:
        """Close at once what is past the limit, or lingers while others wait; a client that has not asked is told."""
        if self._linger is None and self._is_idle:
            self._tell_over_limit()
        self.force_close()

    def _tell_over_limit(self) -> None:
        self._server.admission.turned_away()
        if self.transport is not None:
            self.transport.write(on_the_wire(problem_answer(self._server.overloaded())))

    def evictable_for(self, now: float) -> float:
        """Return for how many seconds it could have been closed for a newcomer; less than none where it cannot yet."""
        if self._linger is not None:
            return now - self.idle_since
        if not self._is_idle:
            return -math.inf
        return now - self.idle_since - EVICT_AFTER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit what the kernel buffers, and begin to wait for a head."""
        super().connection_made(transport)
        stream = cast("asyncio.Transport", transport)  # uvloop's are none of asyncio's classes
        # Every byte that waits is watched (`pause_writing`), and the kernel's share of them is small, or a client that
        # reads slowly would look like one that does not: Linux says that there is room only once a third is free.
        stream.set_write_buffer_limits(high=0)
        is_local = False
        if (peer := stream.get_extra_info("socket")) is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            # At once: whose a socket was cannot be told once its client has closed it.
            self.other_user, is_local = self._server.peers.client(peer)
        self.client = ClientEnd(stream, self._server.peers, is_local=is_local)
        self.over_limit = not self._server.admission.register(self)
        if self.transport is None:
            return  # turned away at once
        self._start_head_timer(min(OVER_LIMIT_TIMEOUT, self._server.limits.header_timeout) if self.over_limit else None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timers of a connection that is gone."""
        self._server.admission.unregister(self)
        self._server.heads.forget(self)
        for timer in (self._head_timer, self._send_timer, self._linger):
            if timer is not None:
                timer.cancel()
        if self.current_request is not None:
            self.current_request.body.set_exception(exc or ConnectionResetError("the client has left"))
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  # aiohttp's signature
        """Close for the shutdown; a reply that is not whole is cut off, or it would look whole to HTTP/1.0."""
        if not (self._is_idle if self._linger is None else self._linger.is_sent):
            reset(self.transport)
        await super().shutdown(timeout)

    def begin_request(self, request: ClientRequest) -> None:
        """Serve a request: its client is watched until it is sent."""
        self.client.hold(request)
        if self.client.has_ended:
            self._end_with(request.body)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for it; aiohttp never says yes
        """Keep a half-closed connection: its client may still read the answer, and is looked at from now on."""
        if self._is_idle or self._linger is not None or self.ends_with_client:
            return False
        self.client.has_ended = True
        self._end_with(self._arrival.body)
        return True

    def _end_with(self, body: StreamReader) -> None:
        """Close after the answer to a request, if it is the last one; fail its body if that is not whole."""
        if self.queue:
            return  # the turn of the last one is yet to come (`begin_request`)
        if not body.is_eof() and body.exception() is None:
            self._fail(body, web.RequestPayloadError("the client ended within the body"))
        self.close()

    def _fail(self, body: StreamReader, error: Exception) -> None:
        """Let the reader of a body fail; aiohttp would read on, and raise it once more.

        A reader looks for an error only before it waits (aiohttp/streams.py, ``read``). One that the end of a chunk has
        just woken would wait again, without end: so it is told once more after that.
        """
        body.set_exception(error)
        self.loop.call_soon(body.set_exception, error)
        self.skip_rest_of_body()

    def _start_head_timer(self, timeout: float | None = None) -> None:
        if self._head_timer is None:
            seconds = self._server.limits.header_timeout if timeout is None else timeout
            self._head_timer = self.loop.call_later(seconds, self._head_timed_out, seconds)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self, timeout: float) -> None:
        """Answer 408 to a head that does not arrive; aiohttp has no timeout for it but that of idle connections."""
        self._head_timer = None
        if not self._is_idle or self.loop.time() - self.idle_since < timeout / 2:
            # A client that still waits for an answer has this time for its next head from then on.
            if self._arrival.has_begun:
                self._start_head_timer(timeout)
            return
        if self.over_limit:
            self._tell_over_limit()
            self.linger()
        elif self._arrival.has_begun:
            self._reply_and_close(head_too_late(timeout))
        else:
            self.linger()

    def _reply_and_close(self, problem: Problem) -> None:
        """Answer where no request has parsed, and close."""
        answer = self._server.answer_unparsed(problem)
        if self.transport is not None:
            self.transport.write(on_the_wire(answer))
        self.linger()

    def linger(self) -> None:
        """Close after the last answer; throw away what the client still sends meanwhile."""
        if self._linger is not None:
            return
        transport, self.transport = self.transport, None
        self.force_close()  # which ends aiohttp's part, and would close a transport that it finds
        self.stop_parsing()
        if transport is None or transport.is_closing():
            return
        self.transport = transport
        self.idle_since = self.loop.time()
        # A half-closed client sends nothing more.
        if self.client.has_ended:
            self.force_close()
            return
        self._stop_head_timer()
        seconds = LINGER_TIME_OVER_LIMIT if self.over_limit else LINGER_TIME
        try:
            self._linger = Linger(transport, self.force_close, seconds=seconds, loop=self.loop)
        except OSError:
            self.force_close()  # the client has left with a reset

    def pause_writing(self) -> None:
        """Look at a client that does not take what is written; asyncio would wait without end."""
        super().pause_writing()
        self._pauses += 1
        if self._send_timer is None and self.transport is not None:
            self._start_send_timer(self.transport)

    def _start_send_timer(self, transport: asyncio.Transport) -> None:
        self._send_timer = self.loop.call_later(
            self._server.send_timeout, self._check_client_takes, transport, self._pauses, self._taken(transport)
        )

    def _check_client_takes(self, transport: asyncio.Transport, pauses: int, taken: int) -> None:
        """Cut off a client that has taken nothing since there were so many pauses, and it had ``taken`` so much."""
        self._send_timer = None
        if not self.writing_paused:
            return
        if pauses != self._pauses or self._taken(transport) > taken:
            self._start_send_timer(transport)
        else:
            self.is_stalled = True
            reset(transport)

    def _taken(self, transport: asyncio.Transport) -> int:
        """Return how much of the reply the client has read, less what the kernel still holds, in bytes."""
        return self.written - unsent(transport)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; fail a body that does not parse.

        aiohttp queues the error as a further message and leaves the body of the current one open, so that its
        reader waits for ever (aiohttp/web_protocol.py, ``data_received``). A message can only be queued behind a
        body that has not ended when it is such an error.
        """
        if self._linger is not None:
            self._linger.throw_away(len(data))
            return
        if self.parser is None:
            return
        arrival, before = self._arrival, self.requests_begun
        if not (before or arrival.head) and (other := other_protocol(data)) is not None:
            log.info("a client began another protocol: %s", other.detail)
            self._reply_and_close(other)
            return
        super().data_received(data)
        parsed = self.requests_begun - before
        requests = list(self.queue)[-parsed:] if parsed else []
        body = arrival.body
        came = arrival.behind_body(data, in_chunks=self._trailers.body is not None)
        if parsed > 0:
            self._stop_head_timer()
            heads = came.lstrip(b"\r\n")
            lines = heads[: heads.find(b"\n")] if parsed == 1 else heads
            if b"RTSP/" in lines and has_rtsp(heads, requests):
                self.not_http = True
            arrival.begin(came, requests)
            if self.waiter is None:
                arrival.wait(came, behind_others=len(self.queue) > parsed)
        else:
            arrival.keep(came)
            if arrival.is_over:
                self._refuse_rest()
                return
        if arrival.has_begun:
            self._start_head_timer()
        chunked = parsed > 1 or (parsed == 1 and getattr(requests[0][0], "chunked", False))
        if (chunked or self._trailers.body is not None) and self._trailers.feed(data, requests):
            self.close()
        if parsed > 0 and not body.is_eof() and body.exception() is None:
            # The reason is in the queue; a trailer over the limit is told as a header is, however it was cut in pieces.
            problem = limit_problem(self.queued_error(), max_line_size=self.max_line_size)
            self._fail(body, problem or web.RequestPayloadError("the body does not parse"))
        if arrival.unfinished or (parsed > 0 and self.waiter is None):
            self._server.heads.count(self)

    @property
    def held(self) -> int:
        """How much there is of heads and trailers that are not whole, or wait for their turn, in bytes."""
        return 0 if self.parser is None else self._arrival.held(is_waiting=bool(self.queue))

    def give_way(self) -> None:
        """Take no further request: what all connections hold is over the limit."""
        self.stop_parsing()
        if self._is_idle:
            self._reply_and_close(too_many())
            return
        if not (body := self._arrival.body).is_eof():
            self._fail(body, too_many())
        self.close()

    def _refuse_rest(self) -> None:
        """Refuse what is over the limit before it is whole, in its turn; it is the end of this connection."""
        self.stop_parsing(serve_waiting=True)
        if (body := self._arrival.body).is_eof():
            self.queue_error(too_large(self._arrival.head))
        elif self.current_request is None and not self.queue:
            self.linger()  # which the rest of a body does not, once its request has been answered
        else:
            self._fail(body, headers_too_large())
            if not self.queue:
                self.close()

    def serve(self, request: ClientRequest) -> Awaitable[Response]:
        """Answer a request."""
        return self._server.serve(request, self)

    def error_response(self, request: ClientRequest, error: BaseException) -> Response:
        """Answer with a problem: aiohttp's own page names its version and echoes the offending bytes.

        Raises ConnectionError, with which the connection ends, where an answer has begun: a second one would be written
        into the first.
        """
        if self.written > 0:
            log.error("a defect in slproxy, in the middle of a response", exc_info=error)
            reset(self.transport)
            raise ConnectionError from error
        problem = unparsed_problem(error, max_line_size=self.max_line_size)
        if problem is None:
            log.error("a defect in slproxy", exc_info=error)
            problem = InternalError("slproxy failed on this request.", hint=REPORT)
        answer = self._server.answer_unparsed(problem)
        return Response(self, request, answer, last=True)
