"""The token at rest: what is kept of a login, and what every place for it promises.

1. A write leaves either the old record or the new one, whole.
2. An older record never replaces a newer one, whatever the order of arrival (``Record.is_older_than``).
3. A lock that ends with its holder keeps two processes from renewing one token at the same time.
4. A record belongs to one client at one accounts host, in one profile. Whoever else asks gets none.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any

# What the file calls itself; another number is another program's, or a later version's.
FORMAT = "slproxy-token-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A login as it is kept: whose it is, the token, and how often it was renewed.

    ``login`` is when it was made, in ms of Unix time, later than the one before it, and ``generation`` counts its
    renewals, so that of any two records it is known which is newer. ``refused`` holds the error of a refresh token that
    is dead, so that no start tries it again. ``user_id`` and ``team_id`` say who logged in, where SalesLoft told.
    """

    client_id: str
    accounts_url: str
    token: Token
    profile: str = "default"
    login: int = 1
    generation: int = 1
    refused: str = ""
    user_id: int | None = None
    team_id: int | None = None

    def belongs_to(self, client_id: str, accounts_url: str, profile: str) -> bool:
        """Tell whether this login is of that client at that accounts host, in that profile."""
        return self.owner == (client_id, accounts_url, profile)

    @property
    def owner(self) -> tuple[str, str, str]:
        """What ``belongs_to`` asks for."""
        return (self.client_id, self.accounts_url, self.profile)

    def is_older_than(self, other: Record) -> bool:
        """Tell whether ``other`` came later: by another login, a further renewal of this one, or the same one later."""
        return self.version < other.version

    def has_the_token_of(self, other: Record) -> bool:
        """Tell whether both hold the same token, whatever else was noted about it since.

        Generations do not tell: a logout and a login begin to count again.
        """
        mine, theirs = self.token, other.token
        return (mine.access_token, mine.refresh_token) == (theirs.access_token, theirs.refresh_token)

    @property
    def version(self) -> tuple[int, int, float]:
        """Where the record stands among those that came before and after it."""
        return (self.login, self.generation, self.token.obtained_at)

    def renewed(self, token: Token) -> Record:
        """Return the record of the next generation."""
        return replace(self, token=token, generation=self.generation + 1, refused="")


def serialize_record(record: Record) -> bytes:
    """Return a record as a text to keep."""
    token = record.token
    document = {
        "format": FORMAT,
        "client_id": record.client_id,
        "accounts_url": record.accounts_url,
        "profile": record.profile,
        "login": record.login,
        "generation": record.generation,
        "refused": record.refused,
        "user_id": record.user_id,
        "team_id": record.team_id,
        "access_token": token.access_token,
        "refresh_token": token.refresh_token,
        "obtained_at": token.obtained_at,
        "expires_at": token.expires_at,
        "scope": token.scope,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_record(content: bytes) -> Record:
    """Return the record that ``serialize_record`` wrote. Raises ValueError for anything else."""
    try:
        return _record_in(json.loads(content))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        # Without the cause, which quotes what it stumbled over.
        raise ValueError("not a record") from None


def _record_in(document: dict[str, Any]) -> Record:
    if document["format"] != FORMAT:
        raise ValueError("another format")
    expires_at, refresh_token = document["expires_at"], document["refresh_token"]
    user_id, team_id = document.get("user_id"), document.get("team_id")
    return Record(
        client_id=_text(document["client_id"]),
        accounts_url=_text(document["accounts_url"]),
        profile=_text(document["profile"]),
        login=_whole(document.get("login", 1)),  # an earlier version did not write it
        generation=_whole(document["generation"]),
        refused=_text(document["refused"]),
        user_id=None if user_id is None else _whole(user_id),
        team_id=None if team_id is None else _whole(team_id),
        token=Token(
            access_token=_token(document["access_token"]),
            refresh_token=None if refresh_token is None else _token(refresh_token),
            obtained_at=_time(document["obtained_at"]),
            expires_at=None if expires_at is None else _time(expires_at),
            scope=_text(document["scope"]),
        ),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _token(value: object) -> str:
    # It goes into a header.
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise TypeError("not a token")
    return value


def _whole(value: object) -> int:
    # Beyond 2**53, Redis and JSON no longer count exactly.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise TypeError("not a number")
    return value


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("not a time")
    return float(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """An access token and what renews it. Times are Unix times in seconds; ``expires_at`` ``None`` is never."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    obtained_at: float
    expires_at: float | None = None
    scope: str = ""

    @property
    def lifetime(self) -> float:
        """Seconds from when it was obtained to its expiry."""
        return math.inf if self.expires_at is None else self.expires_at - self.obtained_at

    def remaining(self, now: float) -> float:
        """Return the seconds until its expiry, below zero once it has expired."""
        return math.inf if self.expires_at is None else self.expires_at - now
