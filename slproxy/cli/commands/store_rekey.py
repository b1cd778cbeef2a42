"""``slproxy store rekey``: encrypts the login with another key."""

from __future__ import annotations

import argparse
import asyncio

from slproxy import config
from slproxy.cli.output import DONE, print_note
from slproxy.cli.stored_login import closing
from slproxy.config import Settings
from slproxy.errors import ConfigError, StoreError
from slproxy.store import token_cipher, token_store


async def run(settings: Settings, args: argparse.Namespace) -> int:
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
    async with closing(token_store(settings, cipher=cipher)) as store, store.lock():
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
