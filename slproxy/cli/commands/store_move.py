"""``slproxy store move``: moves the login to another kind of store."""

from __future__ import annotations

import argparse
from dataclasses import replace

from slproxy import config
from slproxy.cli.logins import closing, differs_from_settings
from slproxy.cli.output import DONE, print_note, print_result
from slproxy.config import Settings
from slproxy.errors import ConfigError, StoreError
from slproxy.store import token_store


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy store move``: the old place is emptied only after the new one was read back."""
    kind = args.source or settings.store.kind
    if kind == args.to:
        raise ConfigError(f"The login is already stored in {kind}.", hint="Name where it is now: --from KIND")
    if "redis" in (kind, args.to) and settings.store.redis_url is None:
        raise ConfigError("No Redis URL is set.", hint="Set SLPROXY_STORE__REDIS_URL, or store.redis_url.")
    async with (
        closing(token_store(_with_store(settings, kind=kind))) as old,
        closing(token_store(_with_store(settings, kind=args.to))) as new,
        old.lock(),
        new.lock(),
    ):
        record = await old.read()
        if record is None:
            raise StoreError(f"{old.description} has no login.", hint="Run: slproxy login")
        config.check_login(settings, api_url=record.api_url, accounts_url=record.accounts_url)
        if foreign := differs_from_settings(record, settings):
            raise StoreError(f"The login in {old.description} is {foreign}.", hint="Run: slproxy login")
        there = await new.read()
        if there is not None and (foreign := differs_from_settings(there, settings)):
            raise StoreError(
                f"{new.description} holds another login, {foreign}.",
                hint="Give each its own --profile and store.path.",
            )
        if there is not None and there != record and not there.is_older_than(record):
            raise StoreError(
                f"{new.description} already holds a newer login.",
                hint=f"To delete that one: SLPROXY_STORE__KIND={args.to} slproxy logout",
            )
        await new.write(record)
        if await new.read() != record:
            raise StoreError(f"{new.description} did not store the login; {old.description} still has it.")
        await old.delete()
        print_result(f"Moved the login of the profile {settings.profile} from {old.description} to {new.description}.")
    if settings.store.kind != args.to:
        print_note(f"  Now set store.kind = {args.to}, and restart the proxies of this profile.")
    return DONE


def _with_store(settings: Settings, **changes: object) -> Settings:
    return replace(settings, store=replace(settings.store, **changes))  # type: ignore[arg-type]
