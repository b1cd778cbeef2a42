"""The commands that a person types beside a proxy: what becomes of a login, and what there is to know."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from slproxy import config, login, oauth
from slproxy.app import App, seal_of, token_store
from slproxy.errors import (
    ConfigError,
    DamagedError,
    LoginRequired,
    OtherLoginError,
    PasteError,
    Problem,
    SlproxyError,
    StoreError,
)
from slproxy.settings import Settings, effective
from slproxy.status import told_token
from slproxy.store import MemoryStore, Record, TokenStore

STDIN = 0
DONE, FAILED, LOGIN_NEEDED = 0, 1, 3

T = TypeVar("T")

# How long a login waits for a browser in the terminal to be left, in seconds.
BROWSER_LEAVES = 1.0
# How often a person may paste.
PASTES = 3
# How long a login asks who it is, in seconds: the new token waits for the answer.
WHO_PATIENCE = 15.0


def say(text: str) -> None:
    """Tell a person something that is not the command's result."""
    print(text, file=sys.stderr, flush=True)


def complain(error: SlproxyError) -> None:
    """Tell a person what went wrong, and what to do."""
    say(f"slproxy: {error.detail}" + (f"\n  {error.hint}" if error.hint else ""))


@asynccontextmanager
async def _opened(store: TokenStore) -> AsyncIterator[TokenStore]:
    try:
        yield store
    finally:
        await store.close()


# Logging in.


