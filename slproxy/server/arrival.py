"""Arrival: what has come of a head or of trailers is limited before it is whole.

The parser keeps each header as it comes, and says so only at the end. Without a limit of its own, one connection
without a key could fill the memory with a head that never ends, with one behind a request in flight, or with trailers.
"""

from __future__ import annotations

from aiohttp import EMPTY_PAYLOAD, StreamReader

from slproxy.errors import TooLarge
from slproxy.server.unparsed import headers_too_large, target_too_large

# Headers are limited in number as well, or each of a few bytes would cost the parser's objects for it: as many as
# Node.js takes come to half of this in a block of 64 KiB, and other servers take a hundred.
BYTES_PER_HEADER = 64
LEAST_HEADERS = 128


def most_headers(max_headers: int) -> int:
    """Return how many headers there may be in a block of so many bytes."""
    return max(LEAST_HEADERS, max_headers // BYTES_PER_HEADER)


class Arrival:
    """The bytes since a head was whole, or since a piece of its ``body`` came; ``limit`` is that of a head."""

    __slots__ = ("_limit", "_received", "_size", "body")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = self._received = 0
        self.body: StreamReader = EMPTY_PAYLOAD

    def begin(self, body: StreamReader) -> None:
        """Begin anew: a head is whole, and its body follows."""
        self.body, self._size, self._received = body, 0, 0

    def is_over(self, data: bytes) -> bool:
        """Count what completed no head; return whether too much of it has come that is none of the body's."""
        if (received := self.body.total_bytes) != self._received:
            self._size, self._received = 0, received
        # A chunk's extension costs nothing but time, which `limits.body_timeout` ends; it has no line ends.
        elif self.body.is_eof() or b"\n" in data:
            self._size += len(data)
        return self._size > self._limit


def too_large(head: bytes | bytearray) -> TooLarge:
    """Return what to answer to a head that is over the limit, of which so much is known."""
    return headers_too_large() if not head or b"\n" in head.lstrip(b"\r\n") else target_too_large()
