"""OAuth 2.0 requests as SalesLoft wants them: form-encoded, with the secret in the body (docs/salesloft.md, OAuth)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

AUTHORIZE_PATH = "/oauth/authorize"
TOKEN_PATH = "/oauth/token"  # noqa: S105  # a path
REVOKE_PATH = "/oauth/revoke"


@dataclass(frozen=True, kw_only=True, slots=True)
class OAuthClient:
    """An OAuth client: its id and, unless it is public, its secret."""

    id: str
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Form:
    """A form-encoded POST to a path of the accounts host. Its fields hold secrets."""

    path: str
    fields: Sequence[tuple[str, str]] = field(repr=False)

    def encode(self) -> bytes:
        """Return the body, as ``application/x-www-form-urlencoded``."""
        return urlencode(self.fields).encode("ascii")


def authorize_url(
    accounts_url: str, client: OAuthClient, *, redirect_uri: str, scope: str, state: str, challenge: str
) -> str:
    """Return where a person grants access: RFC 6749 §4.1.1 with PKCE S256 (RFC 7636 §4.3)."""
    query = {
        "client_id": client.id,
        "redirect_uri": redirect_uri,
        "response_type": "code",
        **({"scope": scope} if scope else {}),
        "state": state,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{accounts_url}{AUTHORIZE_PATH}?{urlencode(query)}"


def pkce_challenge(verifier: str) -> str:
    """Return the S256 challenge of a PKCE verifier (RFC 7636 §4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode("ascii")


def code_grant(client: OAuthClient, *, code: str, redirect_uri: str, verifier: str) -> Form:
    """Return the request for the token that a code stands for (RFC 6749 §4.1.3)."""
    fields = [("code", code), ("redirect_uri", redirect_uri), ("code_verifier", verifier)]
    return Form(TOKEN_PATH, [("grant_type", "authorization_code"), *_identity(client), *fields])


def refresh_grant(client: OAuthClient, *, refresh_token: str) -> Form:
    """Return the request for the next token (RFC 6749 §6). SalesLoft then revokes the refresh token in it."""
    return Form(TOKEN_PATH, [("grant_type", "refresh_token"), *_identity(client), ("refresh_token", refresh_token)])


def client_credentials_grant(client: OAuthClient, *, scope: str) -> Form:
    """Return the request for a token of the application itself (RFC 6749 §4.4.2)."""
    scoped = [("scope", scope)] if scope else []
    return Form(TOKEN_PATH, [("grant_type", "client_credentials"), *_identity(client), *scoped])


def revocation(client: OAuthClient, *, token: str) -> Form:
    """Return the request to revoke a token (RFC 7009 §2.1)."""
    return Form(REVOKE_PATH, [*_identity(client), ("token", token)])


def _identity(client: OAuthClient) -> list[tuple[str, str]]:
    secret = [("client_secret", client.secret)] if client.secret else []
    return [("client_id", client.id), *secret]
