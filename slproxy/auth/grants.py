"""The ways in: which grant is used, and how the token endpoint is asked for the next token.

A token request may be repeated whatever came back: at worst the old refresh token is dead, and the answer to the second
try says so. Who asks holds the store's lock meanwhile, so all tries together are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from slproxy import retry
from slproxy.auth import oauth
from slproxy.auth.oauth import Client, Form, TokenEndpointReply
from slproxy.config import AuthSettings, Grant
from slproxy.errors import CredentialsRefused, LoginRequired, TokenEndpointDown, UpstreamFault
from slproxy.store import Token

# A renewal gives up in time for whoever waits for the store's lock: no try begins that could, with the ten seconds that
# `upstream.forms.ACCOUNTS_TIMEOUT` gives it, end after `store.LOCK_TIMEOUT`.
RENEWAL_ATTEMPTS, LAST_TRY_BEGINS = 3, 18.0
# The longest that the token endpoint is left alone because it asks for it, in seconds.
LONGEST_PAUSE = 900.0


@dataclass(frozen=True, slots=True)
class GrantSelection:
    """Which way in is used, and why: ``None`` where nothing is set."""

    grant: Grant | None
    why: str

    def is_backed_by(self, auth: AuthSettings) -> bool:
        """Tell whether what the grant needs is set; a login is looked for where it is stored."""
        match self.grant:
            case "api_key":
                return auth.api_key is not None
            case "client_credentials":
                return bool(auth.client_id) and auth.client_secret is not None
        return self.grant is not None


def select_grant(auth: AuthSettings, *, login_stored: bool, redirect_uri_is_set: bool) -> GrantSelection:
    """Return the grant to use; ``auto`` tries them in the order of docs/contract.md, Settings."""
    if auth.grant != "auto":
        return GrantSelection(auth.grant, "auth.grant says so")
    if auth.api_key is not None:
        return GrantSelection("api_key", "an API key is set")
    if login_stored:
        return GrantSelection("authorization_code", "a login is stored")
    if auth.client_id and auth.client_secret is not None and not redirect_uri_is_set:
        return GrantSelection("client_credentials", "only a client id and secret are set, and no login is stored")
    if auth.client_id:
        return GrantSelection("authorization_code", "a client id is set, but no login is stored yet")
    return GrantSelection(None, "neither an API key, nor a login, nor a client id is set")


class TokenEndpoint:
    """Asks the token endpoint, again where that may help. Times are in seconds, ``now`` is Unix time."""

    def __init__(
        self,
        auth: AuthSettings,
        *,
        post_form: Callable[[Form], Awaitable[TokenEndpointReply]],
        now: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        secret = auth.client_secret.reveal() if auth.client_secret is not None else None
        self._client = Client(id=auth.client_id or "", secret=secret)
        self._scope = auth.scope or ""
        self._post_form = post_form
        self._now, self._monotonic, self._sleep, self._dice = now, monotonic, sleep, jitter

    async def refresh(self, token: Token) -> Token:
        """Return the token that follows one.

        Raises:
            LoginRequired: the refresh token is dead, or there is none.
            TokenUnavailable: any other reason; trying again later may help.
        """
        if token.refresh_token is None:
            raise LoginRequired(
                "The login has expired, and it came without a refresh token.", hint="Run: slproxy login"
            )
        return await self._token(oauth.refresh_grant(self._client, refresh_token=token.refresh_token), renews=token)

    async def client_credentials(self) -> Token:
        """Return a token of the application itself. Raises TokenUnavailable; no refusal is final."""
        try:
            return await self._token(oauth.client_credentials_grant(self._client, scope=self._scope), renews=None)
        except LoginRequired as error:
            # Nothing was revoked, so nothing is final: it is worth another try.
            raise CredentialsRefused(
                "SalesLoft refused the credentials: invalid_grant.",
                hint="Allow client credentials for the app in SalesLoft's settings, or run: slproxy login",
            ) from error

    async def _token(self, form: Form, *, renews: Token | None) -> Token:
        started = self._monotonic()

        def next_wait(outcome: retry.Outcome, attempt: int) -> float | None:
            wait = retry.wait_before_next(
                outcome,
                method="GET",  # as good as idempotent: see the head of this file
                attempt=attempt,
                now=self._now(),
                jitter=self._dice(),
                max_wait=LAST_TRY_BEGINS,
            )
            late = wait is None or self._monotonic() - started + wait > LAST_TRY_BEGINS
            return None if late or attempt >= RENEWAL_ATTEMPTS else wait

        async def attempt() -> _TokenReply:
            return _TokenReply(await self._post_form(form))

        try:
            reply: _TokenReply = await retry.retried(attempt, next_wait, sleep=self._sleep)
        except UpstreamFault as error:
            raise TokenEndpointDown(
                f"The token endpoint cannot be reached: {error.detail}",
                hint="Check the network and upstream.accounts_url.",
            ) from error
        try:
            return oauth.parse_token_reply(reply.answer, now=self._now(), renews=renews)
        except TokenEndpointDown as error:
            # A rate limit of its own (429), or a Retry-After that is longer than a renewal may take.
            asked = retry.wait_before_next(
                reply.outcome, method="GET", attempt=1, now=self._now(), jitter=self._dice(), max_wait=math.inf
            )
            error.again_in = min(asked or 0.0, LONGEST_PAUSE)
            raise


class _TokenReply:
    """An answer of the token endpoint, as far as the retries go."""

    def __init__(self, answer: TokenEndpointReply) -> None:
        self.answer = answer
        # Any 5xx is a token endpoint that is unwell, and worth another try: RFC 6749 §5.2 knows only 400 and 401.
        status = 503 if answer.status >= 500 else answer.status
        self.outcome = retry.Outcome(
            status=status, reached=True, retry_after=answer.headers.get("retry-after"), date=answer.headers.get("date")
        )
