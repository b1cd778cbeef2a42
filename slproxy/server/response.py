"""Responses as they go over the wire: framed for this hop, with nothing added."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Protocol

from multidict import CIMultiDict

from slproxy.errors import Overloaded, Problem
from slproxy.forward import Answer
from slproxy.http import Fields, http_date
from slproxy.server.aiohttp_private import StreamResponse

REPORT = "Please report it, with the traceback in the log."


def problem_answer(problem: Problem) -> Answer:
    """Return a problem as the client gets it: RFC 9457 with RFC 9209's ``Proxy-Status``."""
    body = problem.body()
    headers: Fields = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Date", http_date(time.time())),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Proxy-Status", problem.proxy_status),
        *problem.headers,
    ]
    return Answer(status=problem.status, headers=headers, body=body, close_connection=problem.closes)


def overloaded(room_in: int) -> Overloaded:
    """Return the problem of a connection past ``limits.max_connections``; there may be room in so many seconds."""
    return Overloaded(
        "There are more connections than limits.max_connections.",
        hint="Close some, or raise the limit.",
        headers=(("Retry-After", str(room_in)),),
    )


def on_the_wire(answer: Answer, reason: str) -> bytes:
    """Return a problem as bytes, for a connection on which no request has parsed."""
    assert isinstance(answer.body, bytes), "a problem is short"
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in answer.headers)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + answer.body


class Lingers(Protocol):
    """A connection that may end with this response."""

    @property
    def is_closing(self) -> bool: ...

    def linger(self) -> None: ...


class Response(StreamResponse):
    """A response of the proxy; the connection lingers after its last one."""

    def __init__(
        self, connection: Lingers, *, status: int, reason: str | None, headers: Fields, whole: bytes = b""
    ) -> None:
        """``whole`` is the body, where it need not be streamed."""
        super().__init__(status=status, reason=reason, headers=CIMultiDict(headers))
        self._connection = connection
        self._whole = whole

    async def write_eof(self, data: bytes = b"") -> None:
        """End the response; aiohttp calls this without arguments on whatever a handler returns."""
        whole = self._whole if self._whole and not self.must_be_empty else b""
        await super().write_eof(data or whole)
        if not self.keep_alive or self._connection.is_closing:
            self._connection.linger()


def reset(transport: asyncio.Transport | None) -> None:
    """Reset a client's connection, which no client takes for the end of a body."""
    if transport is None:
        return
    if (peer := transport.get_extra_info("socket")) is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
