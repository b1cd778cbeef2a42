"""Token endpoint: where the next token comes from, with retries.

A token request may be repeated whatever came back: at worst the old refresh token is dead, and the answer to the second
try says so. The caller holds the store's lock meanwhile, so all tries together are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from slproxy import retry
from slproxy.auth import oauth
from slproxy.auth.oauth import Form, OAuthClient
from slproxy.auth.token_reply import TokenEndpointReply, parse_token_reply
from slproxy.config import AuthSettings
from slproxy.errors import CredentialsRefused, LoginRequired, TokenEndpointDown, UpstreamFault
from slproxy.store import Token

# A renewal gives up in time for whoever waits for the store's lock: no try begins that could, with the ten seconds that
# `upstream.forms.ACCOUNTS_TIMEOUT` gives it, end after `store.LOCK_TIMEOUT`.
RENEWAL_ATTEMPTS, LAST_TRY_BEGINS = 4, 18.0
# The longest that the token endpoint is left alone because it asks for it, in seconds.
LONGEST_PAUSE = 900.0


class TokenEndpoint:
    """Requests tokens. Times are in seconds, ``now`` is Unix time, ``jitter`` is uniform in [0, 1)."""

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
        self._client = OAuthClient(id=auth.client_id or "", secret=secret)
        self._scope = auth.scope or ""
        self._post_form = post_form
        self._now, self._monotonic, self._sleep, self._jitter = now, monotonic, sleep, jitter

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
        return await self._request(oauth.refresh_grant(self._client, refresh_token=token.refresh_token), renews=token)

    async def client_credentials(self) -> Token:
        """Return a token of the application itself. Raises TokenUnavailable; no refusal is final."""
        try:
            return await self._request(oauth.client_credentials_grant(self._client, scope=self._scope), renews=None)
        except LoginRequired as error:
            # Nothing was revoked, so nothing is final: trying again may help.
            raise CredentialsRefused(
                "SalesLoft refused the credentials: invalid_grant.",
                hint="Allow client credentials for the app in SalesLoft's settings, or run: slproxy login",
            ) from error

    async def _request(self, form: Form, *, renews: Token | None) -> Token:
        started = self._monotonic()

        def next_wait(outcome: retry.Outcome, attempt: int) -> float | None:
            wait = retry.wait_before_next(
                outcome,
                method="GET",  # as good as idempotent: see the head of this file
                attempt=attempt,
                now=self._now(),
                jitter=self._jitter(),
                max_wait=LAST_TRY_BEGINS,
            )
            late = wait is None or self._monotonic() - started + wait > LAST_TRY_BEGINS
            return None if late or attempt >= RENEWAL_ATTEMPTS else wait

        async def attempt() -> _Attempt:
            return _Attempt(await self._post_form(form))

        try:
            last: _Attempt = await retry.retried(attempt, next_wait, sleep=self._sleep)
        except UpstreamFault as error:
            raise TokenEndpointDown(
                f"The token endpoint cannot be reached: {error.detail}",
                hint=error.hint.replace("upstream.api_url", "upstream.accounts_url"),
            ) from error
        try:
            return parse_token_reply(last.reply, now=self._now(), renews=renews)
        except TokenEndpointDown as error:
            # A rate limit of its own (429), or a Retry-After that is longer than a renewal may take.
            asked = retry.wait_before_next(
                last.outcome, method="GET", attempt=1, now=self._now(), jitter=self._jitter(), max_wait=math.inf
            )
            error.retry_in = min(asked or 0.0, LONGEST_PAUSE)
            raise


class _Attempt:
    """A reply of the token endpoint, with its outcome as far as the retries go."""

    def __init__(self, reply: TokenEndpointReply) -> None:
        self.reply = reply
        # Any 5xx is a token endpoint that is unwell, and worth another try: RFC 6749 §5.2 knows only 400 and 401.
        status = 503 if reply.status >= 500 else reply.status
        self.outcome = retry.Outcome(
            status=status, maybe_sent=True, retry_after=reply.headers.get("retry-after"), date=reply.headers.get("date")
        )
