"""Authorize and token endpoints: consent, codes, grants, and the errors of RFC 6749."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit, urlunsplit

from slproxy.sandbox.oauth.tokens import TokenPair, Tokens
from slproxy.sandbox.options import Options

CODE_LIFETIME = 600.0  # docs/salesloft.md, OAuth

DESCRIPTIONS: Mapping[str, str] = {
    "invalid_grant": (
        "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in "
        "the authorization request, or was issued to another client."
    ),
    "invalid_client": (
        "Client authentication failed due to unknown client, no client authentication included, or unsupported "
        "authentication method."
    ),
    "invalid_request": "The request is missing a required parameter, or is otherwise malformed.",
    "invalid_scope": "The requested scope is invalid, unknown, or malformed.",
    "unauthorized_client": "The client is not authorized to perform this request using this method.",
    "unsupported_grant_type": "The authorization grant type is not supported by the authorization server.",
    "unsupported_response_type": "The authorization server does not support this response type.",
    "access_denied": "The resource owner or authorization server denied the request.",
}


@dataclass(frozen=True, kw_only=True)
class AuthorizationCode:
    """Hold what an authorization code is bound to."""

    login: str
    redirect_uri: str
    scope: str
    challenge: str | None
    plain: bool
    expires_at: float


@dataclass(frozen=True)
class AuthorizationError:
    """Tell the user why there is no redirect: the client or its redirect URI is unknown, so neither is trusted."""

    status: int
    reason: str


@dataclass(frozen=True)
class RedirectBack:
    """Redirect the user to the client."""

    location: str


@dataclass(frozen=True)
class AskConsent:
    """Ask the user for consent; the request's parameters come back with it."""

    params: Mapping[str, str]


def refusal(error: str) -> tuple[int, Mapping[str, object]]:
    """Return an error of RFC 6749 §5.2; only `invalid_client` is 401."""
    return 401 if error == "invalid_client" else 400, {"error": error, "error_description": DESCRIPTIONS[error]}


def registered(uri: str, allowed: tuple[str, ...]) -> bool:
    """Tell whether a redirect URI equals a registered one; port 0 of a registered loopback URI is any port."""
    if uri in allowed:
        return True
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    if parts.hostname not in ("localhost", "127.0.0.1", "::1") or port is None or "@" in parts.netloc:
        return False
    host = parts.netloc.removesuffix(f":{port}")
    return urlunsplit(parts._replace(netloc=f"{host}:0")) in allowed


def proves(verifier: str, code: AuthorizationCode) -> bool:
    """Tell whether a PKCE verifier fits the code's challenge (RFC 7636 §4.6); without a challenge any does."""
    if code.challenge is None:
        return True
    digest = hashlib.sha256(verifier.encode()).digest()
    made = verifier if code.plain else base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return secrets.compare_digest(made.encode(), code.challenge.encode())


