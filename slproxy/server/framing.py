"""Request framing: rejects what two parsers could read differently and aiohttp's lets pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from slproxy.upstream import MAX_LENGTH

_RTSP = re.compile(rb"[A-Z_]+ [^ \r\n]* RTSP/[0-9.]+\r?\n")


class Body(Protocol):
    """A request's body, as far as it has come."""

    @property
    def total_bytes(self) -> int: ...


def has_rtsp(data: bytes, requests: Iterable[tuple[object, Body]]) -> bool:
    """Return whether one of the requests that parsed from ``data`` is RTSP, which llhttp takes for HTTP silently."""
    for _, body in requests:
        data = data.lstrip(b"\r\n")
        if _RTSP.match(data) is not None:
            return True
        # The body may speak of anything. Behind one in chunks nothing is served (`TrailerWatch`).
        data = data.partition(b"\r\n\r\n")[2][body.total_bytes :]
    return False


def request_fault(*, version: tuple[int, int] | None, codings: Sequence[str], lengths: Sequence[str]) -> str | None:
    """Return what is wrong with how a request is framed, where aiohttp's parser finds nothing, or ``None``.

    ``version`` is that of HTTP, ``None`` where another protocol was spoken that the parser takes for it.
    """
    if version not in ((1, 0), (1, 1)):
        return "is not in HTTP/1.1"
    for length in lengths:
        if int(length) > MAX_LENGTH:
            return "has a Content-Length beyond all reason"
    if not codings:
        return None
    if version == (1, 0):
        return "has a Transfer-Encoding, which HTTP/1.0 does not know"  # RFC 9112 §6.1
    # Any other coding would be lost on the way: the proxy frames each hop anew.
    if [coding.lower() for coding in codings] != ["chunked"] or lengths:
        return "has a transfer coding that is not chunked alone"
    return None
