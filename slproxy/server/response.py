"""Responses as they go over the wire: framed for this hop, with nothing added."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from http import HTTPStatus
from typing import Protocol

from aiohttp.http import HttpVersion11

from slproxy.errors import Overloaded, Problem
from slproxy.forward import Answer
from slproxy.http import Fields, encoded, http_date
from slproxy.server.client_request import ClientRequest

# The standard phrases (RFC 9110 §15).
PHRASES = {each.value: each.phrase for each in HTTPStatus}
REPORT = "Please report it, with the traceback in the log."


def problem_answer(problem: Problem, *, request_id: str = "") -> Answer:
    """Return a problem as the client gets it: RFC 9457 with RFC 9209's ``Proxy-Status``."""
    body = problem.body(request_id)
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


def overloaded(room_in: int, limit: str) -> Overloaded:
    """Return the problem of a connection past a limit; there may be room in so many seconds."""
    return Overloaded(
        f"There are more connections than {limit}.",
        hint="Close some, or raise the limit.",
        headers=(("Retry-After", str(room_in)),),
    )


def on_the_wire(answer: Answer) -> bytes:
    """Return a problem as bytes, for a connection on which no request has parsed."""
    assert isinstance(answer.body, bytes), "a problem is short"
    return b"%bConnection: close\r\n\r\n%b" % (_head(answer), answer.body)


def _head(answer: Answer) -> bytes:
    """Return the status line and the headers that an answer has by itself."""
    reason = PHRASES.get(answer.status, "") if answer.reason is None else answer.reason
    return f"HTTP/1.1 {answer.status} {reason}\r\n".encode() + answer.passed + encoded(answer.headers)


class Connection(Protocol):
    """A connection that takes a response, and may end with it."""

    @property
    def is_closing(self) -> bool: ...

    def linger(self) -> None: ...

    async def write(self, data: bytes) -> None: ...


class Response:
    """An answer on its way to the client, framed for this hop; the connection lingers after its last one.

    aiohttp's own would add Content-Type, Date and Server, and repeat the client's version.
    """

    __slots__ = ("_connection", "_has_body", "_head", "_is_chunked", "_whole", "is_ended", "keep_alive")

    def __init__(self, connection: Connection, request: ClientRequest, answer: Answer, last: bool) -> None:
        """The ``last`` one closes; so does one whose end an HTTP/1.0 client would not see otherwise."""
        self._connection = connection
        self._whole = answer.body if isinstance(answer.body, bytes) else b""
        # A reply to HEAD, a 204 or a 304 has none, whatever its headers say (RFC 9112 §6.3).
        self._has_body = request.method != "HEAD" and answer.status not in (204, 304)
        is_unframed, is_old = self._has_body and not answer.has_length, request.version < HttpVersion11
        self._is_chunked = is_unframed and not is_old
        self.keep_alive = request.keep_alive and not last and not (is_unframed and is_old)
        self.is_ended = False
        head = _head(answer)
        if self._is_chunked:
            head += b"Transfer-Encoding: chunked\r\n"
        if not self.keep_alive:
            head += b"Connection: close\r\n"
        elif is_old:
            head += b"Connection: keep-alive\r\n"
        # Goes out in one write with the first bytes of the body.
        self._head = head + b"\r\n"

    async def write(self, data: bytes) -> None:
        """Write a piece of the body, once the client has taken those before; an empty one sends the head alone."""
        head, self._head = self._head, b""
        if self._is_chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self._connection.write(head + data)

    async def write_eof(self, last: bytes = b"") -> None:
        """Write the last piece of the body, or all of it; may be called again."""
        if self.is_ended:
            return
        self.is_ended = True
        head, self._head = self._head, b""
        data = (last or self._whole) if self._has_body else b""
        if self._is_chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        if data := head + data:
            await self._connection.write(data)
        if not self.keep_alive or self._connection.is_closing:
            self._connection.linger()


def reset(transport: asyncio.Transport | None) -> None:
    """Reset a client's connection, which no client takes for the end of a body."""
    if transport is None:
        return
    if (peer := transport.get_extra_info("socket")) is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
