"""``slproxy login``: the authorization-code login, in the browser or by a pasted URL."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from slproxy.app import App
from slproxy.auth import (
    CallbackServer,
    Identity,
    LoginAttempt,
    begin_login,
    callback_server,
    exchange_code,
    parse_identity,
    parse_pasted,
    save_login,
)
from slproxy.cli.browser import can_open, open_browser
from slproxy.cli.logins import closing, revoke
from slproxy.cli.output import DONE, print_note, print_result
from slproxy.cli.process import in_daemon_thread
from slproxy.cli.terminal import Keyboard
from slproxy.config import Settings
from slproxy.errors import (
    ConfigError,
    DamagedError,
    OtherLoginError,
    PasteError,
    SlproxyError,
    StoreError,
)
from slproxy.store import MemoryStore, Record, TokenStore, token_store

PASTE = "paste the URL you were redirected to (an error page is fine):"
# How long a login waits for a browser in the terminal to exit, in seconds.
BROWSER_EXIT_TIMEOUT = 1.0
# How long a login may look up the user, in seconds: the new token is stored only afterwards.
IDENTITY_TIMEOUT = 15.0


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy login``."""
    if settings.auth.grant == "auto" and settings.auth.api_key is not None:
        origin = settings.origins.get("auth.api_key", "its setting")
        print_note(f"Note: an API key is set ({origin}); it goes before this login until it is removed.")
    elif settings.auth.grant not in ("auto", "authorization_code"):
        print_note(f"Note: auth.grant = {settings.auth.grant}; this login is not used until that is changed.")
    # Beside an API key, the user to look up is that of the login, not of the key.
    settings = replace(
        settings,
        auth=replace(settings.auth, grant="authorization_code"),
        retry=replace(settings.retry, deadline=min(settings.retry.deadline, IDENTITY_TIMEOUT)),
    )
    if settings.store.kind == "memory":
        raise ConfigError("With store.kind = memory a login would be lost at once.", hint="Use file, keyring or redis.")
    # The new login stays in memory until its user is known: only then may it replace the stored one.
    async with closing(token_store(settings)) as store, App(settings, store=(memory := MemoryStore())) as app:
        with Keyboard() as keyboard:
            new = _NewLogin(app=app, memory=memory, store=store, keyboard=keyboard, replace_other=args.replace)
            # Before a person is sent to the browser: a token that cannot be stored has to be revoked.
            await new.check_store()
            await store.try_out()
            attempt = begin_login(settings)
            print_result(await (_log_in_by_paste if args.no_browser else _log_in_by_browser)(new, attempt))
    return DONE


async def _log_in_by_paste(new: _NewLogin, attempt: LoginAttempt) -> str:
    print_note(f"Open this URL in any browser and allow access:\n\n  {attempt.url}\n\nThen {PASTE}")
    return await new.finish(attempt, await _pasted_code(attempt, new.keyboard, again=new.keyboard.is_terminal))


async def _log_in_by_browser(new: _NewLogin, attempt: LoginAttempt) -> str:
    async with callback_server(attempt) as server:
        browser: asyncio.Task[None] | None = None
        if can_open(os.environ, sys.platform):
            print_note(f"Opening the browser to log in to SalesLoft. If it does not open, go to:\n\n  {attempt.url}\n")
            print_note(f"If your browser is on another machine, {PASTE}")
            browser = asyncio.create_task(_watch_browser(open_browser(server.start_url, os.environ)))
        else:
            print_note(f"No browser can be opened here. Open this URL in any and allow access:\n\n  {attempt.url}\n")
            print_note(f"Then {PASTE}")
        try:
            code = await _first_code(attempt, server, new.keyboard)
            message = await new.finish(attempt, code)
        except SlproxyError as error:
            server.show("Not logged in", f"{error.detail} {error.hint}")
            raise
        server.show("Logged in", f"{message.rstrip('.')}. You can close this tab and go back to the terminal.")
        if browser is not None:
            await asyncio.wait({browser}, timeout=BROWSER_EXIT_TIMEOUT)
    return message


async def _watch_browser(is_open: Callable[[], bool]) -> None:
    # Some browsers run until they are closed, and this call lasts as long as they do.
    if not await in_daemon_thread(is_open):
        print_note(f"The browser could not be opened. Open the URL above in any browser and allow access. Then {PASTE}")


