"""Request of a client, as aiohttp's parser has read it.

aiohttp's own has two dozen fields and as many views of them, and takes 2 % of a request's time to make.
"""

from __future__ import annotations

import asyncio

from aiohttp import EMPTY_PAYLOAD, StreamReader
from aiohttp.http import HttpVersion, RawRequestMessage
from multidict import CIMultiDictProxy

from slproxy.http import RawHeaders


class ClientRequest:
    """One request: its head, and its body as it arrives."""

    __slots__ = ("_reading", "body", "headers", "keep_alive", "method", "raw_headers", "target", "version")

    def __init__(self, message: RawRequestMessage, body: StreamReader) -> None:
        self.method: str = message.method
        self.target: str = message.path
        self.version: HttpVersion = message.version
        self.headers: CIMultiDictProxy[str] = message.headers
        self.raw_headers: RawHeaders = message.raw_headers
        # Whether the client wants the connection kept.
        self.keep_alive: bool = not message.should_close
        self.body = body
        self._reading: asyncio.Lock | None = None

    @property
    def has_body(self) -> bool:
        """Whether there is a body to read, be it one of no bytes."""
        return self.body is not EMPTY_PAYLOAD

    @property
    def reading(self) -> asyncio.Lock:
        """Held by whoever waits for more of the body: it takes one reader (aiohttp/streams.py, ``_wait``).

        An upload that was cancelled, as after a 413 in the middle of it, lets go only in its next turn.
        """
        if self._reading is None:
            self._reading = asyncio.Lock()
        return self._reading
