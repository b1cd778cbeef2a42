"""Recording: what the inspector keeps of an exchange besides what all listeners are told.

1. Credentials are gone by the time that anything is kept: by the names of headers and parameters. What is a secret by
   its value is masked wherever it is shown (``inspect/veil.py``): it may come out of a body that is compressed, and may
   be known only later.
2. What is kept are references to what a request has made anyway; nothing is worded before somebody looks.
3. Bodies are kept only if they are asked for, in memory, up to ``BODY_LIMIT`` each, and within what all may take.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Collection
from itertools import chain

from slproxy.http import Fields, RawHeaders

# What stands in the place of a credential.
MASK = "•••"
# How much of one body is kept, in bytes.
BODY_LIMIT = 64 * 1024

# By name: RFC 9110's, the proxy's own, and what APIs call theirs. `_` counts as `-`, as Rack and WSGI have it.
_CREDENTIAL = re.compile(
    r"proxy-(?!status$|connection$).*|x-slproxy-key|.*(?:authorization|cookie|token|secret|passw|api-?key|credential).*"
)
_PARAMETER = re.compile(
    r"(?i)([?&;][^=&;]*(?:token|secret|passw|api[_-]?key|authorization|signature|assertion)[^=&;]*=|[?&;](?:code|key|sig)=)"
    r"([^&;#]*)"
)
# Of the schemes that say nothing of who uses them.
_SCHEME = re.compile(rb"(?i)(basic|bearer) ")

# Names repeat from request to request; longer ones are not remembered, in bytes.
SHORT_NAME = 64

Read = Callable[[], Awaitable[bytes]]


class KeptBody:
    """The beginning of a body; ``take`` asks for so many bytes of the memory that all share."""

    __slots__ = ("_is_full", "_take", "data", "size")

    def __init__(self, take: Callable[[int], bool]) -> None:
        self._take = take
        self._is_full = False
        self.data = bytearray()
        # Of all of it, kept or not.
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Keep a chunk, as far as there is room."""
        self.size += len(chunk)
        if self._is_full:
            return
        kept = chunk[: BODY_LIMIT - len(self.data)]
        if self._take(len(kept)):
            self.data += kept
        self._is_full = len(self.data) < self.size


class Recording:
    """What is kept of one exchange, or of one event; ``n`` is its number in this process, ``at`` its Unix time.

    ``headers`` are those of the request as they came, ``onward`` as they went, less what each attempt injects;
    ``reply`` those of SalesLoft, ``passed`` and ``own`` what the client got. ``headers`` and ``reply`` are names and
    values in turn, a line each. What is not set by a request is the class's: each has one.
    """

    # When it last changed, in the order of all changes; and whether somebody was told of its begin.
    seq = 0
    is_told = False
    is_pinned = False
    # The number of the exchange of which it is a repetition.
    resent: int | None = None
    # What it takes of the memory, in bytes, bodies included.
    size = 0
    target = ""
    headers = onward = reply = passed = b""
    via: str | None = None
    own: Fields | None = None
    reason: str | None = None
    # A body of the proxy's own.
    answer = b""
    request_body: KeptBody | None = None
    reply_body: KeptBody | None = None
    # What it was sent with, until it ends.
    tokens: Collection[str] = ()

    def __init__(self, n: int, at: float, take: Callable[[int], bool] | None = None) -> None:
        """``take`` is where bodies get their memory from, and ``None`` where none are kept."""
        self.n, self.at, self.take = n, at, take

    def arrived(self, target: str, headers: bytes) -> None:
        """Keep the head of a request, of which ``headers`` are redacted."""
        self.target = redacted_target(target) if "?" in target else target
        self.headers = headers

    def reading(self, read: Read) -> Read:
        """Return what reads the body of the request, and keeps it if that is asked for."""
        if self.take is None:
            return read
        body = self.request_body = KeptBody(self.take)

        async def read_and_keep() -> bytes:
            chunk = await read()
            body.add(chunk)
            return chunk

        return read_and_keep

    def replied(self, headers: RawHeaders) -> KeptBody | None:
        """Keep the head of SalesLoft's reply; return where its body is to be kept, if it is."""
        block = b"\n".join(chain.from_iterable(headers))
        self.reply = block if b"cookie" not in block.lower() else redacted(headers)
        if self.take is not None:
            self.reply_body = KeptBody(self.take)
        return self.reply_body

    def answered(self, reason: str | None, passed: bytes, own: Fields, body: bytes) -> None:
        """Keep the head of the answer, and its body where that is the proxy's own."""
        self.reason, self.passed, self.own, self.answer = reason, passed, own, body


def redacted(headers: RawHeaders) -> bytes:
    """Return the names and values of headers in turn, a line each, less credentials."""
    return b"\n".join(
        chain.from_iterable(
            [(name, masked(value)) if is_credential(name) else (name, value) for name, value in headers]
        )
    )


def pairs(block: bytes) -> RawHeaders:
    """Return the headers of a block that ``redacted`` made."""
    lines = block.split(b"\n") if block else []
    return list(zip(lines[::2], lines[1::2], strict=True))


@functools.lru_cache(maxsize=512)
def _is_credential(name: bytes) -> bool:
    return _CREDENTIAL.fullmatch(name.decode("latin-1").lower().replace("_", "-")) is not None


def is_credential(name: bytes) -> bool:
    """Tell whether a header of this name holds a credential."""
    return _is_credential(name) if len(name) <= SHORT_NAME else _is_credential.__wrapped__(name)


def redacted_target(target: str) -> str:
    """Return a request target less the values of parameters that hold credentials."""
    return _PARAMETER.sub(rf"\1{MASK}", target)


def masked(value: bytes) -> bytes:
    """Return what is shown of a credential: its scheme, where that says nothing of whose it is."""
    scheme = _SCHEME.match(value)
    return (scheme[0] if scheme is not None else b"") + MASK.encode()
