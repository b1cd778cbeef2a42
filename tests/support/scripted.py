"""Scripted upstream: does as it is told, byte by byte, and remembers every request that reached it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

from tests.support.listener import Listener
from tests.support.raw_http import Message, read_message, reply

# What tells the proxy's own request from those of the tests' clients.
VERIFICATION = ("/v2/me.json", "application/json")

Handler = Callable[[Message, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedUpstream(Listener):
    """An upstream whose ``script`` is called with each whole request; ``None`` answers 200 ``{}``.

    ``whole=False`` hands over the head as soon as it is there.
    """

    def __init__(self, script: Handler | None = None, *, whole: bool = True, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._answer, tls=tls)
        self.script = script
        self.whole = whole
        self.seen: list[Message] = []

    @property
    def seen_of_clients(self) -> list[Message]:
        """What came from clients: ``serve`` itself asks whom requests act as."""
        return [each for each in self.seen if (each.head.target, each.head.get("Accept")) != VERIFICATION]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader, has_body=self.whole)
            self.seen.append(message)
            if self.script is None:
                writer.write(reply())
            else:
                await self.script(message, reader, writer)
            await writer.drain()


def replies(*scripted: bytes) -> Handler:
    """Return a script that gives these replies in turn, the last one for ever."""
    left = list(scripted)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return script
