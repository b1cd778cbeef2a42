"""Responses as they go over the wire: framed for this hop, with nothing added."""

from __future__ import annotations

import asyncio
import socket
import struct

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from slproxy.errors import Overloaded, Problem
from slproxy.forward import Answer
from slproxy.http import Fields

REPORT = "Please report it, with the traceback in the log."


def problem_answer(problem: Problem) -> Answer:
    """Return a problem as the client gets it: RFC 9457 with RFC 9209's ``Proxy-Status``."""
    body = problem.body()
    headers: Fields = [
        ("Content-Type", "application/problem+json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Proxy-Status", problem.proxy_status),
        *problem.headers,
    ]
    return Answer(status=problem.status, headers=headers, body=body, close_connection=problem.closes)


def overloaded() -> Overloaded:
    return Overloaded(
        "There are more connections than limits.max_connections.",
        hint="Close some, or raise the limit.",
        headers=(("Retry-After", "1"),),
    )


def on_the_wire(answer: Answer, reason: str) -> bytes:
    """Return a problem as it goes over the wire to a client that gets nothing else."""
    assert isinstance(answer.body, bytes), "a problem is short"
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in answer.headers)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + answer.body


class Response(web.StreamResponse):
    """A response with the headers it was given, and no others but those that frame it."""

    # aiohttp would write the headers on their own; they go out with the first bytes of the body instead.
    _send_headers_immediately = False

    def __init__(self, *, status: int, reason: str | None, headers: Fields, whole: bytes = b"") -> None:
        """``whole`` is the body, where it need not be streamed."""
        super().__init__(status=status, reason=reason, headers=CIMultiDict(headers))
        self._whole = whole

    async def write_eof(self, data: bytes = b"") -> None:
        """End the response; aiohttp calls this without arguments on whatever a handler returns."""
        await super().write_eof(data or (b"" if self._must_be_empty_body else self._whole))

    async def _write_headers(self) -> None:
        """Write the head, as HTTP/1.1: aiohttp repeats the client's version, be it 2.0 (``_write_headers`` there)."""
        assert self._payload_writer is not None
        await self._payload_writer.write_headers(f"HTTP/1.1 {self._status} {self._reason}", self._headers)

    async def _prepare_headers(self) -> None:
        """Frame the message for this hop.

        Overridden because aiohttp's own adds Content-Type, Date and Server, and there is no switch for it
        (aiohttp/web_response.py, ``StreamResponse._prepare_headers``).
        """
        request, writer = self._req, self._payload_writer
        assert request is not None
        assert writer is not None
        keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
        if not self._must_be_empty_body:
            length = self.headers.get(hdrs.CONTENT_LENGTH)
            if length is not None:
                writer.length = int(length)
            elif request.version >= HttpVersion11:
                writer.enable_chunking()
                self.headers[hdrs.TRANSFER_ENCODING] = "chunked"
            else:
                keep_alive = False
        self._keep_alive = keep_alive
        if not keep_alive:
            self.headers[hdrs.CONNECTION] = "close"
        elif request.version < HttpVersion11:
            self.headers[hdrs.CONNECTION] = "keep-alive"


def reset(transport: asyncio.Transport | None) -> None:
    """Cut a client's connection off with a reset, which no client takes for the end of a body."""
    if transport is None:
        return
    if (peer := transport.get_extra_info("socket")) is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
