"""Kept reply: the body of a reply on its way to the client, of which the inspector keeps a copy."""

from __future__ import annotations

from collections.abc import AsyncIterator

from slproxy.forward.messages import AnswerBody
from slproxy.observe import KeptBody


class KeptReply:
    """A body that is copied as it passes; whoever reads it sets the pace."""

    def __init__(self, body: AnswerBody, kept: KeptBody) -> None:
        self._body, self._kept = body, kept

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read."""
        return self._body.ended

    def read_nowait(self) -> bytes:
        """Return what has arrived of the body and was not read yet. Raises UpstreamFault."""
        chunk = self._body.read_nowait()
        self._kept.add(chunk)
        return chunk

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises UpstreamFault."""
        async for chunk in self._body.chunks():
            self._kept.add(chunk)
            yield chunk

    def close(self) -> None:
        """Close the body itself."""
        self._body.close()
