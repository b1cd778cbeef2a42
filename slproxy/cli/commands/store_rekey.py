"""``slproxy store rekey``: encrypts the login with another key."""

from __future__ import annotations

import argparse
import asyncio

from slproxy import config
from slproxy.cli.logins import closing
from slproxy.cli.output import DONE, print_note, print_result
from slproxy.config import Settings
from slproxy.errors import ConfigError, StoreError
from slproxy.store import token_cipher, token_store


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy store rekey``: encrypt the login with another key; at every point one of the two decrypts it."""
    if settings.store.kind not in ("file", "redis"):
        raise ConfigError(
            f"slproxy does not encrypt what is in store.kind = {settings.store.kind}.",
            hint="There is no key to change.",
        )
    if settings.store.encryption == "off":
        raise ConfigError("store.encryption = off: there is no key to change.", hint="Set it to auto, keyring or key.")
    given = None if args.new_key_file is None else config.secret_in(args.new_key_file)
    if given is None and (settings.store.key is not None or settings.store.kind == "redis"):
        raise ConfigError("No new key was given.", hint="Write it to a file: --new-key-file FILE")
    cipher = token_cipher(settings)
    async with closing(token_store(settings, cipher=cipher)) as store, store.lock():
        record = await store.read()
        if record is None:
            raise StoreError(f"Not logged in: {store.description} has no login.", hint="Run: slproxy login")
        forget_old_key = await asyncio.to_thread(cipher.change_key, given)
        await store.write(record)
        if await store.read() != record:
            raise StoreError(f"{store.description} did not store the login as it was written.", hint="Check its disk.")
        await asyncio.to_thread(forget_old_key)
        where = "" if given is not None else f": {store.encryption}"
        print_result(f"The login in {store.description} is now encrypted with the new key{where}.")
    if given is not None:
        print_note(
            "  Now put the new key where store.key comes from, such as its file;"
            " until then, whatever reads the login with the old key fails."
        )
    return DONE
