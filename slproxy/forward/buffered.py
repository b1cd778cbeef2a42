"""A reply that was given up for a retry, kept in case no better one comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from slproxy.errors import UpstreamFault
from slproxy.forward.messages import ReplyBody
from slproxy.upstream import Reply

# What is kept of a reply that is given up for a retry, in bytes and seconds: it may be the last one the upstream gives.
KEPT_BODY = 256 * 1024
KEEPING = 2.0


class BufferedReply:
    """A reply that was given up for a retry, held for the case that no better one comes."""

    def __init__(self, reply: ReplyBody, body: bytes) -> None:
        self.status, self.reason, self.headers = reply.status, reply.reason, reply.headers
        self.outcome = reply.outcome
        self._body = body

    @property
    def ended(self) -> bool:
        return not self._body

    def read_nowait(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        if body := self.read_nowait():
            yield body

    def close(self) -> None:
        """Nothing is held open."""


async def buffer_reply(reply: Reply) -> BufferedReply | None:
    """Take a reply off its connection; ``None`` when it is too large, too slow or breaks off."""
    body = b""
    try:
        async with asyncio.timeout(KEEPING):
            async for chunk in reply.chunks():
                body += chunk
                if len(body) > KEPT_BODY:
                    return None
    except (TimeoutError, UpstreamFault):
        return None
    finally:
        reply.close()
    return BufferedReply(reply, body)
