"""Reply parser: one reply from its bytes, interim ones before it included. Sans-IO; the parser is llhttp's.

1. Strict where a reply can be read in two ways: what llhttp refuses, and besides that what it lets pass: another
   protocol's name or version, control characters in the reason, and any transfer coding but ``chunked`` alone.
2. Lenient where real servers are and nothing is at stake: bare line feeds in a head (RFC 9112 §2.2), spaces behind a
   chunk's size.
3. What comes behind a reply is no part of it, and the connection is not used again.
"""

from __future__ import annotations

import re
from itertools import chain

import httptools

# A length beyond a signed 64-bit number overflows somewhere.
MAX_LENGTH = 2**63 - 1
# More than any server sends, in bytes: of heads and what stands around chunks; of a header; and how many of these.
MAX_HEAD = 512 * 1024
MAX_HEADER = 64 * 1024
MAX_HEADER_COUNT = 1000
# What stands around a chunk of one byte.
CHUNK_REST = len(b"1\r\n\r\n")
# A server says 100, 102 or 103 once or a few times before it replies.
MAX_INFORMATIONAL = 100
SWITCHING_PROTOCOLS = 101

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LINE_ENDS = b"\r\n"
_VERSIONS = frozenset({"1.1", "1.0"})


class NotHTTPError(Exception):
    """A reply that does not parse, or that can be read in two ways."""


class ReplyParser:
    """Parses one reply; ``has_body`` is false for the reply to HEAD, which has none whatever its headers say."""

    def __init__(self, has_body: bool) -> None:
        self._has_body = has_body
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._has_begun = False
        self._informational = 0
        # Bytes that came and were none of a body, less what may stand around its chunks.
        self._overhead = 0
        # How many bytes came last.
        self._arrived = 0
        self._reason = b""
        # The headers, once there is a head.
        self.headers: list[tuple[bytes, bytes]] = []
        # The first value of each header, by its name in lower case.
        self.first: dict[bytes, bytes] = {}
        self.status = 0
        self.has_head = self.is_complete = False
        # Whether the body comes in chunks, and whether llhttp has seen one.
        self._is_chunked = self._has_chunks = False
        # Whether the body is as long as the connection lasts (RFC 9112 §6.3).
        self.is_until_close = False
        # Whether the connection may carry another request once the reply is complete.
        self.keeps_alive = False
        # What has arrived of the body and was not taken yet; mostly one piece, which is then not copied.
        self.body: bytes | bytearray = b""

    @property
    def reason(self) -> str:
        """The reason phrase, once there is a head."""
        return self._reason.decode("utf-8", "surrogateescape")

    def feed(self, data: memoryview) -> None:
        """Parse what arrived. Raises NotHTTPError."""
        if self._is_behind_reply():
            return
        if not self._has_begun and (start := bytes(data[:64]).lstrip(_LINE_ENDS)):
            self._has_begun = True
            if not start.startswith(b"H"):  # llhttp parses RTSP and ICE as well
                raise NotHTTPError("another protocol")
        before, self._arrived = len(self.body), len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise NotHTTPError("another protocol") from error
        except httptools.HttpParserError as error:
            if not self._is_behind_reply():
                raise NotHTTPError(str(error)) from error
        if self.is_complete:
            del self._parser  # which knows this object, so that only the garbage collector would find the two
            return
        taken = len(self.body) - before
        # However long a body is, chunks of one byte are sound, and what is longer has less around it.
        overhead = self._overhead + self._arrived - taken - CHUNK_REST * taken
        self._overhead = overhead if overhead > 0 else 0
        if self._overhead > MAX_HEAD or len(self.headers) > MAX_HEADER_COUNT:
            raise NotHTTPError("no end of a head, or of what stands around chunks")

    def _is_behind_reply(self) -> bool:
        """Return whether the reply is complete, so that what comes is no part of it, and spoils the connection."""
        if self.is_complete:
            self.keeps_alive = False
        return self.is_complete

    def end(self) -> bool:
        """Take the end of the connection; return whether the reply is whole."""
        self.keeps_alive = False
        if self.is_until_close and self.has_head:
            self.is_complete = True
        return self.is_complete

    # What llhttp calls; what is raised here comes out of `feed_data`.

    def on_message_begin(self) -> None:
        if self.is_complete:
            self.keeps_alive = False

    def on_status(self, reason: bytes) -> None:
        if not self.has_head:
            self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # else it is a trailer, which stops here
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.is_complete:
            self.keeps_alive = False
            return
        status = self._parser.get_status_code()
        if status < 100 or self._parser.get_http_version() not in _VERSIONS or _CONTROL.search(self._reason):
            raise NotHTTPError("no status line of HTTP/1.1")
        headers = self.headers
        if len(headers) > MAX_HEADER_COUNT or (
            self._overhead + self._arrived > MAX_HEADER  # else none is so long
            and max(map(len, chain.from_iterable(headers)), default=0) > MAX_HEADER
        ):
            raise NotHTTPError("more of headers than any server sends")
        if status < 200 and status != SWITCHING_PROTOCOLS:
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise NotHTTPError("no end of informational replies")
            self.headers, self._reason = [], b""
            return
        self.has_head, self.status = True, status
        self.first = {name.lower(): value for name, value in reversed(headers)}
        length, is_coded = self.first.get(b"content-length"), b"transfer-encoding" in self.first
        self.keeps_alive = self._parser.should_keep_alive()
        if is_coded:
            if self._codings() != [b"chunked"]:
                raise NotHTTPError("a transfer coding that is not chunked alone")
            if self._parser.get_http_version() == "1.0":
                self.keeps_alive = False  # whoever handed it on may have read it in another way (RFC 9112 §6.1)
            # Sizes of chunks are read in one way only.
            self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=False)
        if length is not None and int(length) > MAX_LENGTH:
            raise NotHTTPError("a length beyond all reason")
        self._is_chunked = is_coded
        if not self._has_body:
            self.is_complete = True
        elif length is None and not is_coded and status not in (204, 304):
            self.is_until_close = True

    def _codings(self) -> list[bytes]:
        return [value.lower() for name, value in self.headers if name.lower() == b"transfer-encoding"]

    def on_chunk_header(self) -> None:
        self._has_chunks = True

    def on_body(self, data: bytes) -> None:
        if not self.has_head or self._has_chunks is not self._is_chunked:
            raise NotHTTPError("a body where there is none, or that llhttp frames otherwise")
        if self.is_complete:
            self.keeps_alive = False
            return
        if not self.body:
            self.body = data
            return
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += data

    def take(self) -> bytes:
        """Return what has arrived of the body and was not taken yet."""
        body, self.body = self.body, b""
        return bytes(body)

    def on_message_complete(self) -> None:
        if self.has_head:
            self.is_complete = True
