"""Private names of aiohttp's server, each with its place in aiohttp's source and the reason why it is needed.

No other file of this area uses one. aiohttp is capped in pyproject.toml below the first version that was not tested,
and ``tests/server/test_aiohttp_private.py`` names what a new version has lost. Places are those of aiohttp 3.14.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aiohttp import EMPTY_PAYLOAD, __version__, web, web_protocol


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

    def limit_pipeline(self) -> None:
        """Read nothing while two requests wait behind the one in hand."""
        self._max_msg_queue_size, self._msg_queue_resume_size = 2, 0

    def queue_error(self, error: Exception) -> None:
        """Let an error be answered once all that waits before it is, as aiohttp does with the parser's."""
        self._request_count += 1
        self._messages.append((web_protocol._ErrInfo(status=400, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def skip_rest_of_body(self) -> None:
        """Do not read on in the body of the request in hand once it has its response."""
        self._lingering_time = 0.0

    def queued_error(self) -> BaseException | None:
        """Return the parser's error where one is next in the queue."""
        message = self.queue[0][0]
        return message.exc if isinstance(message, web_protocol._ErrInfo) else None
