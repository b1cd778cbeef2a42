"""HTTP/1.1 as bytes: requests and replies as they are written, and a reader that tidies nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

from tests.support.waiting import PATIENCE


class Head:
    """The head of an HTTP/1.1 message as it stood on the wire."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        first, _, rest = raw.partition(b"\r\n")
        self.first = first.decode("latin-1")
        self.fields = [
            (name.decode("latin-1"), value.strip().decode("latin-1"))
            for line in rest.split(b"\r\n")
            if line
            for name, _, value in [line.partition(b":")]
        ]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        return next(iter(self.all(name)), None)

    @property
    def target(self) -> str:
        return self.first.split(" ")[1]

    @property
    def method(self) -> str:
        return self.first.split(" ")[0]

    @property
    def status(self) -> int:
        return int(self.first.split(" ")[1])


@dataclass
class Message:
    """A whole message that was read off a socket."""

    head: Head
    body: bytes


async def read_head(reader: asyncio.StreamReader) -> Head:
    return Head((await reader.readuntil(b"\r\n\r\n"))[:-2])


async def read_body(head: Head, reader: asyncio.StreamReader) -> bytes:
    """Read what follows a head, framed by Content-Length, chunks or the end of the connection."""
    if "chunked" in (head.get("Transfer-Encoding") or ""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body
    if (length := head.get("Content-Length")) is not None:
        return await reader.readexactly(int(length))
    return await reader.read() if head.first.startswith("HTTP/") else b""


async def read_message(reader: asyncio.StreamReader, *, has_body: bool = True) -> Message:
    """Read one message; the reply to a HEAD has no body."""
    head = await read_head(reader)
    if not has_body or (head.first.startswith("HTTP/") and head.status in (204, 304)):
        return Message(head, b"")
    return Message(head, await read_body(head, reader))


def reply(status: str = "200 OK", body: bytes = b"{}", *headers: str, length: bool = True) -> bytes:
    """Return a reply as bytes, with its Content-Length unless told otherwise."""
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(target: str, *headers: str, method: str = "GET", body: bytes = b"", host: str = "localhost") -> bytes:
    """Return a request as bytes; a body gets its Content-Length."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


async def raw(url: str, request: bytes, *, method: str = "GET", timeout: float = PATIENCE) -> Message:
    """Send bytes to the proxy and read one whole response; nothing is tidied on the way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), limit=2**20)
    try:
        async with asyncio.timeout(timeout):
            writer.write(request)
            await writer.drain()
            return await read_message(reader, has_body=method != "HEAD")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
