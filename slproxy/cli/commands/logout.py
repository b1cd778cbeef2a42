"""``slproxy logout``: revokes the token at SalesLoft, then deletes it here."""

from __future__ import annotations

import argparse

from slproxy.app import App
from slproxy.cli.logins import differs_from_settings, revoke
from slproxy.cli.output import DONE, print_error, print_note, print_result
from slproxy.cli.settings import load_settings, profile_names
from slproxy.config import Settings
from slproxy.errors import SlproxyError


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy logout``."""
    if not args.all:
        print_result(await _log_out(settings))
        return DONE
    worst = DONE
    for name in sorted({settings.profile, *profile_names(args)}):
        try:
            print_result(f"{name}: {await _log_out(load_settings(args, name))}")
        except SlproxyError as error:
            print_result(f"{name}: not logged out.")
            print_error(error)
            worst = max(worst, error.exit_code)
    return worst


async def _log_out(settings: Settings) -> str:
    """Revoke and delete a login, and return what to print. Raises StoreError."""
    # Under the lock: a proxy that renews meanwhile would leave a newer token alive.
    async with App(settings) as app, app.store.lock():
        record = await app.store.read()
        if record is None:
            return f"Not logged in: {app.store.description} has no login."
        if foreign := differs_from_settings(record, settings):
            return f"Not logged in: the login in {app.store.description} is {foreign}. It was left as it is."
        revoked = await revoke(app, record)
        # If revoking took so long that the lock was lost, another process may have renewed meanwhile.
        newest = await app.store.read()
        if newest is not None and newest.token != record.token and not differs_from_settings(newest, settings):
            revoked = await revoke(app, newest) and revoked
        await app.store.delete()
        how = "revoked at SalesLoft, and deleted" if revoked else "not revoked, only deleted"
        app.observer.login_changed("logout", f"The login was {how} from {app.store.description}.")
    if revoked:
        return "Logged out: the token was revoked at SalesLoft and deleted here."
    print_note("  Revoke it in SalesLoft's settings, or wait for the access token to expire.")
    return "Deleted here, but not revoked: SalesLoft could not be reached, or refused."