async def log_in(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy login``."""
    # Whoever logs in beside an API key wants to know who the login is, not the key.
    settings = replace(
        settings,
        auth=replace(settings.auth, grant="authorization_code"),
        retry=replace(settings.retry, deadline=min(settings.retry.deadline, WHO_PATIENCE)),
    )
    if settings.store.kind == "memory":
        raise ConfigError(
            "A login would be forgotten at once: store.kind = memory.", hint="Use file, keyring or redis."
        )
    # The new login is tried in memory: until it is known whose it is, nothing takes the place of the one before.
    async with _opened(token_store(settings)) as store, App(settings, store=(memory := MemoryStore())) as app:
        new = _NewLogin(app=app, memory=memory, store=store, replace_other=args.replace)
        await new.look_at_the_place()
        attempt = login.begin(settings)
        if args.no_browser:
            say(f"Open this address in any browser, and allow access:\n\n  {attempt.url}\n")
            say("Then paste the address that the browser ends on, even if its page does not load:")
            print(await new.finish(attempt, await _pasted_code(attempt)))
            return DONE
        async with login.callback(attempt) as callback:
            say(f"Opening the browser to log in to SalesLoft. If it does not open, go to:\n\n  {attempt.url}\n")
            # Some browsers run in the terminal, and this call lasts as long as they do.
            browser = asyncio.ensure_future(in_a_daemon(lambda: webbrowser.open(attempt.url)))
            code = await callback.code()
            try:
                told = await new.finish(attempt, code)
            except SlproxyError as error:
                callback.show("Not logged in", f"{error.detail} {error.hint}")
                raise
            callback.show("Logged in", f"{told} You can close this tab and go back to the terminal.")
            await asyncio.wait({browser}, timeout=BROWSER_LEAVES)
        print(told)
    return DONE


@dataclass(kw_only=True)
class _NewLogin:
    """A login on its way from a code into the store."""

    app: App
    memory: MemoryStore
    store: TokenStore
    replace_other: bool

    async def look_at_the_place(self) -> None:
        """Find out before the browser opens whether a login can be kept. Raises StoreError."""
        try:
            await self.store.read()
        except DamagedError as error:
            say(f"{error.detail} {error.hint}")
        except StoreError:
            if not self.replace_other:
                raise

    async def finish(self, attempt: login.Attempt, code: str) -> str:
        """Turn a code into a stored token, and return who it is. Raises SlproxyError; then the token is revoked."""
        record = await login.exchange(self.app.settings, attempt, code, ask=self.app.upstream.ask, now=time.time)
        try:
            await self.memory.write(record)
            await self.app.credentials.load()
            who: login.Identity | None = None
            try:
                who = login.identity_in(*await self.app.ask("/v2/me.json"))
                told = f"Authenticated as: {who}"
            except SlproxyError as error:
                told = f"Logged in. Who it is could not be asked: {error.detail}"
            record = await self.memory.read() or record
            await self._keep(record, who)
        except BaseException:
            if not await self._is_kept(record):
                # Nobody holds it any more: it shall not live on.
                await _revoked(self.app, record)
            raise
        return told

    async def _is_kept(self, record: Record) -> bool:
        try:
            kept = await self.store.read()
        except StoreError:
            return False
        return kept is not None and kept.token == record.token

    async def _keep(self, record: Record, who: login.Identity | None) -> None:
        try:
            await login.keep(self.store, record, who, replace_other=self.replace_other)
        except OtherLoginError as error:
            if not sys.stdin.isatty():
                raise
            say(f"{error.detail}\nReplace it? [y/N]")
            if (await in_a_daemon(_line)).strip().lower() not in ("y", "yes"):
                raise
            await login.keep(self.store, record, who, replace_other=True)


async def _pasted_code(attempt: login.Attempt) -> str:
    """Read the pasted address and return its code; where a person may have pasted another thing, ask again."""
    for _ in range(PASTES - 1):
        line = await in_a_daemon(_line)
        try:
            return login.code_in_paste(attempt, line)
        except PasteError as error:
            # Nobody is asked again whose input has ended, or is no terminal.
            if not line or not sys.stdin.isatty():
                raise
            say(f"{error.detail}\nPaste it again:")
    return login.code_in_paste(attempt, await in_a_daemon(_line))


def _line() -> str:
    """Read a line from standard input, past Python's buffer: its lock would be held when Ctrl-C ends the program."""
    line = b""
    while not line.endswith(b"\n") and (character := os.read(STDIN, 1)):
        line += character
    return line.decode("utf-8", "replace")


async def in_a_daemon(work: Callable[[], T]) -> T:
    """Do blocking work that must not hold up the end of the program, as a thread of asyncio's executor would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Future[T]) -> None:
        if not done.done():
            try:
                done.set_result(outcome.result())
            except Exception as error:  # noqa: BLE001  # whatever it was, who waits gets it
                done.set_exception(error)

    def thread() -> None:
        outcome: Future[T] = Future()
        try:
            outcome.set_result(work())
        except Exception as error:  # noqa: BLE001  # as above
            outcome.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=thread, daemon=True).start()
    return await done


# Logging out.


async def log_out(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy logout``."""
    if not args.all:
        print(await _logged_out(settings))
        return DONE
    worst = DONE
    for name in sorted({settings.profile, *_profiles(args)}):
        try:
            print(f"{name}: {await _logged_out(_of_profile(name, args))}")
        except SlproxyError as error:
            print(f"{name}: not logged out.")
            complain(error)
            worst = max(worst, error.exit_code)
    return worst


async def _logged_out(settings: Settings) -> str:
    """Revoke and forget a login, and return what became of it. Raises StoreError."""
    # Under the lock: a proxy that renews meanwhile would leave a newer token alive.
    async with App(settings) as app, app.store.lock():
        record = await app.store.read()
        if record is None or not _is_of(record, settings):
            return "There is no login of this client to forget."
        revoked = await _revoked(app, record)
        # Where revoking took so long that the lock was lost, somebody may have renewed meanwhile.
        newest = await app.store.read()
        if newest is not None and newest.token != record.token and _is_of(newest, settings):
            revoked = await _revoked(app, newest) and revoked
        await app.store.forget()
    if revoked:
        return "Logged out: the token was revoked at SalesLoft and forgotten here."
    say("  Revoke it in SalesLoft's settings, or wait for the access token to expire.")
    return "Forgotten here, but SalesLoft could not be told: the token was not revoked there."


def _is_of(record: Record, settings: Settings) -> bool:
    """Tell whether a login is the settings' own; without a client id, whichever the profile has."""
    client_id = settings.auth.client_id or record.client_id
    return record.belongs_to(client_id, settings.upstream.accounts_url, settings.profile)


async def _revoked(app: App, record: Record) -> bool:
    """Revoke a login at SalesLoft, and tell whether that worked."""
    auth = app.settings.auth
    secret = auth.client_secret.reveal() if auth.client_secret is not None else None
    client = oauth.Client(id=record.client_id, secret=secret)
    revoked = True
    # The refresh token first: it is the one that lives on.
    for token in (record.token.refresh_token, record.token.access_token):
        if token:
            try:
                answer = await app.upstream.ask(oauth.revocation(client, token=token))
                revoked = revoked and 200 <= answer.status < 300
            except Problem:
                revoked = False
    return revoked


# Profiles.


def _profiles(args: argparse.Namespace) -> list[str]:
    return config.profiles(config=args.config, environ=os.environ, cwd=Path.cwd())


def _of_profile(name: str, args: argparse.Namespace) -> Settings:
    return config.load(config=args.config, profile=name, flags={}, environ=os.environ, cwd=Path.cwd())


async def profiles(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy profiles``."""
    rows: list[Mapping[str, object]] = []
    for name in sorted({settings.profile, *_profiles(args)}):
        try:
            async with App(_of_profile(name, args)) as app:
                problem, token = app.credentials.problem(), app.credentials.snapshot()
            state = "login needed" if isinstance(problem, LoginRequired) else told_token(token)
            kept_in = token["store"]
        except SlproxyError as error:
            state, kept_in = f"broken: {'; '.join(error.detail.splitlines())}", None
        rows.append({"profile": name, "chosen": name == settings.profile, "token": state, "kept_in": kept_in})
    if args.json:
        print(json.dumps(rows, indent=2))
        return DONE
    width = max(len(str(row["profile"])) for row in rows)
    for row in rows:
        place = f", kept in {row['kept_in']}" if row["kept_in"] else ""
        print(f"{'*' if row['chosen'] else ' '} {row['profile']:<{width}}  {row['token']}{place}")
    return DONE


# The store.


async def move(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy store move``: the old place is emptied only after the new one was read back."""
    kind = args.source or settings.store.kind
    if kind == args.to:
        raise ConfigError(f"The login is kept in {kind} already.", hint="Name where it is now: --from KIND")
    if "redis" in (kind, args.to) and settings.store.redis_url is None:
        raise ConfigError("Which Redis is not known.", hint="Set SLPROXY_STORE__REDIS_URL, or store.redis_url.")
    async with (
        _opened(token_store(_with_store(settings, kind=kind))) as old,
        _opened(token_store(_with_store(settings, kind=args.to))) as new,
        old.lock(),
        new.lock(),
    ):
        record = await old.read()
        if record is None or not _is_of(record, settings):
            raise StoreError(f"There is no login of this client in {old.description}.", hint="Run: slproxy login")
        there = await new.read()
        if there is not None and not _is_of(there, settings):
            raise StoreError(
                f"{new.description} holds the login of another app or profile: {there.client_id}, {there.profile}.",
                hint="Use a --profile, and a store.path, of its own for each.",
            )
        if there is not None and there != record and not there.is_older_than(record):
            raise StoreError(
                f"There is a login in {new.description} already, and it is newer.",
                hint=f"To give that one up: SLPROXY_STORE__KIND={args.to} slproxy logout",
            )
        await new.write(record)
        if await new.read() != record:
            raise StoreError(f"{new.description} did not keep the login; {old.description} still has it.")
        await old.forget()
        print(f"Moved the login of the profile {settings.profile} from {old.description} to {new.description}.")
    if settings.store.kind != args.to:
        say(f"  Now set store.kind = {args.to}, and restart the proxies of this profile.")
    return DONE


async def rekey(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy store rekey``: seal the login with another key; at every point one of the two opens it."""
    if settings.store.kind not in ("file", "redis"):
        raise ConfigError(
            f"What is kept in store.kind = {settings.store.kind} has no key of slproxy's.",
            hint="There is none to change.",
        )
    if settings.store.encryption == "off":
        raise ConfigError("store.encryption = off: there is no key to change.", hint="Set it to auto, keyring or key.")
    given = None if args.new_key_file is None else config.secret_in(args.new_key_file)
    if given is None and (settings.store.key is not None or settings.store.kind == "redis"):
        raise ConfigError("The new key is not given.", hint="Write it into a file, and name it: --new-key-file FILE")
    seal = seal_of(settings)
    async with _opened(token_store(settings, seal=seal)) as store, store.lock():
        record = await store.read()
        if record is None:
            raise StoreError(f"There is no login in {store.description}.", hint="Run: slproxy login")
        forget_old_key = await asyncio.to_thread(seal.change_key, given)
        await store.write(record)
        if await store.read() != record:
            raise StoreError(f"{store.description} did not keep the login as it was written.", hint="Look at its disk.")
        await asyncio.to_thread(forget_old_key)
        print(f"The login in {store.description} is sealed with another key now: {store.encryption}.")
    if given is not None:
        say("  Now put the new key where store.key comes from; what reads the login with the old one fails until then.")
    return DONE


def _with_store(settings: Settings, **changes: object) -> Settings:
    return replace(settings, store=replace(settings.store, **changes))  # type: ignore[arg-type]


# Facts.


async def who_am_i(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy whoami``."""
    async with App(settings) as app:
        status, body = await app.ask("/v2/me.json")
    who = login.identity_in(status, body)
    print(json.dumps(json.loads(body), indent=2) if args.json else f"Authenticated as: {who}")
    return DONE


async def token(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy token``."""
    async with App(settings) as app:
        bearer = await app.credentials.bearer()
    print(json.dumps({"access_token": bearer.token}) if args.json else bearer.token)
    return DONE


async def show_config(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy config``."""
    rows = effective(settings)
    if args.json:
        print(json.dumps({row.key: {"value": row.plain, "origin": row.origin} for row in rows}, indent=2))
        return DONE
    key_width = max(len(row.key) for row in rows)
    value_width = min(max(len(row.value) for row in rows), 48)
    for row in rows:
        print(f"{row.key:<{key_width}}  {row.value:<{value_width}}  {row.origin}")
    return DONE
