"""Stored format of a record: a JSON object, validated when it is read."""

from __future__ import annotations

import json
import math
from typing import Any

from slproxy.store.record import FIRST_ACCOUNTS_URL, FIRST_API_URL, Record
from slproxy.store.token import Token
from slproxy.untrusted import parse_json

# Another number is another program's, or a later version's.
FORMAT = "slproxy-token-1"


def serialize_record(record: Record) -> bytes:
    """Return a record as the text that is stored."""
    token = record.token
    document: dict[str, object] = {
        "format": FORMAT,
        "client_id": record.client_id,
        "accounts_url": record.accounts_url,
        "profile": record.profile,
        "api_url": record.api_url,
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
    if token.clock_offset:
        document["clock_offset"] = token.clock_offset
    return json.dumps(document, indent=1).encode() + b"\n"


def parse_record(content: bytes) -> Record:
    """Return the record that ``serialize_record`` wrote. Raises ValueError for anything else."""
    try:
        return _record_in(parse_json(content))
    except (KeyError, TypeError, ValueError, OverflowError):
        # Without the cause, which quotes what it stumbled over.
        raise ValueError("not a record") from None


def _record_in(document: Any) -> Record:
    if document["format"] != FORMAT:
        raise ValueError("another format")
    expires_at, refresh_token = document["expires_at"], document["refresh_token"]
    user_id, team_id = document.get("user_id"), document.get("team_id")
    accounts_url = _text(document["accounts_url"])
    return Record(
        client_id=_text(document["client_id"]),
        accounts_url=accounts_url,
        profile=_text(document["profile"]),
        api_url=_text(document.get("api_url", _first_api_url(accounts_url))),  # an earlier version did not write it
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
            clock_offset=_time(document.get("clock_offset", 0.0)),  # only where the clocks did not agree
            scope=_text(document["scope"]),
        ),
    )


def _first_api_url(accounts_url: str) -> str:
    """Return the API of a login that does not name it: SalesLoft's, or that of a sandbox, which has one address."""
    return FIRST_API_URL if accounts_url == FIRST_ACCOUNTS_URL else accounts_url


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
