"""Lingering close: the last answer has been written, and the client may still be sending.

TCP resets a connection that is closed while bytes lie unread in it, and with the reset the client loses what it has not
read of the answer. So the sending half is closed first, and what still comes is thrown away for a while (RFC 9112 §9.6;
nginx's ``lingering_close``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# How long in all, in seconds: as long as aiohttp reads on in a body after its response; nginx takes 30.
LINGER_TIME = 10.0
# The same for a connection past `limits.max_connections`.
LINGER_TIME_OVER_LIMIT = 3.0
# A client that sends nothing for so long is taken to have its answer, in seconds; nginx takes 5.
LINGER_SILENCE = 2.0
# What is thrown away at most, in bytes: the largest body that the proxy would keep (`limits.replay_disk`).
LINGER_BYTES = 64 * 1024 * 1024


class Linger:
    """The end of one connection: its sending half is closed, and ``end`` is called when nothing more is to come."""

    def __init__(
        self, transport: asyncio.Transport, end: Callable[[], None], *, seconds: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._transport = transport
        self._end = end
        self._timers = loop
        self._deadline = loop.time() + seconds
        self._bytes = self._bytes_before = 0
        transport.write_eof()
        if not transport.is_reading():
            transport.resume_reading()
        self._timer = loop.call_later(min(seconds, LINGER_SILENCE), self._check)

    @property
    def is_sent(self) -> bool:
        """Whether all of the answer has left the proxy."""
        return self._transport.get_write_buffer_size() == 0

    def throw_away(self, size: int) -> None:
        """Count the bytes that arrived, and end past ``LINGER_BYTES``."""
        self._bytes += size
        if self._bytes > LINGER_BYTES:
            self._end()

    def _check(self) -> None:
        """End after a silence, or at the deadline; not before all of the answer has been sent."""
        now = self._timers.time()
        if self.is_sent and (now >= self._deadline or self._bytes == self._bytes_before):
            self._end()
            return
        self._bytes_before = self._bytes
        wait = LINGER_SILENCE if now >= self._deadline else min(LINGER_SILENCE, self._deadline - now)
        self._timer = self._timers.call_later(wait, self._check)

    def cancel(self) -> None:
        """Stop the timer: the connection is gone."""
        self._timer.cancel()