def basic(authorization: str) -> tuple[str, str] | None:
    """Return the client's id and secret from a Basic header, form-decoded as RFC 6749 §2.3.1 asks."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote_plus(name), unquote_plus(password)


def back_to(uri: str, params: Mapping[str, str]) -> str:
    """Return a redirect URI with parameters added to its own."""
    parts = urlsplit(uri)
    return urlunsplit(
        parts._replace(query=urlencode([*parse_qsl(parts.query, keep_blank_values=True), *params.items()]))
    )


class OAuth:
    """Own the codes; the tokens are shared with the API."""

    def __init__(self, options: Options, tokens: Tokens) -> None:
        """Start with no code."""
        self._options = options
        self._tokens = tokens
        self._codes: dict[str, AuthorizationCode] = {}
        self._used: dict[str, AuthorizationCode] = {}

    def authorize(self, params: Mapping[str, str], now: float) -> AuthorizationError | RedirectBack | AskConsent:
        """Answer an authorization request; `sandbox_consent` is the user's answer, `allow` or `deny`."""
        if params.get("client_id") != self._options.client_id:
            return AuthorizationError(401, DESCRIPTIONS["invalid_client"])
        uri = params.get("redirect_uri", "")
        if not registered(uri, self._options.redirect_uris):
            return AuthorizationError(
                400, "The requested redirect uri is malformed or doesn't match client redirect URI."
            )
        state = {"state": params["state"]} if "state" in params else {}
        consent = params.get("sandbox_consent")
        error = self._objection(params) or ("access_denied" if consent == "deny" else None)
        if error:
            return RedirectBack(back_to(uri, {"error": error, "error_description": DESCRIPTIONS[error], **state}))
        if consent != "allow":
            return AskConsent(params)
        code = secrets.token_urlsafe(32)
        scope = params.get("scope") or self._options.scope
        self._codes[code] = AuthorizationCode(
            login=secrets.token_urlsafe(8),
            redirect_uri=uri,
            scope=scope,
            challenge=params.get("code_challenge") or None,
            plain=params.get("code_challenge_method", "plain") == "plain",  # the default: RFC 7636 §4.3
            expires_at=now + CODE_LIFETIME,
        )
        return RedirectBack(back_to(uri, {"code": code, "context": "primary", "scope": scope, **state}))

    def exchange(self, params: Mapping[str, str], authorization: str, now: float) -> tuple[int, Mapping[str, object]]:
        """Answer a token request; what it commits is in force on return."""
        if params.get("grant_type") is None:
            return refusal("invalid_request")
        name, password = basic(authorization) or (params.get("client_id", ""), params.get("client_secret", ""))
        known = (self._options.client_id, self._options.client_secret)
        if not all(
            secrets.compare_digest(a.encode(), b.encode()) for a, b in zip((name, password), known, strict=True)
        ):
            return refusal("invalid_client")
        lifetime = self._options.token_lifetime
        match params["grant_type"]:
            case "authorization_code":
                return self._redeem(params, now)
            case "refresh_token" if not params.get("refresh_token"):
                return refusal("invalid_request")
            case "refresh_token":
                pair = self._tokens.rotate(params["refresh_token"], now=now, lifetime=lifetime)
                return granted(pair) if pair else refusal("invalid_grant")
            case "client_credentials":
                if not self._within_scope(params):
                    return refusal("invalid_scope")
                scope = params.get("scope") or self._options.scope
                return granted(self._tokens.issue(now=now, lifetime=lifetime, scope=scope, refreshable=False))
            case _:
                return refusal("unsupported_grant_type")

    def _redeem(self, params: Mapping[str, str], now: float) -> tuple[int, Mapping[str, object]]:
        text = params.get("code", "")
        if not text or not params.get("redirect_uri"):
            return refusal("invalid_request")
        if text in self._used:
            # A code used twice may have been stolen, so what it gave is revoked: RFC 6749 §4.1.2.
            self._tokens.revoke_login(self._used[text].login)
        code = self._codes.pop(text, None)
        if (
            code is None
            or now >= code.expires_at
            or params["redirect_uri"] != code.redirect_uri
            or not proves(params.get("code_verifier", ""), code)
        ):
            return refusal("invalid_grant")
        self._used[text] = code
        lifetime = self._options.token_lifetime
        return granted(self._tokens.issue(now=now, lifetime=lifetime, scope=code.scope, login=code.login))

    def _objection(self, params: Mapping[str, str]) -> str | None:
        if params.get("response_type") != "code":
            return "unsupported_response_type"
        if params.get("code_challenge_method", "plain") not in ("plain", "S256"):
            return "invalid_request"
        return None if self._within_scope(params) else "invalid_scope"

    def _within_scope(self, params: Mapping[str, str]) -> bool:
        # Scopes are ticked on the app (docs/salesloft.md, OAuth); where the options tick none, any may be asked for.
        ticked = self._options.scope.split()
        return not ticked or set(params.get("scope", "").split()) <= set(ticked)


def granted(pair: TokenPair) -> tuple[int, Mapping[str, object]]:
    """Return the token reply of docs/salesloft.md, OAuth."""
    reply: dict[str, object] = {
        "access_token": pair.access_token,
        "token_type": "bearer",
        "expires_in": max(1, round(pair.lifetime)),
        "refresh_token": pair.refresh_token,
        "scope": pair.scope,
        "created_at": int(pair.created_at),
    }
    if pair.refresh_token is None:
        del reply["refresh_token"]
    return 200, reply
