"""Request framing: rejects what two parsers could read differently and aiohttp's lets pass."""

from __future__ import annotations

import re
from collections.abc import Sequence

from slproxy.upstream import MAX_LENGTH

_RTSP = re.compile(rb"(?:\A|\r\n\r\n)[A-Z_]+ [^ \r\n]* RTSP/[0-9.]+\r?\n")
_RTSP_FIRST = re.compile(rb"[A-Z_]+ [^ \r\n]* RTSP/[0-9.]+\r?\n")


def has_rtsp(data: bytes | bytearray, *, requests: int) -> bool:
    """Return whether one of the requests that parsed is RTSP, which llhttp takes for HTTP without saying so."""
    # Behind a single request stands its body, which may speak of anything.
    return _RTSP_FIRST.match(data) is not None or (requests > 1 and _RTSP.search(data) is not None)


def request_fault(*, version: tuple[int, int] | None, codings: Sequence[str], lengths: Sequence[str]) -> str | None:
    """Return what is wrong with how a request is framed, where aiohttp's parser finds nothing, or ``None``.

    ``version`` is that of HTTP, ``None`` where another protocol was spoken that the parser takes for it.
    """
    if version not in ((1, 0), (1, 1)):
        return "is not in HTTP/1.1"
    if any(int(length) > MAX_LENGTH for length in lengths):
        return "has a Content-Length beyond all reason"
    if not codings:
        return None
    if version == (1, 0):
        return "has a Transfer-Encoding, which HTTP/1.0 does not know"  # RFC 9112 §6.1
    # Any other coding would be lost on the way: the proxy frames each hop anew.
    if [coding.lower() for coding in codings] != ["chunked"] or lengths:
        return "has a transfer coding that is not chunked alone"
    return None
