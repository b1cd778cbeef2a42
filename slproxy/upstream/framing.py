"""Reply framing: rejects what two parsers could read differently and aiohttp's lets pass.

Its parser of replies is lenient on purpose (``_http_parser.pyx``, ``HttpResponseParser``): folded lines are joined, a
name may end in a space, CR ends a line by itself and LF a chunk. Its one switch to strictness would refuse a second
``Server`` too. So a reply is checked once more, as it stood on the wire.
"""

from __future__ import annotations

import enum
import re
from typing import Literal

# RFC 9112 §4 and §5, with a bare LF for a line end as §2.2 allows; obsolete folding (§5.2) and control characters not.
_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_HEAD = re.compile(
    rb"(?:\r?\n)*HTTP/1\.[01] (?P<status>[1-9][0-9]{2})(?: " + _TEXT + rb")?\r?\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:" + _TEXT + rb"\r?\n)*\r?\n"
)
_CODING = re.compile(rb"\ntransfer-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)
# RFC 9112 §7.1, and the spaces that some servers pad a size with: they say nothing.
_SIZE = re.compile(rb"0*(?P<size>[0-9A-Fa-f]{1,15})[ \t]*(?:;" + _TEXT + rb")?\r\n")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:" + _TEXT + rb"\r\n")

# A length beyond a signed 64-bit number overflows somewhere.
MAX_LENGTH = 2**63 - 1
# More of a head, or of a line between chunks, than any server sends, in bytes.
MAX_HEAD = 512 * 1024


class _Part(enum.Enum):
    HEAD = enum.auto()
    SIZE = enum.auto()
    CHUNK = enum.auto()
    CHUNK_END = enum.auto()
    TRAILERS = enum.auto()
    # The rest is as long as Content-Length or the connection says.
    REST = enum.auto()


class ReplyWatch:
    """Checks one reply as its bytes arrive: its heads, interim ones included, and its chunks, not their content."""

    def __init__(self, method: str) -> None:
        self._has_body = method != "HEAD"
        self._part = _Part.HEAD
        self._line = bytearray()
        self._left = 0
        self.is_faulty = False
        # Whether the end of the last head has not been seen.
        self.is_in_head = True

    def feed(self, data: bytes) -> None:
        """Check what arrived, and set ``is_faulty`` when it can be read in two ways."""
        at = 0
        while at < len(data) and self._part is not _Part.REST and not self.is_faulty:
            match self._part:
                case _Part.HEAD:
                    at = self._head(data)
                case _Part.CHUNK:
                    skipped = min(self._left, len(data) - at)
                    self._left -= skipped
                    at += skipped
                    if self._left == 0:
                        self._part = _Part.CHUNK_END
                case _:
                    at = self._between_chunks(data, at)
        if len(self._line) > MAX_HEAD:
            self.is_faulty = True

    def _head(self, data: bytes) -> int:
        """Check the head, and return where in ``data`` it ends."""
        before = len(self._line)
        self._line += data
        while (end := _head_end(self._line)) > 0:
            head = _HEAD.fullmatch(self._line, 0, end)
            coding = None if head is None else _coding(head)
            if head is None or coding == "unknown":
                self.is_faulty = True
                break
            status = int(head["status"])
            if status >= 200 or status == 101:
                chunked = coding == "chunked" and self._has_body and status not in (204, 304)
                self._part = _Part.SIZE if chunked else _Part.REST
                self.is_in_head = False
                self._line = bytearray()
                return end - before
            del self._line[:end]
            before -= end
        return len(data)

    def _between_chunks(self, data: bytes, at: int) -> int:
        """Check a line between chunks, and return where in ``data`` it ends."""
        newline = data.find(b"\n", at)
        end = len(data) if newline < 0 else newline + 1
        self._line += data[at:end]
        if newline < 0:
            return end
        line, self._line = bytes(self._line), bytearray()
        if self._part is _Part.SIZE and (size := _SIZE.fullmatch(line)) is not None:
            self._left = int(size["size"], 16)
            self._part = _Part.CHUNK if self._left else _Part.TRAILERS
        elif self._part is _Part.CHUNK_END and line == b"\r\n":
            self._part = _Part.SIZE
        elif self._part is _Part.TRAILERS and line == b"\r\n":
            self._part = _Part.REST
        elif self._part is not _Part.TRAILERS or _FIELD.fullmatch(line) is None:
            self.is_faulty = True
        return end


def _head_end(data: bytearray) -> int:
    """Return where the first head ends that has a line in it, or 0. (A pattern took four times as long.)"""
    start = len(data) - len(data.lstrip(b"\r\n"))
    at_crlf, at_lf = data.find(b"\n\r\n", start), data.find(b"\n\n", start)
    if at_lf >= 0 and (at_crlf < 0 or at_lf < at_crlf):
        return at_lf + 2
    return at_crlf + 3 if at_crlf >= 0 else 0


def _coding(head: re.Match[bytes]) -> Literal["none", "chunked", "unknown"]:
    if b"transfer-encoding" not in head[0].lower():
        return "none"
    codings = [coding.strip().lower() for coding in _CODING.findall(head[0])]
    if not codings:
        return "none"
    return "chunked" if codings == [b"chunked"] else "unknown"