async def _first_code(attempt: LoginAttempt, server: CallbackServer, keyboard: Keyboard) -> str:
    """Return the code that the browser brings or a person pastes."""
    called = asyncio.create_task(server.code())
    pasted = asyncio.create_task(_pasted_code(attempt, keyboard, again=True))
    try:
        await asyncio.wait({called, pasted}, return_when=asyncio.FIRST_COMPLETED)
        if not called.done():
            try:
                return await pasted
            except PasteError:
                print_note(
                    f"Standard input has ended, so nothing can be pasted. Waiting for the browser at "
                    f"{attempt.redirect_uri}. Is it on another machine? Run at a terminal: slproxy login --no-browser"
                )
        return await called
    finally:
        for task in (called, pasted):
            task.cancel()
        await asyncio.gather(called, pasted, return_exceptions=True)


async def _pasted_code(attempt: LoginAttempt, keyboard: Keyboard, *, again: bool) -> str:
    """Read the pasted URL and return its code; if it is something else, ask ``again`` while there is input."""
    before = ""
    while True:
        pasted = await keyboard.paste()
        try:
            return parse_pasted(attempt, pasted, before=before)
        except PasteError as error:
            if not pasted or not again:
                raise
            print_note(f"{error.detail}\nPaste it again:")
            before += pasted


@dataclass(kw_only=True)
class _NewLogin:
    """A new login, from the code to the store."""

    app: App
    memory: MemoryStore
    store: TokenStore
    keyboard: Keyboard
    replace_other: bool

    async def check_store(self) -> None:
        """Check before the browser opens that a login can be stored. Raises StoreError."""
        try:
            await self.store.read()
        except DamagedError as error:
            print_note(f"{error.detail} {error.hint}")
        except StoreError:
            if not self.replace_other:
                raise

    async def finish(self, attempt: LoginAttempt, code: str) -> str:
        """Turn a code into a stored token, and return what to print. Raises SlproxyError; then the token is revoked."""
        record = await exchange_code(
            self.app.settings, attempt, code, post_form=self.app.upstream.post_form, now=time.time
        )
        try:
            await self.memory.write(record)
            await self.app.credentials.load()
            who: Identity | None = None
            try:
                who = parse_identity(*await self.app.ask("/v2/me.json"))
                message = f"Authenticated as: {who}"
            except SlproxyError as error:
                message = f"Logged in. The user could not be looked up: {error.detail}"
            record = await self.memory.read() or record
            replaced = await self._store(record, who)
        except BaseException:
            if not await self._is_stored(record):
                # Nobody has it any more, so it must not stay valid.
                await revoke(self.app, record)
            raise
        whose = f" of user {who.user_id} of team {who.team_id}" if who is not None else ""
        self.app.observer.login_changed("login", f"A login{whose} was stored in {self.store.description}.")
        print_note(f"  Stored in {self.store.description}, {self.store.encryption}.")
        if replaced is not None:
            await self._revoke(replaced)
        return message

    async def _revoke(self, replaced: Record) -> None:
        """Revoke the login that was replaced, and say whether that worked."""
        whose = f"the replaced login of user {replaced.user_id} of team {replaced.team_id}"
        if await revoke(self.app, replaced):
            print_note(f"  Revoked {whose}.")
        else:
            print_note(f"  Not revoked: {whose}. SalesLoft could not be reached, or refused.")
            print_note("  Revoke it in SalesLoft's settings, or wait for its access token to expire.")

    async def _is_stored(self, record: Record) -> bool:
        try:
            stored = await self.store.read()
        except StoreError:
            return False
        return stored is not None and stored.token == record.token

    async def _store(self, record: Record, who: Identity | None) -> Record | None:
        """Store the login, and return the one that it replaced, if that is to be revoked."""
        try:
            return await save_login(self.store, record, who, replace_other=self.replace_other)
        except OtherLoginError as error:
            if not self.keyboard.is_terminal:
                raise
            print_note(f"{error.detail}\nReplace it? [y/N]")
            if (await self.keyboard.line()).strip().lower() not in ("y", "yes"):
                raise
            return await save_login(self.store, record, who, replace_other=True)
