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
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Protocol

from slproxy.http import Fields, RawHeaders

# What stands in the place of a credential.
MASK = "•••"
# How much of one body is kept, in bytes.
BODY_LIMIT = 64 * 1024

# By name: RFC 9110's, the proxy's own, and what APIs call theirs. `_` counts as `-`, as Rack and WSGI have it.
_CREDENTIAL = re.compile(
    r"proxy-(?!status$|connection$).*|(?!idempotency-).*-key(?:-.*)?"
    r"|.*(?:authorization|cookie|token|secret|passw|api-?key|credential).*"
)
# Of a query: a name, and its value. No part of it is looked at twice, however long it is.
_PARAMETER = re.compile(r"((?:^|[&;])([^=&;]*)=)([^&;#]*)")
_SECRET_PARAMETER = re.compile(
    r"(?i)token|secret|passw|api[_-]?key|authorization|signature|assertion|\A(?:code|key|sig)\Z"
)
# The schemes that say nothing about who uses them.
_SCHEME = re.compile(rb"(?i)(basic|bearer) ")

# Names repeat from request to request; longer ones are not remembered, in bytes.
SHORT_NAME = 64

Read = Callable[[], Awaitable[bytes]]


class KeptBody:
    """The beginning of a body; ``take`` asks for so many bytes of the memory that all share."""

    __slots__ = ("_is_full", "_take", "data", "size", "taken")

    def __init__(self, take: Callable[[int], bool]) -> None:
        self._take = take
        self._is_full = False
        self.data = bytearray()
        # Of all of it, kept or not; and what of the memory was taken.
        self.size = self.taken = 0

    def add(self, chunk: bytes) -> None:
        """Keep a chunk, as far as there is room."""
        self.size += len(chunk)
        if self._is_full:
            return
        kept = chunk[: BODY_LIMIT - len(self.data)]
        taken = len(kept) * 9 // 8  # an array that grows is made larger than it has to be
        if self._take(taken):
            self.data += kept
            self.taken += taken
        self._is_full = len(self.data) < self.size

    def stop(self) -> None:
        """Keep nothing more."""
        self._is_full = True


class Asked(Protocol):
    """The headers of a request that was let in: all as they are recorded, and those that go on."""

    @property
    def recorded(self) -> bytes: ...

    @property
    def onward(self) -> bytes: ...

    @property
    def size(self) -> int: ...


class Stopped(Protocol):
    """Headers that were not passed on: their places, what picks them out, and the places and names of credentials."""

    @property
    def places(self) -> Sequence[int]: ...

    @property
    def pick(self) -> Callable[[RawHeaders], RawHeaders]: ...

    @property
    def credentials(self) -> Sequence[tuple[int, bytes]]: ...


class AnswerHead(Protocol):
    """What the client got: SalesLoft's headers as they were passed on, and the proxy's own."""

    @property
    def reason(self) -> str | None: ...

    @property
    def passed(self) -> bytes: ...

    @property
    def headers(self) -> Fields: ...

    @property
    def body(self) -> object: ...


class Recording:
    """What is kept of one exchange, or of one event. What a request does not set is the class's."""

    # Its number in this process, and its Unix time.
    n = 0
    at = 0.0
    # Where bodies get their memory from; ``None`` where none are kept.
    take: Callable[[int], bool] | None = None
    # When it last changed, in the order of all changes; and whether somebody was told that it began.
    seq = 0
    is_told = False
    is_pinned = False
    # The client whose key was shown, by its name.
    owner: str | None = None
    # The number of the exchange of which it is a repetition.
    resent: int | None = None
    # What it takes of the memory, in bytes, bodies included.
    size = 0
    target = ""
    # Of a request whose headers are not known to have been let in: names and values in turn, a line each.
    headers = b""
    asked: Asked | None = None
    via: str | None = None
    # Which of SalesLoft's headers were not passed on, and what they are; or all of them, as ``headers``.
    stopped: Stopped | None = None
    picked: RawHeaders = ()
    reply: bytes | None = None
    answer: AnswerHead | None = None
    request_body: KeptBody | None = None
    reply_body: KeptBody | None = None

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

    def replied(self, headers: RawHeaders, stopped: Stopped | None) -> KeptBody | None:
        """Keep of the head of SalesLoft's reply what the answer does not have; return where its body is to be kept.

        ``stopped`` are the headers that were not passed on, ``None`` where others differ as well.
        """
        if stopped is None:
            self.reply = redacted(headers)
        else:
            self.stopped = stopped
            if stopped.places:
                self.picked = stopped.pick(headers)
        if self.take is not None:
            self.reply_body = KeptBody(self.take)
        return self.reply_body

    @property
    def body_size(self) -> int:
        """What its bodies take of the memory, in bytes."""
        bodies = (self.request_body, self.reply_body)
        return sum(body.taken for body in bodies if body is not None)

    @property
    def came(self) -> RawHeaders:
        """The headers of the request as they came, less credentials."""
        return pairs(self.headers or (b"" if self.asked is None else self.asked.recorded))


def redacted(headers: RawHeaders) -> bytes:
    """Return the names and values of headers in turn, a line each, less credentials."""
    return b"\n".join(chain.from_iterable([without_credential(name, value) for name, value in headers]))


def without_credential(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a header less the credential in it."""
    return (name, masked(value)) if is_credential(name) else (name, value)


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


def _may_hold_credential(target: str) -> bool:
    """Tell whether it is worth a closer look, which costs more than all the rest that is kept."""
    text = target.lower()
    return ("token" in text or "secret" in text or "key" in text or "sig" in text or "code" in text) or (
        "passw" in text or "authorization" in text or "assertion" in text
    )


def redacted_target(target: str) -> str:
    """Return a request target less the values of parameters that hold credentials."""
    if "?" not in target or not _may_hold_credential(target):
        return target
    path, separator, query = target.partition("?")
    return path + separator + _PARAMETER.sub(_without_secret, query)


def _without_secret(found: re.Match[str]) -> str:
    return f"{found[1]}{MASK}" if _SECRET_PARAMETER.search(found[2]) else found[0]


def masked(value: bytes) -> bytes:
    """Return what is shown of a credential: its scheme, where that says nothing of whose it is."""
    scheme = _SCHEME.match(value)
    return (scheme[0] if scheme is not None else b"") + MASK.encode()
