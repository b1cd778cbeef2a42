"""Arrival: what has come of a head or of trailers is limited before it is whole, and so is what all heads take.

The parser keeps each header as it comes, and says so only at the end. Without a limit of its own, one connection
without a key could fill the memory with a head that never ends, with one behind a request in flight, or with trailers;
and a thousand connections with heads that lack their last byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aiohttp import EMPTY_PAYLOAD, StreamReader

from slproxy.errors import Overloaded, TooLarge
from slproxy.server.unparsed import headers_too_large, target_too_large

# Headers are limited in number as well, or each of a few bytes would cost the parser's objects for it: as many as
# Node.js takes come to half of this in a block of 64 KiB, and other servers take a hundred.
BYTES_PER_HEADER = 64
LEAST_HEADERS = 128
# What there may be of heads and trailers that are not whole, or wait for their turn, on all connections, in bytes; in
# small headers each costs the parser ten times as much. Of 1,000 connections each may have 8 KiB, which clients rarely
# send.
HEADS = 8 * 1024 * 1024

_LINE_ENDS, _HEAD_END = b"\r\n", b"\r\n\r\n"


def most_headers(max_headers: int) -> int:
    """Return how many headers there may be in a block of so many bytes."""
    return max(LEAST_HEADERS, max_headers // BYTES_PER_HEADER)


class Arrival:
    """What has come behind the ``body`` of the last request: a part of the next ``head``; ``limit`` is that of one."""

    __slots__ = ("_limit", "_received", "_size", "body", "head", "waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Of the body, how much has come; of a body in chunks, how much else since.
        self._received = self._size = 0
        self.body: StreamReader = EMPTY_PAYLOAD
        # The parser may not have looked at all of it yet.
        self.head = b""
        # How much came in whole heads that had to wait for their turn, and with them.
        self.waiting = 0

    @property
    def has_begun(self) -> bool:
        """Whether a part of a head has come."""
        return bool(self.head) and self.body.is_eof()

    @property
    def unfinished(self) -> int:
        """How much has come of a head, or of trailers, that is not whole, in bytes."""
        return len(self.head) if self.body.is_eof() else self._size

    @property
    def is_over(self) -> bool:
        """Whether that is too much."""
        return self.unfinished > self._limit

    def held(self, *, is_waiting: bool) -> int:
        """Return how much of heads there is that are not whole, or wait where a request ``is_waiting``, in bytes."""
        return self.unfinished + (self.waiting if is_waiting else 0)

    def behind_body(self, data: bytes, *, in_chunks: bool) -> bytes:
        """Return what stands behind the body, now that ``data`` has come: none of one ``in_chunks``."""
        grown = self.body.total_bytes - self._received
        self._received += grown
        if not in_chunks:
            return (self.head + data)[grown:]
        if grown:
            self._size = 0
        # A chunk's extension costs nothing but time, which `limits.body_timeout` ends; it has no line ends.
        elif self.body.is_eof() or b"\n" in data:
            self._size += len(data)
        return b""

    def begin(self, came: bytes, requests: Sequence[tuple[object, StreamReader]]) -> None:
        """Begin anew: what came behind the last body holds the whole heads of these requests, with their bodies."""
        message, self.body = requests[-1]
        self._received, self._size = self.body.total_bytes, 0
        if self.body is EMPTY_PAYLOAD and came.endswith(_HEAD_END):
            self.head = b""
            return
        for _, body in requests:
            came = came.lstrip(_LINE_ENDS)
            end = came.find(_HEAD_END)  # not `partition`, which would copy the body
            came = came[end + len(_HEAD_END) + body.total_bytes :] if end >= 0 else b""
        if getattr(message, "chunked", False):
            self.head, self._size = b"", len(came)
        else:
            self.keep(came)

    def wait(self, came: bytes, *, behind_others: bool) -> None:
        """Count what has come, less what is not whole, as waiting."""
        self.waiting = len(came) - len(self.head) + (self.waiting if behind_others else 0)

    def keep(self, came: bytes) -> None:
        """Keep what came behind the body; line ends before a head are nothing (RFC 9112 §2.2)."""
        self.head = came.lstrip(_LINE_ENDS) if came and self.body.is_eof() else came


class Holder(Protocol):
    """A connection that holds a part of a head, heads that wait, or trailers."""

    @property
    def held(self) -> int: ...

    def give_way(self) -> None: ...


class Heads:
    """What all connections hold of heads, in bytes; past the limit the largest gives way, so that no small one does."""

    def __init__(self) -> None:
        self._limit = HEADS
        self._taken = 0
        self._held: dict[Holder, int] = {}

    def resize(self, largest: int) -> None:
        """Set the limit, where one head may have so much."""
        self._limit = max(HEADS, 2 * largest)

    def count(self, holder: Holder) -> None:
        """Count what a connection holds now."""
        self._taken += holder.held - self._held.get(holder, 0)
        self._held[holder] = holder.held
        while self._taken > self._limit:
            # A connection that holds less than before has not said so.
            self._held = {each: held for each in self._held if (held := each.held)}
            self._taken = sum(self._held.values())
            if self._taken > self._limit:
                max(self._held, key=self._held.__getitem__).give_way()

    def forget(self, holder: Holder) -> None:
        """Count a connection no more."""
        self._taken -= self._held.pop(holder, 0)


def too_many() -> Overloaded:
    """Return what to answer to a head that gives way to others."""
    return Overloaded(
        "The headers of the requests that are arriving take too much memory.",
        hint="Send it again, and all of it at once.",
        headers=(("Retry-After", "1"),),
    )


def too_large(head: bytes) -> TooLarge:
    """Return what to answer to a head that is over the limit, of which so much is known."""
    return headers_too_large() if not head or b"\n" in head.lstrip(b"\r\n") else target_too_large()
