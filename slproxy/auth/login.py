"""A person grants access in the browser, and a code comes back: RFC 8252 on a loopback redirect, with PKCE S256.

1. ``state`` ties the answer to this very attempt; a callback without it is refused, and nothing is stored.
2. The verifier never leaves this process but to the token endpoint, so that a code caught on the way is worth nothing.
3. The earlier login stays as it is until a new token is there.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs

from slproxy.auth import oauth
from slproxy.auth.identity import Identity
from slproxy.auth.oauth import OAuthClient
from slproxy.auth.token_reply import TokenEndpointReply, parse_token_reply
from slproxy.config import Settings
from slproxy.errors import (
    ConfigError,
    DamagedError,
    ForeignCallbackError,
    LoginError,
    LoginRequired,
    OtherLoginError,
    PasteError,
    StoreError,
    UndecryptableError,
)
from slproxy.store import Record, TokenStore

# RFC 6749 appendix A.11: any visible characters, though `=` only pads; a shorter one could be guessed.
_BARE_CODE = re.compile(r"[!-<>-~]{8,}={0,2}")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One login under way. ``state`` and ``verifier`` are its secrets."""

    url: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)


def begin(settings: Settings) -> Attempt:
    """Return a fresh attempt. Raises ConfigError when no client id is set."""
    client = client_of(settings)
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
    return Attempt(url=url, redirect_uri=settings.auth.redirect_uri, state=state, verifier=verifier)


def client_of(settings: Settings) -> OAuthClient:
    """Return the OAuth client of the settings. Raises ConfigError when there is none."""
    if not settings.auth.client_id:
        raise ConfigError(
            "A login needs auth.client_id, and it is not set.",
            hint="Set SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET, from the app in SalesLoft's settings.",
        )
    secret = settings.auth.client_secret
    return OAuthClient(id=settings.auth.client_id, secret=secret.reveal() if secret is not None else None)


def parse_callback(attempt: Attempt, query: str) -> str:
    """Return the code that a callback's query brings.

    Raises:
        LoginError: the state is missing or another attempt's, the person said no, or there is no code.
    """
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    if not hmac.compare_digest(fields.get("state", "").encode(), attempt.state.encode()):
        raise ForeignCallbackError(
            "The callback does not belong to this login: its state is missing or wrong. Nothing was stored.",
            hint="Start again with: slproxy login",
        )
    if "error" in fields:
        denied = fields["error"] == "access_denied"
        raise LoginError(
            "Access was denied in the browser." if denied else "SalesLoft answered the login with an error.",
            hint="Run slproxy login again, and choose Allow."
            if denied
            else "Check that the redirect URI and the scope are those of the app in SalesLoft's settings.",
        )
    if not fields.get("code"):
        raise LoginError("The callback brought no code.", hint="Start again with: slproxy login")
    return fields["code"]


def parse_pasted(attempt: Attempt, pasted: str) -> str:
    """Return the code in what a person pasted: the URL that the browser ended on, or the bare code.

    A bare code carries no state; PKCE alone then ties it to this attempt. Raises LoginError, and PasteError for what
    is neither.
    """
    pasted = pasted.strip()
    query = (pasted.partition("?")[2] or pasted).partition("#")[0]
    if not {"code", "error"} & parse_qs(query).keys():
        if _BARE_CODE.fullmatch(pasted) and "://" not in pasted:
            return pasted
        begins = attempt.redirect_uri + ("&" if "?" in attempt.redirect_uri else "?")
        raise PasteError(
            f"That is not the address; it starts with {begins}code=" if pasted else "Nothing was pasted.",
            hint="Run slproxy login --no-browser again.",
        )
    return parse_callback(attempt, query)


async def exchange(
    settings: Settings,
    attempt: Attempt,
    code: str,
    *,
    post_form: Callable[[oauth.Form], Awaitable[TokenEndpointReply]],
    now: Callable[[], float],
) -> Record:
    """Exchange the code for a token. Raises TokenUnavailable or UpstreamFault."""
    client = client_of(settings)
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
        token=token,
        login=int(now() * 1000),
    )


async def keep(store: TokenStore, record: Record, who: Identity | None, *, replace_other: bool) -> None:
    """Put a new login into the store, in the place of the one before.

    What does not open, or is damaged, is set aside, never overwritten.

    Raises:
        OtherLoginError: the login before is somebody else's, as far as is known, and is not to be replaced.
        StoreError: the place is another profile's, or cannot be written.
    """
    async with store.lock():
        try:
            before = await store.read()
        except DamagedError:
            before = None
        except UndecryptableError:
            if not replace_other:
                raise
            await store.quarantine()
            before = None
        if before is not None:
            _check_that_it_may_go(before, record, who, store, replace_other=replace_other)
            # Later than any before it, whatever the clocks of two machines say.
            record = replace(record, login=max(record.login, before.login + 1))
        if who is not None:
            record = replace(record, user_id=who.user_id, team_id=who.team_id)
        writing = asyncio.ensure_future(store.write(record))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # A write that has begun ends, whoever gives up: the lock is held until then.
            await asyncio.wait({writing})
            raise


def _check_that_it_may_go(
    before: Record, record: Record, who: Identity | None, store: TokenStore, *, replace_other: bool
) -> None:
    if before.profile != record.profile:
        raise StoreError(
            f"The token of the profile {before.profile} is kept in the same place: {store.description}.",
            hint="Give each profile a store.path of its own, or none; then log in again.",
        )
    if replace_other:
        return
    if not before.belongs_to(*record.owner):
        raise OtherLoginError(
            f"The profile {before.profile} holds the login of another app, {before.client_id}. Nothing was replaced.",
            hint="To replace it: slproxy login --replace. To keep both: slproxy login --profile NAME",
        )
    if before.user_id is None:
        return
    if who is None:
        raise OtherLoginError(
            "The profile has a login already, and who this one is could not be asked. Nothing was replaced.",
            hint="Run slproxy login again when the API answers, or: slproxy login --replace",
        )
    if (before.user_id, before.team_id) != (who.user_id, who.team_id):
        raise OtherLoginError(
            f"The profile {before.profile} is logged in as somebody else (user {before.user_id} of team"
            f" {before.team_id}); this is {who}, user {who.user_id} of team {who.team_id}. Nothing was replaced.",
            hint="To replace it: slproxy login --replace. To keep both: slproxy login --profile NAME",
        )
