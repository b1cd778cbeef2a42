"""Reply of the token endpoint: the token that it grants, or the error that it is.

Nothing in it is trusted: the accounts host may answer HTML with 200, leave fields out, or spell ``token_type`` in any
case. A bad reply is an error and never replaces a good token.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from slproxy.errors import CredentialsRefused, LoginRequired, TokenEndpointDown, TokenUnavailable
from slproxy.http import parsed_date
from slproxy.store import CLOCK_TOLERANCE, Token
from slproxy.untrusted import parse_json

# What SalesLoft documents; used where a reply names no lifetime that makes sense (RFC 6749 §5.1 leaves it optional).
DEFAULT_LIFETIME = 7200.0

# What RFC 6749 §5.2 and §4.1.2.1 name: it goes into our messages, so nothing else is let in.
_ERROR_CODES = {
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
    *("invalid_scope", "server_error", "temporarily_unavailable", "access_denied"),
}
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]+")  # RFC 6749 Appendix A.17
# It goes into a header, so: visible ASCII. RFC 6750 §2.1 allows less, and no reason to be stricter than the issuer.
_BEARER = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEndpointReply:
    """Reply of the accounts host; its body may hold secrets."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def parse_token_reply(reply: TokenEndpointReply, *, now: float, renews: Token | None = None) -> Token:
    """Return the token that a reply grants; a field that it leaves out keeps the value of the token it ``renews``.

    Raises:
        LoginRequired: ``invalid_grant``: the code or the refresh token is dead, and trying again does not help.
        CredentialsRefused: the client id, the secret or the scope is not accepted.
        TokenEndpointDown: anything else that is not a token; trying again may help.
    """
    document = _object_in(reply.body)
    if not 200 <= reply.status < 300:
        raise _refusal(reply.status, document)
    if document is None:
        raise TokenEndpointDown("The token endpoint answered without a JSON object.", hint=_CHECK_ACCOUNTS_URL)
    access_token = document.get("access_token")
    if not isinstance(access_token, str) or not _BEARER.fullmatch(access_token):
        raise TokenEndpointDown("The token endpoint answered without a usable access token.", hint=_CHECK_ACCOUNTS_URL)
    token_type = document.get("token_type", "bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise TokenEndpointDown("The token endpoint granted a token that is no bearer token.", hint=_CHECK_ACCOUNTS_URL)
    refresh_token, scope = document.get("refresh_token"), document.get("scope")
    if not isinstance(refresh_token, str) or not _REFRESH_TOKEN.fullmatch(refresh_token):
        refresh_token = renews.refresh_token if renews is not None else None
    # By the issuer's own clock: a token that was obtained while ours was years ahead is not believed for years.
    offset = (parsed_date(reply.headers.get("date") or "") or now) - now
    offset = offset if abs(offset) > CLOCK_TOLERANCE else 0.0
    return Token(
        access_token=access_token,
        refresh_token=refresh_token,
        obtained_at=now + offset,
        expires_at=now + offset + _lifetime(document.get("expires_in")),
        clock_offset=offset,
        scope=scope if isinstance(scope, str) else renews.scope if renews else "",
    )


_CHECK_ACCOUNTS_URL = "Check upstream.accounts_url, and whether SalesLoft has an outage."
_RUN_LOGIN = "Run: slproxy login"
_CHECK_CREDENTIALS = {
    "invalid_client": "Check SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET against the app in SalesLoft's settings.",
    "unauthorized_client": "Allow this grant for the app in SalesLoft's settings, or set auth.grant to another one.",
    "unsupported_grant_type": "Allow this grant for the app in SalesLoft's settings, or set auth.grant to another one.",
    "invalid_scope": "Check SALESLOFT_SCOPE against the scopes ticked on the app in SalesLoft's settings.",
}


def _refusal(status: int, document: Mapping[str, object] | None) -> TokenUnavailable:
    """Return the error that a refusal of the token endpoint means (RFC 6749 §5.2)."""
    code = document.get("error") if document is not None else None
    if not isinstance(code, str) or code not in _ERROR_CODES:
        return TokenEndpointDown(f"The token endpoint answered {status}.", hint=_CHECK_ACCOUNTS_URL)
    if code == "invalid_grant":
        return LoginRequired(
            "SalesLoft no longer accepts the login: invalid_grant. It was revoked, or renewed by someone else.",
            hint=_RUN_LOGIN,
        )
    if code in _CHECK_CREDENTIALS:
        return CredentialsRefused(f"SalesLoft refused the credentials: {code}.", hint=_CHECK_CREDENTIALS[code])
    return TokenEndpointDown(f"The token endpoint answered {status}: {code}.", hint=_CHECK_ACCOUNTS_URL)


def _object_in(body: bytes) -> dict[str, object] | None:
    try:
        document = parse_json(body, any_number=True)  # a token is not lost for its lifetime
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _lifetime(expires_in: object) -> float:
    """Return a lifetime in seconds; replies have carried it as a string, not at all, and below zero."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return DEFAULT_LIFETIME
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        return DEFAULT_LIFETIME
    return seconds if 0.0 < seconds < math.inf else DEFAULT_LIFETIME
