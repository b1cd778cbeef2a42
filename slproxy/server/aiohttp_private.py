"""Private names of aiohttp's server, each with its place in aiohttp's source and the reason why it is needed.

No other file of this area uses one. aiohttp is capped in pyproject.toml below the first version that was not tested,
and ``tests/server/test_aiohttp_private.py`` names what a new version has lost. Places are those of aiohttp 3.14.5.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Iterable
from typing import NamedTuple, Protocol

from aiohttp import EMPTY_PAYLOAD, __version__, web, web_protocol
from aiohttp.http_exceptions import HttpProcessingError

from slproxy.errors import Problem
from slproxy.server.client_request import ClientRequest

log = logging.getLogger("slproxy.server")


class Private(NamedTuple):
    """A private name: whose it is, where aiohttp uses it, and what the proxy cannot do without it."""

    owner: type
    name: str
    place: str
    reason: str


PRIVATE_NAMES = (
    Private(
        web.RequestHandler,
        "_loop",
        "base_protocol.py, BaseProtocol.__init__",
        "Timers of a connection belong to the loop that it was made on.",
    ),
    Private(
        web.RequestHandler,
        "_request_count",
        "web_protocol.py, RequestHandler.data_received",
        "It tells whether bytes that arrived completed a head: aiohttp has no callback for one.",
    ),
    Private(
        web.RequestHandler,
        "_waiter",
        "web_protocol.py, RequestHandler.start",
        "It is pending while the connection waits for a request, which is how aiohttp itself tells an idle one.",
    ),
    Private(
        web.RequestHandler,
        "_messages",
        "web_protocol.py, RequestHandler.data_received",
        "Parsed requests, and errors of the parser, wait in it behind the request in hand.",
    ),
    Private(
        web.RequestHandler,
        "_max_msg_queue_size",
        "web_protocol.py, RequestHandler.data_received",
        "Requests that wait behind the one in hand are limited in number, and 32 heads of 64 KiB are too many.",
    ),
    Private(
        web.RequestHandler,
        "_msg_queue_resume_size",
        "web_protocol.py, RequestHandler.start",
        "Nothing is read on before all of them have been taken.",
    ),
    Private(
        web.RequestHandler,
        "_close",
        "web_protocol.py, RequestHandler.close",
        "close() sets it; the response in hand has to say Connection: close.",
    ),
    Private(
        web.RequestHandler,
        "_lingering_time",
        "web_protocol.py, RequestHandler.start",
        "aiohttp reads on in a body after its response, and would raise once more what did not parse in it.",
    ),
    Private(
        web.RequestHandler,
        "_force_close",
        "web_protocol.py, RequestHandler.force_close",
        "The loop over requests ends with the connection.",
    ),
    Private(
        web.RequestHandler,
        "_task_handler",
        "web_protocol.py, RequestHandler.connection_lost",
        "aiohttp cancels the task that serves requests by it; one that has ended by itself is none.",
    ),
    Private(
        web.RequestHandler,
        "_parser",
        "web_protocol.py, RequestHandler.start",
        "It stops at so many requests that wait, and goes on when it is told that one was taken.",
    ),
    Private(
        web.RequestHandler,
        "_buffer_paused",
        "web_protocol.py, RequestHandler.data_received",
        "Whether reading has stopped at so many requests that wait.",
    ),
    Private(
        web.RequestHandler,
        "_resume_reading_if_drained",
        "web_protocol.py, RequestHandler.start",
        "It goes on to read requests.",
    ),
    Private(
        web.RequestHandler,
        "_reading_paused",
        "base_protocol.py, BaseProtocol.resume_reading",
        "Whether reading has stopped for a body that is not taken; else there is nothing to go on with.",
    ),
    Private(
        web.RequestHandler,
        "_paused",
        "base_protocol.py, BaseProtocol.pause_writing",
        "Whether the client has not taken what was written.",
    ),
    Private(
        web.RequestHandler,
        "_drain_helper",
        "base_protocol.py, BaseProtocol.resume_writing",
        "It waits until the client has.",
    ),
    Private(
        web_protocol._ErrInfo,
        "exc",
        "web_protocol.py, RequestHandler.data_received",
        "The parser's error, which tells a limit from nonsense.",
    ),
)


def lost(names: Iterable[Private]) -> list[str]:
    """Return a sentence for each name that its owner no longer has."""
    return [
        f"aiohttp {__version__}: {each.owner.__name__} has no {each.name} (was in {each.place}). {each.reason}"
        for each in names
        if not hasattr(each.owner, each.name)
    ]


# How long the rest of a request's body is read and thrown away once it has its response, in seconds; aiohttp's own.
REST_TIMEOUT = 10.0


class Ends(Protocol):
    """A response, as far as the connection goes."""

    keep_alive: bool
    is_ended: bool

    async def write_eof(self) -> None: ...


class RequestHandler(web.RequestHandler):
    """aiohttp's connection, with public names for what the proxy reads of it.

    They are aliases of its slots, which mypy does not know of, so that reading one costs no call.
    """

    # The request in hand, and how much of its response was written, in bytes.
    current_request: ClientRequest | None
    written: int

    __slots__ = ("current_request", "written")

    @abstractmethod
    def serve(self, request: ClientRequest) -> Awaitable[Ends]:
        """Answer a request; what is left of its response is written by ``write_eof``."""

    @abstractmethod
    def error_response(self, request: ClientRequest, error: BaseException) -> Ends:
        """Return the response to a request that does not parse, or that failed. Raises ConnectionError for none."""

    @abstractmethod
    def linger(self) -> None:
        """Close once the client can have read the last response."""

    async def start(self) -> None:
        """Serve the requests of the connection, one after the other.

        aiohttp's own starts a task for each, which takes two turns of the event loop and a sixth of a request's time
        (benchmarks/README.md). ``connection_lost`` cancels this one, and so the request in hand.
        """
        while not self._force_close:
            if not self._messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            try:
                if not await self._serve_next() or self._close:
                    break
            except Exception:
                # asyncio would not tell: `connection_lost` cancels this task, and with it the report of its exception.
                log.exception("a defect in slproxy, at the end of a response")
                self.force_close()
            except BaseException:
                self.force_close()
                raise
        if not self._force_close:
            self._task_handler = None
            self.linger()

    async def _serve_next(self) -> bool:
        """Serve the next request that waits; return whether another may come on the connection."""
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        error = None
        if isinstance(message, web_protocol._ErrInfo):
            error, message = message.exc, web_protocol.ERROR
        request = ClientRequest(message, payload)
        self.written = 0
        try:
            response = await self._response_to(request, error)
            if not response.is_ended:
                await response.write_eof()
        except ConnectionError:
            return False
        return response.keep_alive and (payload.is_eof() or await self._has_read_rest(request))

    async def _response_to(self, request: ClientRequest, error: BaseException | None) -> Ends:
        if error is not None:
            return self.error_response(request, error)
        self.current_request = request
        try:
            return await self.serve(request)
        except ConnectionError:
            raise
        except Exception as failed:  # noqa: BLE001  # the outermost frame of a request
            return self.error_response(request, failed)
        finally:
            self.current_request = None

    async def write(self, data: bytes) -> None:
        """Write, and wait until the client has taken it, as far as the kernel does not hold it.

        Raises:
            ConnectionError: the client has left.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        self.written += len(data)
        transport.write(data)
        if self._paused:
            await self._drain_helper()

    async def _has_read_rest(self, request: ClientRequest) -> bool:
        """Throw away what is left of a body, for a while; return whether its end has come."""
        body = request.body
        if self._lingering_time:
            try:
                async with asyncio.timeout(self._lingering_time), request.reading:
                    while not (body.is_eof() or self._force_close):  # one that has no transport cannot be read
                        await body.readany()
            except (TimeoutError, web.RequestPayloadError, HttpProcessingError, Problem):
                return False
        return body.is_eof()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on after a pause. aiohttp's own parses nothing once more after each piece of a body, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    loop = web.RequestHandler._loop  # type: ignore[misc]
    requests_begun = web.RequestHandler._request_count  # type: ignore[misc]
    waiter = web.RequestHandler._waiter  # type: ignore[misc]
    queue = web.RequestHandler._messages  # type: ignore[misc]
    parser = web.RequestHandler._parser  # type: ignore[misc]
    is_closing = web.RequestHandler._close  # type: ignore[misc]

    def limit_pipeline(self) -> None:
        """Read nothing while two requests wait behind the one in hand."""
        self._max_msg_queue_size, self._msg_queue_resume_size = 2, 0

    def queue_error(self, error: Exception) -> None:
        """Let an error be answered once all that waits before it is, as aiohttp does with the parser's."""
        self._request_count += 1
        self._messages.append((web_protocol._ErrInfo(status=400, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop_parsing(self, *, serve_waiting: bool = False) -> None:
        """Take no further request, and read nothing more; free what came of heads that nobody will serve."""
        self._parser = None
        if self._waiter is None and not serve_waiting:  # else one that waits has its turn now
            self._messages.clear()
        if self.transport is not None:
            self.transport.pause_reading()

    def skip_rest_of_body(self) -> None:
        """Do not read on in the body of the request in hand once it has its response."""
        self._lingering_time = 0.0

    def queued_error(self) -> BaseException | None:
        """Return the parser's error where one is the last in the queue."""
        message = self.queue[-1][0]
        return message.exc if isinstance(message, web_protocol._ErrInfo) else None
