"""Accepted headers: what a request's headers alone decide, made once for the same bytes.

1. They are known by a digest of their bytes: those hold credentials, which are kept no longer than the request.
2. Only what was let in is remembered, and only what depends on nothing but the headers and the settings. What depends
   on the target, the method, the client's user or the time is decided each time.
3. The memory is limited in bytes. Its owner is a ``Forwarder``: other settings begin with an empty one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from itertools import chain

from slproxy.forward.browser import is_run
from slproxy.forward.headers import stripped
from slproxy.forward.rules import Client
from slproxy.http import ByName, RawHeaders
from slproxy.pace import Preferences, parse_preferences

# How much is remembered in all, and of one request at most, in bytes.
CAPACITY, LARGEST = 512 * 1024, 16 * 1024
# What one costs besides its texts: the objects that it is made of, and its place, in bytes.
OVERHEAD = 700


@dataclass(frozen=True, kw_only=True, slots=True)
class AcceptedHeaders:
    """What follows from headers that were let in.

    ``onward`` are those that go upstream, as lines on the wire, less what each attempt injects; ``host`` is what the
    client called the proxy. ``may_retry`` is false where the client said ``X-Slproxy-Retry: off``. ``is_run``: a
    browser makes a document or a worker of the reply. ``client`` is whose key they have shown.
    """

    onward: bytes = field(repr=False)
    # All of them, as the inspector keeps them, where it keeps anything.
    recorded: bytes = field(default=b"", repr=False)
    host: str
    preferences: Preferences
    may_retry: bool = True
    is_run: bool = False
    # How many bytes both blocks of headers have.
    size: int = 0
    client: Client | None = None


def accepted(
    headers: RawHeaders, named: ByName, *, recorded: bytes = b"", client: Client | None = None
) -> AcceptedHeaders:
    """Return what headers ask for that were let in; ``named`` are the same, by name, ``recorded`` less credentials.

    ``client`` is whose key they show.

    Raises:
        InexactHeaderError: one cannot be passed on exactly.
    """
    preferences = parse_preferences(named)
    if client is not None:
        preferences = replace(
            preferences, client=client.name, bulk=client.bulk or preferences.bulk, budget=client.budget
        )
    onward = stripped(headers)
    return AcceptedHeaders(
        onward=onward,
        recorded=recorded,
        size=len(onward) + len(recorded),
        host=named[b"host"][0].decode("latin-1"),
        preferences=preferences,
        may_retry=[value.lower() for value in named.get(b"x-slproxy-retry", ())] != [b"off"],
        is_run=is_run(named),
        client=client,
    )


def digest_of(headers: RawHeaders) -> bytes:
    """Return what headers are known by. No name or value holds a line end, so that no two blocks read the same."""
    return hashlib.blake2b(b"\n".join(chain.from_iterable(headers)), digest_size=32).digest()


class KnownHeaders:
    """The accepted headers of late, by their digests; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._size = 0
        self._known: dict[bytes, AcceptedHeaders] = {}
        self.get = self._known.get

    @property
    def size(self) -> int:
        """How many bytes are in use, about."""
        return self._size

    def remember(self, digest: bytes, headers: AcceptedHeaders) -> None:
        """Remember accepted headers that are not known yet."""
        if (size := _size(headers)) > LARGEST or digest in self._known:
            return
        self._size += size
        self._known[digest] = headers
        while self._size > CAPACITY:
            self._size -= _size(self._known.pop(next(iter(self._known))))


def _size(headers: AcceptedHeaders) -> int:
    return headers.size + len(headers.host) + len(headers.preferences.client) + OVERHEAD
