"""Private names of aiohttp's server, each with its place in aiohttp's source and the reason why it is needed.

No other file of this area uses one. aiohttp is capped in pyproject.toml below the first version that was not tested,
and ``tests/server/test_aiohttp_private.py`` names what a new version has lost. Places are those of aiohttp 3.14.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aiohttp import __version__, hdrs, web, web_protocol
from aiohttp.http import HttpVersion11


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
        "_current_request",
        "web_protocol.py, RequestHandler._handle_request",
        "A body that does not parse, or whose client has ended its half, has to fail for who reads it.",
    ),
    Private(
        web.RequestHandler,
        "_messages",
        "web_protocol.py, RequestHandler.data_received",
        "Parsed requests, and errors of the parser, wait in it behind the request in hand.",
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
        web_protocol._ErrInfo,
        "exc",
        "web_protocol.py, RequestHandler.data_received",
        "The parser's error, which tells a limit from nonsense.",
    ),
    Private(
        web.StreamResponse,
        "_send_headers_immediately",
        "web_response.py, StreamResponse._write_headers",
        "Headers go out with the first bytes of the body, not in a packet of their own.",
    ),
    Private(
        web.StreamResponse,
        "_prepare_headers",
        "web_response.py, StreamResponse._start",
        "It adds Content-Type, Date and Server to every response, and has no switch for it.",
    ),
    Private(
        web.StreamResponse,
        "_write_headers",
        "web_response.py, StreamResponse._start",
        "It repeats the client's version in the status line, be it 2.0.",
    ),
    Private(
        web.StreamResponse,
        "_req",
        "web_response.py, StreamResponse._start",
        "The request in hand tells how its response may be framed.",
    ),
    Private(
        web.StreamResponse,
        "_payload_writer",
        "web_response.py, StreamResponse._start",
        "The writer is told of a length or of chunks.",
    ),
    Private(
        web.StreamResponse,
        "_must_be_empty_body",
        "web_response.py, StreamResponse.prepare",
        "A response to HEAD, a 204 or a 304 has no body, whatever its headers say.",
    ),
    Private(
        web.StreamResponse,
        "_keep_alive",
        "web_response.py, StreamResponse.keep_alive",
        "The public property cannot be set, and start() closes the connection by it.",
    ),
)


def lost(names: Iterable[Private]) -> list[str]:
    """Return a sentence for each name that its owner no longer has."""
    return [
        f"aiohttp {__version__}: {each.owner.__name__} has no {each.name} (was in {each.place}). {each.reason}"
        for each in names
        if not hasattr(each.owner, each.name)
    ]


class RequestHandler(web.RequestHandler):
    """aiohttp's connection, with public names for what the proxy reads of it.

    They are aliases of its slots, which mypy does not know of, so that reading one costs no call.
    """

    __slots__ = ()

    loop = web.RequestHandler._loop  # type: ignore[misc]
    requests_begun = web.RequestHandler._request_count  # type: ignore[misc]
    waiter = web.RequestHandler._waiter  # type: ignore[misc]
    current_request = web.RequestHandler._current_request  # type: ignore[misc]
    queue = web.RequestHandler._messages  # type: ignore[misc]
    is_closing = web.RequestHandler._close  # type: ignore[misc]

    def skip_rest_of_body(self) -> None:
        """Do not read on in the body of the request in hand once it has its response."""
        self._lingering_time = 0.0

    def queued_error(self) -> BaseException | None:
        """Return the parser's error where one is next in the queue."""
        message = self.queue[0][0]
        return message.exc if isinstance(message, web_protocol._ErrInfo) else None


class StreamResponse(web.StreamResponse):
    """aiohttp's response, framed for this hop, with the headers it was given and no others."""

    _send_headers_immediately = False

    @property
    def must_be_empty(self) -> bool:
        """Whether the response has no body, whatever its headers say."""
        return bool(self._must_be_empty_body)

    async def _prepare_headers(self) -> None:
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

    async def _write_headers(self) -> None:
        assert self._payload_writer is not None
        await self._payload_writer.write_headers(f"HTTP/1.1 {self.status} {self.reason}", self.headers)
