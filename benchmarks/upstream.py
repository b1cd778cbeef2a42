"""An upstream that costs as little as one in Python can, so that a turn measures the proxy before it.

``python -m benchmarks.upstream HOST PORT [CERTIFICATE]`` answers each request once it is whole: ``/v2/large`` with
300 MB, all else with 1.3 kB of JSON. ``CERTIFICATE`` is a PEM file of a certificate and its key, for TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
import sys
from typing import cast

BODY = b'{"data":{"id":1,"name":"Jane Smith","email":"jane@company.com"},"padding":"' + b"x" * 1200 + b'"}'
LARGE = 300 * 10**6
PIECE = b"x" * 250_000


def _head(length: int) -> bytes:
    lines = [
        "HTTP/1.1 200 OK",
        f"Date: {email.utils.formatdate(usegmt=True)}",
        "Content-Type: application/json",
        "x-ratelimit-endpoint-cost: 1",
        "x-ratelimit-remaining-minute: 900000000",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Upstream(asyncio.Protocol):
    """A connection: a request at a time, its head in one piece, as clients here send it."""

    _transport: asyncio.Transport

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        # What is missing of the request's body, and of the large reply's, in bytes.
        self._awaited = self._unsent = 0
        self._is_large = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are not of its class

    def data_received(self, data: bytes) -> None:
        if not self._awaited:
            self._is_large = data.startswith(b"GET /v2/large ")
            head, _, body = data.partition(b"\r\n\r\n")
            self._awaited = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0)
            data = body
        self._awaited -= len(data)
        if not self._awaited and not self._is_large:
            self._transport.write(self._answer)
        elif not self._awaited:
            self._unsent = LARGE
            self._transport.write(_head(LARGE))
            self._transport.set_write_buffer_limits(high=0)
            self.resume_writing()

    def resume_writing(self) -> None:
        while self._unsent and not self._transport.get_write_buffer_size():
            self._unsent -= len(PIECE)
            self._transport.write(PIECE)


async def _serve(host: str, port: int, certificate: str | None) -> None:
    answer = _head(len(BODY)) + BODY
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(answer), host, port, ssl=tls, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] if sys.argv[3:] else None))
