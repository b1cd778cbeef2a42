"""``slproxy store move`` and ``slproxy store rekey``."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace

from slproxy import config
from slproxy.cli.login import opened
from slproxy.cli.logout import belongs_to_settings
from slproxy.cli.output import DONE, print_note
from slproxy.config import Settings
from slproxy.errors import (
    ConfigError,
    StoreError,
)
from slproxy.store import token_cipher, token_store

# The store.


async def move(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy store move``: the old place is emptied only after the new one was read back."""
    kind = args.source or settings.store.kind
    if kind == args.to:
        raise ConfigError(f"The login is kept in {kind} already.", hint="Name where it is now: --from KIND")
    if "redis" in (kind, args.to) and settings.store.redis_url is None:
        raise ConfigError("Which Redis is not known.", hint="Set SLPROXY_STORE__REDIS_URL, or store.redis_url.")
    async with (
        opened(token_store(_with_store(settings, kind=kind))) as old,
        opened(token_store(_with_store(settings, kind=args.to))) as new,
        old.lock(),
        new.lock(),
    ):
        record = await old.read()
        if record is None or not belongs_to_settings(record, settings):
            raise StoreError(f"There is no login of this client in {old.description}.", hint="Run: slproxy login")
        there = await new.read()
        if there is not None and not belongs_to_settings(there, settings):
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
        await old.delete()
        print(f"Moved the login of the profile {settings.profile} from {old.description} to {new.description}.")
    if settings.store.kind != args.to:
        print_note(f"  Now set store.kind = {args.to}, and restart the proxies of this profile.")
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
    cipher = token_cipher(settings)
    async with opened(token_store(settings, cipher=cipher)) as store, store.lock():
        record = await store.read()
        if record is None:
            raise StoreError(f"There is no login in {store.description}.", hint="Run: slproxy login")
        forget_old_key = await asyncio.to_thread(cipher.change_key, given)
        await store.write(record)
        if await store.read() != record:
            raise StoreError(f"{store.description} did not keep the login as it was written.", hint="Look at its disk.")
        await asyncio.to_thread(forget_old_key)
        print(f"The login in {store.description} is sealed with another key now: {store.encryption}.")
    if given is not None:
        print_note("  Now set store.key to the new key; until then, whatever reads the login with the old key fails.")
    return DONE


def _with_store(settings: Settings, **changes: object) -> Settings:
    return replace(settings, store=replace(settings.store, **changes))  # type: ignore[arg-type]
