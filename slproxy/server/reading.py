"""Reading: what clients send is read into one buffer that all connections of a listening socket share.

asyncio would allocate 256 KiB for each read and give most of it back, which leaves holes in the C heap
(asyncio/selector_events.py; benchmarks/README.md, Soak). uvloop reads as much, and so makes one piece of it.
"""

from __future__ import annotations

import asyncio

# What is read in one go, in bytes: a head and more, and little enough for each of a thousand clients.
READ_SIZE = 32 * 1024


class BufferedReads(asyncio.BufferedProtocol):
    """Gives a connection what was read for it; the rest of what a transport tells goes to the connection itself.

    A connection of aiohttp's cannot be buffered by itself: uvloop looks whether it is an ``asyncio.Protocol`` first
    (uvloop/handles/stream.pyx, ``_set_protocol``).
    """

    __slots__ = (
        "_buffer",
        "_data_received",
        "connection_lost",
        "connection_made",
        "eof_received",
        "pause_writing",
        "resume_writing",
    )

    def __init__(self, connection: asyncio.Protocol, buffer: memoryview) -> None:
        """``buffer`` may be shared: both event loops fill it and call ``buffer_updated`` without a turn in between."""
        self._buffer = buffer
        self._data_received = connection.data_received
        # Not through methods of its own, each of which would be one more call.
        self.connection_made = connection.connection_made  # type: ignore[method-assign]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Return where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what was read."""
        self._data_received(bytes(self._buffer[:nbytes]))
