"""Issued tokens: how they are rotated, and which ones are alive.

An access token and its refresh token are one row, and are revoked together, as in Doorkeeper, which SalesLoft almost
surely runs (docs/salesloft.md, OAuth).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from slproxy.sandbox.options import Rotation


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """Hold what a login gives; client credentials get no refresh token."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    scope: str
    lifetime: float
    created_at: float


@dataclass(kw_only=True)
class IssuedToken:
    """Hold a pair and what became of it. `login` names the authorization that all its successors share."""

    pair: TokenPair
    login: str
    expires_at: float
    previous: IssuedToken | None = None
    revoked: bool = False

    def alive(self, now: float) -> bool:
        """Tell whether the access token is good."""
        return not self.revoked and now < self.expires_at


class Tokens:
    """Own every token that was issued."""

    def __init__(self, rotation: Rotation) -> None:
        """Start with none."""
        self._rotation = rotation
        self._rows: list[IssuedToken] = []
        self._access: dict[str, IssuedToken] = {}
        self._refresh: dict[str, IssuedToken] = {}

    def issue(
        self,
        *,
        now: float,
        lifetime: float,
        scope: str,
        refreshable: bool = True,
        login: str | None = None,
        previous: IssuedToken | None = None,
    ) -> TokenPair:
        """Make a pair of random tokens; `lifetime` is in seconds."""
        pair = TokenPair(
            access_token=secrets.token_urlsafe(32),
            refresh_token=secrets.token_urlsafe(32) if refreshable else None,
            scope=scope,
            lifetime=lifetime,
            created_at=now,
        )
        row = IssuedToken(
            pair=pair, login=login or secrets.token_urlsafe(8), expires_at=now + lifetime, previous=previous
        )
        self._rows.append(row)
        self._access[pair.access_token] = row
        if pair.refresh_token is not None:
            self._refresh[pair.refresh_token] = row
        return pair

    def rotate(self, refresh_token: str, *, now: float, lifetime: float) -> TokenPair | None:
        """Give a new pair for a refresh token, or None where that is unknown or revoked.

        "Upon receipt of a refresh token, all old refresh tokens are revoked"; when that takes the old access token
        along is a switch, for both have been inferred (docs/salesloft.md, OAuth).
        """
        row = self._refresh.get(refresh_token)
        if row is None or row.revoked:
            return None
        if self._rotation == "immediate":
            row.revoked = True
        return self.issue(now=now, lifetime=lifetime, scope=row.pair.scope, login=row.login, previous=row)

    def use(self, access_token: str, now: float) -> bool:
        """Tell whether an access token is good; a good one ends the pairs it replaced."""
        row = self._access.get(access_token)
        if row is None or not row.alive(now):
            return False
        replaced, row.previous = row.previous, None
        while replaced is not None:
            replaced.revoked = True
            replaced = replaced.previous
        return True

    def expire(self, access_token: str, now: float) -> None:
        """End an access token's time; its refresh token stays good."""
        row = self._access.get(access_token)
        if row is not None:
            row.expires_at = min(row.expires_at, now)

    def revoke(self, token: str) -> None:
        """Revoke the pair that an access or refresh token belongs to; an unknown one is no error (RFC 7009 §2.2)."""
        row = self._access.get(token) or self._refresh.get(token)
        if row is not None:
            row.revoked = True

    def revoke_login(self, login: str) -> None:
        """Revoke all that one authorization led to."""
        for row in self._rows:
            row.revoked = row.revoked or row.login == login

    def revoke_all(self) -> None:
        """Revoke every token."""
        for row in self._rows:
            row.revoked = True

    def alive(self, now: float) -> Iterator[TokenPair]:
        """Walk the pairs whose access token is good."""
        return (row.pair for row in self._rows if row.alive(now))
