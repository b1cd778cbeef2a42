"""A person grants access in the browser, and a code comes back: RFC 8252 on a loopback redirect, with PKCE S256.

1. ``state`` ties the answer to this very attempt; a callback without it is refused, and nothing is stored.
2. The verifier never leaves this process but to the token endpoint, so that a code caught on the way is worth nothing.
3. The earlier login stays as it is until a new token is there.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import html
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from slproxy import oauth
from slproxy.errors import (
    ConfigError,
    DamagedError,
    ForeignCallbackError,
    LoginError,
    LoginRequired,
    OtherLoginError,
    PasteError,
    SealedError,
    SlproxyError,
    StoreError,
)
from slproxy.oauth import Client
from slproxy.settings import Settings
from slproxy.store import Record, TokenStore

# How long a person may take in the browser, in seconds: SalesLoft's codes live as long.
PATIENCE = 600.0

# RFC 6749 appendix A.11: any visible characters, though `=` only pads; a shorter one could be guessed.
_BARE_CODE = re.compile(r"[!-<>-~]{8,}={0,2}")

# The page takes the code out of the address bar and the history: neither is a place for it, used or not.
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<title>slproxy</title><style>
body{{font:17px/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:100vh;margin:0}}
body{{background:#f4f5f7;color:#1d2433}}
main{{background:#fff;padding:2.5rem 3rem;border-radius:12px;box-shadow:0 1px 4px #0002;max-width:28rem}}
h1{{font-size:1.3rem;margin:0 0 .5rem}}p{{margin:0;color:#566}}
</style></head><body><main><h1>{title}</h1><p>{text}</p></main>
<script>history.replaceState(null, "", location.pathname)</script></body></html>
"""


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
        challenge=oauth.challenge_of(verifier),
    )
    return Attempt(url=url, redirect_uri=settings.auth.redirect_uri, state=state, verifier=verifier)


def client_of(settings: Settings) -> Client:
    """Return the OAuth client of the settings. Raises ConfigError when there is none."""
    if not settings.auth.client_id:
        raise ConfigError(
            "A login needs auth.client_id, and it is not set.",
            hint="Set SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET, from the app in SalesLoft's settings.",
        )
    secret = settings.auth.client_secret
    return Client(id=settings.auth.client_id, secret=secret.reveal() if secret is not None else None)


def code_in(attempt: Attempt, query: str) -> str:
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


def code_in_paste(attempt: Attempt, pasted: str) -> str:
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
    return code_in(attempt, query)


class Callback:
    """What a browser brings to the redirect URI: the code, and then the page that it is shown."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._page: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def code(self) -> str:
        """Wait for the code. Raises LoginError when the person said no, or after ``PATIENCE``."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._code
        except TimeoutError:
            raise LoginError(
                f"No answer came from the browser in {PATIENCE / 60:.0f} minutes.",
                hint="Run slproxy login again; where the browser is elsewhere: slproxy login --no-browser",
            ) from None

    def show(self, title: str, text: str) -> None:
        """Say how the login ended, to the browser that waits for it."""
        if not self._page.done():
            self._page.set_result((title, text))

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the browser."""
        if request.method != "GET" or request.rel_url.raw_path != (urlsplit(self._attempt.redirect_uri).path or "/"):
            return _page(404, "Nothing here", "This address only waits for SalesLoft's answer to a login.")
        if self._code.done():
            return _page(400, "Already used", "This login has had its answer. You can close this tab.")
        try:
            code = code_in(self._attempt, request.rel_url.raw_query_string)
        except LoginError as error:
            if not isinstance(error, ForeignCallbackError):
                self._code.set_exception(error)
            return _page(400, "Not logged in", f"{error.detail} {error.hint}")
        self._code.set_result(code)
        title, text = await asyncio.shield(self._page)
        return _page(200, title, text)


@asynccontextmanager
async def callback(attempt: Attempt) -> AsyncIterator[Callback]:
    """Listen on the redirect URI's host and port while a login is under way. Raises ConfigError when that fails."""
    redirect = urlsplit(attempt.redirect_uri)
    if redirect.scheme != "http":
        raise ConfigError(
            f"The redirect URI {attempt.redirect_uri} is not on this machine.",
            hint="Log in with: slproxy login --no-browser",
        )
    port = redirect.port or 80
    waiting = Callback(attempt)
    runner = web.ServerRunner(web.Server(waiting.serve, access_log=None), handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listening = 0
        # A browser resolves localhost to either; a machine without IPv6 has only the first.
        for host in ("127.0.0.1", "::1") if redirect.hostname == "localhost" else (redirect.hostname,):
            try:
                await web.TCPSite(runner, host, port).start()
                listening += 1
            except OSError as error:
                if error.errno == errno.EADDRINUSE or (not listening and host != "127.0.0.1"):
                    raise ConfigError(
                        f"Cannot wait for the browser on {host}:{port}: {os.strerror(error.errno or 0)}.",
                        hint="Stop the program that uses the port, register another redirect URI with the app and set "
                        "SALESLOFT_REDIRECT_URI to it, or run: slproxy login --no-browser",
                    ) from error
        yield waiting
    finally:
        waiting.show("Not logged in", "The login was given up in the terminal.")
        await runner.cleanup()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a token belongs to, as ``/v2/me`` tells."""

    user_id: int | None
    team_id: int | None
    name: str
    email: str

    def __str__(self) -> str:
        return f"{self.name} ({self.email})"


def identity_in(status: int, body: bytes) -> Identity:
    """Return who it is by the API's answer to ``/v2/me.json``. Raises SlproxyError when the API did not say."""
    try:
        me = json.loads(body)["data"]
        team = me.get("team") or {}
        user_id, team_id = (each if type(each) is int else None for each in (me.get("id"), team.get("id")))
        return Identity(user_id=user_id, team_id=team_id, name=me["name"], email=me["email"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SlproxyError(
            f"SalesLoft answered {status} to the question who this token belongs to.",
            hint="Check SALESLOFT_API_KEY, or log in again: slproxy login",
        ) from None


async def exchange(
    settings: Settings,
    attempt: Attempt,
    code: str,
    *,
    ask: Callable[[oauth.Form], Awaitable[oauth.Answer]],
    now: Callable[[], float],
) -> Record:
    """Exchange the code for a token. Raises TokenUnavailable or UpstreamFault."""
    client = client_of(settings)
    form = oauth.code_grant(client, code=code, redirect_uri=attempt.redirect_uri, verifier=attempt.verifier)
    try:
        token = oauth.token_of(await ask(form), now=now())
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
        except SealedError:
            if not replace_other:
                raise
            await store.set_aside()
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


def _page(status: int, title: str, text: str) -> web.Response:
    return web.Response(
        status=status,
        text=_PAGE.format(title=html.escape(title), text=html.escape(text)),
        content_type="text/html",
        headers={"Cache-Control": "no-store", "Connection": "close"},
    )
