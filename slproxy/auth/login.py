"""Login: authorization code in the browser, with PKCE S256, on a loopback redirect (RFC 8252).

1. ``state`` ties the answer to this very attempt; a callback without it is refused, and nothing is stored.
2. The verifier never leaves this process but to the token endpoint, so that a stolen code is worth nothing.
3. The earlier login stays as it is until a new token is there.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from slproxy.auth import oauth
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.auth.oauth import OAuthClient
from slproxy.auth.token_reply import TokenEndpointReply, parse_token_reply
from slproxy.config import Settings
from slproxy.errors import ConfigError, LoginError, LoginRequired
from slproxy.store import Record


def begin_login(settings: Settings) -> LoginAttempt:
    """Return a fresh attempt. Raises ConfigError when no client id is set."""
    client = oauth_client(settings)
    # RFC 7636 §4.1: 43 to 128 characters; RFC 6749 §10.10: not guessable.
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    url = oauth.authorize_url(
        settings.upstream.accounts_url,
        client,
        redirect_uri=settings.auth.redirect_uri,
        scope=settings.auth.scope or "",
        state=state,
        challenge=oauth.pkce_challenge(verifier),
    )
    return LoginAttempt(url=url, redirect_uri=settings.auth.redirect_uri, state=state, verifier=verifier)


def oauth_client(settings: Settings) -> OAuthClient:
    """Return the OAuth client of the settings. Raises ConfigError when there is none."""
    if not settings.auth.client_id:
        raise ConfigError(
            "A login needs auth.client_id, and it is not set.",
            hint="Set SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET, from the app in SalesLoft's settings.",
        )
    secret = settings.auth.client_secret
    return OAuthClient(id=settings.auth.client_id, secret=secret.reveal() if secret is not None else None)


async def exchange_code(
    settings: Settings,
    attempt: LoginAttempt,
    code: str,
    *,
    post_form: Callable[[oauth.Form], Awaitable[TokenEndpointReply]],
    now: Callable[[], float],
) -> Record:
    """Exchange the code for a token. Raises TokenUnavailable or UpstreamFault."""
    client = oauth_client(settings)
    form = oauth.code_grant(client, code=code, redirect_uri=attempt.redirect_uri, verifier=attempt.verifier)
    try:
        token = parse_token_reply(await post_form(form), now=now())
    except LoginRequired as error:
        raise LoginError(
            "SalesLoft did not accept the code: it was used before, is too old, or belongs to another redirect URI.",
            hint="Run slproxy login again; SALESLOFT_REDIRECT_URI must equal one registered with the app.",
        ) from error
    return Record(
        client_id=client.id,
        accounts_url=settings.upstream.accounts_url,
        profile=settings.profile,
        api_url=settings.upstream.api_url,
        token=token,
        # The issuer's time, which goes on when our clock is set back; whatever that says, it counts up from 1.
        login=max(int(token.obtained_at * 1000), 1),
    )
