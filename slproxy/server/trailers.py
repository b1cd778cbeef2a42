"""Trailers of request bodies: a connection ends with a request that has some.

aiohttp keeps the last trailer, and gives it to the next request as a header of its own (_http_parser.pyx: the pending
field is only taken up at the next field, or at the end of a head).
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage

# What a body in chunks ends in where it has no trailers (RFC 9112 §7.1).
LAST_CHUNK = b"\r\n0\r\n\r\n"


class TrailerWatch:
    """Looks at the ends of the bodies in chunks on one connection."""

    __slots__ = ("_tail", "body")

    def __init__(self) -> None:
        # The body that is coming, and its last bytes so far.
        self.body: StreamReader | None = None
        self._tail = b""

    def feed(self, data: bytes, parsed: Sequence[tuple[object, StreamReader]]) -> bool:
        """Look at what arrived and the messages that it completed; return whether trailers may have been in it."""
        going_on = self.body is not None
        bodies = [body for message, body in parsed if isinstance(message, RawRequestMessage) and message.chunked]
        if bodies:
            self.body = bodies[-1]
        if self.body is None:
            return False
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        # Where a body ends within what arrived is not known; behind it, nothing may stand.
        alone = len(bodies) + going_on <= 1 and (not bodies or parsed[-1][1] is self.body)
        if alone and not self.body.is_eof():
            return False
        had_some = not alone or self._tail != LAST_CHUNK
        self.body, self._tail = None, b""
        return had_some
