"""Request log: what was received, byte for byte."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

LENGTH = 10_000
BODY = 64 * 1024

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """Hold one API request, byte for byte; `status` is None until it is answered, or where it was cut off.

    `headers` are decoded as Latin-1, one character a byte (RFC 9110 §5.5). `body` is empty when over 64 KiB: `length`
    and `sha256` always tell.
    """

    method: str
    target: str
    headers: Headers = field(repr=False)
    at: float
    token: str | None = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)
    length: int = 0
    sha256: str = field(default=hashlib.sha256().hexdigest(), repr=False)
    status: int | None = None

    def with_body(self, body: bytes, length: int, sha256: str) -> RecordedRequest:
        """Return it with its body, or without where that is too long to keep."""
        return replace(self, body=body if length <= BODY else b"", length=length, sha256=sha256)


@dataclass(frozen=True, kw_only=True)
class RecordedTokenRequest:
    """Hold one call of the token endpoint; `status` is None while it waits, and where no reply was sent."""

    grant_type: str
    form: dict[str, str] = field(repr=False)
    at: float
    status: int | None = None


Entry = TypeVar("Entry", RecordedRequest, RecordedTokenRequest)


class RequestLog(Generic[Entry]):
    """Own a bounded list of entries, each of which is filled in as its request goes on."""

    def __init__(self) -> None:
        """Start empty."""
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> Entry:
        """Append an entry, and drop the oldest where there are too many."""
        self.entries.append(entry)
        del self.entries[:-LENGTH]
        return entry

    def fill(self, old: Entry, new: Entry) -> Entry:
        """Put the fuller entry in place of the old one, unless a test has cleared the list meanwhile."""
        for index in range(len(self.entries) - 1, -1, -1):
            if self.entries[index] is old:
                self.entries[index] = new
                break
        return new


def masked(secret: str) -> str:
    """Return the last 4 characters of a secret."""
    return f"…{secret[-4:]}" if len(secret) > 8 else "…"  # a short one would be half told


def masked_headers(headers: Headers) -> list[list[str]]:
    """Return headers fit to show: credentials end in their last 4 characters."""
    secret = re.compile(r"authorization|cookie|key|token|secret", re.IGNORECASE)
    return [[name, masked(value) if secret.search(name) else value] for name, value in headers]
