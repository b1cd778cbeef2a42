"""One request as it goes out, and its head on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from slproxy.http import Fields

ReadBody = Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outbound:
    """One request as it goes out: an origin-form target, headers less ``Host``, and a body, whole or to be streamed."""

    method: str
    target: str
    headers: Fields = field(repr=False)
    body: ReadBody | bytes | None = field(default=None, repr=False)


def request_head(outbound: Outbound, host: str) -> bytes:
    """Return the request line and headers as they go over the wire."""
    lines = [f"{outbound.method} {outbound.target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in outbound.headers]
    if callable(outbound.body) and not any(name.lower() == "content-length" for name, _ in outbound.headers):
        lines.append("Transfer-Encoding: chunked")
    head = "\r\n".join([*lines, "", ""])
    # No header that the parser or the settings let through holds a line end; one that did would be a second request.
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise ValueError("a line end within a header")
    return head.encode("utf-8")
