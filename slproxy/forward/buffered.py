"""Buffered reply: one that was given up for another attempt, kept in case no better one comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from slproxy.errors import UpstreamFault
from slproxy.upstream import Reply

# What is kept of it, in bytes, and for how long it is read, in seconds: it may be the last reply that SalesLoft gives.
BUFFER_SIZE = 256 * 1024
BUFFER_TIMEOUT = 2.0


class BufferedReply:
    """A reply's head, and its whole body in memory."""

    def __init__(self, reply: Reply, body: bytes) -> None:
        self.status, self.reason, self.headers = reply.status, reply.reason, reply.headers
        self.header = reply.header
        self._body = body

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read."""
        return not self._body

    def read_nowait(self) -> bytes:
        """Return the body."""
        body, self._body = self._body, b""
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, in one piece."""
        if body := self.read_nowait():
            yield body

    def close(self) -> None:
        """Nothing is held open."""


async def buffer_reply(reply: Reply) -> BufferedReply | None:
    """Take a reply off its connection; ``None`` when it is too large, too slow or breaks off."""
    body = b""
    try:
        async with asyncio.timeout(BUFFER_TIMEOUT):
            async for chunk in reply.chunks():
                body += chunk
                if len(body) > BUFFER_SIZE:
                    return None
    except (TimeoutError, UpstreamFault):
        return None
    finally:
        reply.close()
    return BufferedReply(reply, body)
