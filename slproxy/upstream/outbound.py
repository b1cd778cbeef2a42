"""One request as it goes out, and its head on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

ReadBody = Callable[[], AsyncIterator[bytes]]


@dataclass(eq=False, slots=True)
class Outbound:
    """One request as it goes out: an origin-form target, headers less ``Host``, and a body, whole or to be streamed.

    ``headers`` are lines as they go over the wire.
    """

    method: str
    target: str
    headers: bytes = field(repr=False)
    body: ReadBody | bytes | None = field(default=None, repr=False)

    @property
    def is_chunked(self) -> bool:
        """Whether its body goes out in chunks: no header tells how long it is."""
        return callable(self.body) and b"\ncontent-length:" not in b"\n" + self.headers.lower()


def request_head(outbound: Outbound, host: str) -> bytes:
    """Return the request line and headers as they go over the wire."""
    line = f"{outbound.method} {outbound.target} HTTP/1.1\r\nHost: {host}\r\n"
    # No target that the parser or the settings let through holds a line end; one that did would be a second request.
    if line.count("\n") != 2 or line.count("\r") != 2:
        raise ValueError("a line end within a target")
    framing = b"Transfer-Encoding: chunked\r\n\r\n" if outbound.is_chunked else b"\r\n"
    return b"%b%b%b" % (line.encode(), outbound.headers, framing)
