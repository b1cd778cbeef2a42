"""``slproxy logout``."""

from __future__ import annotations

import argparse

from slproxy.app import App
from slproxy.auth import oauth
from slproxy.cli.output import DONE, print_error, print_note
from slproxy.cli.profiles import profile_names, settings_of_profile
from slproxy.config import Settings
from slproxy.errors import (
    Problem,
    SlproxyError,
)
from slproxy.store import Record

# Logging out.


async def log_out(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy logout``."""
    if not args.all:
        print(await _logged_out(settings))
        return DONE
    worst = DONE
    for name in sorted({settings.profile, *profile_names(args)}):
        try:
            print(f"{name}: {await _logged_out(settings_of_profile(name, args))}")
        except SlproxyError as error:
            print(f"{name}: not logged out.")
            print_error(error)
            worst = max(worst, error.exit_code)
    return worst


async def _logged_out(settings: Settings) -> str:
    """Revoke and forget a login, and return what became of it. Raises StoreError."""
    # Under the lock: a proxy that renews meanwhile would leave a newer token alive.
    async with App(settings) as app, app.store.lock():
        record = await app.store.read()
        if record is None or not belongs_to_settings(record, settings):
            return "There is no login of this client to forget."
        revoked = await revoke(app, record)
        # Where revoking took so long that the lock was lost, somebody may have renewed meanwhile.
        newest = await app.store.read()
        if newest is not None and newest.token != record.token and belongs_to_settings(newest, settings):
            revoked = await revoke(app, newest) and revoked
        await app.store.delete()
    if revoked:
        return "Logged out: the token was revoked at SalesLoft and forgotten here."
    print_note("  Revoke it in SalesLoft's settings, or wait for the access token to expire.")
    return "Forgotten here, but SalesLoft could not be told: the token was not revoked there."


def belongs_to_settings(record: Record, settings: Settings) -> bool:
    """Tell whether a login is the settings' own; without a client id, whichever the profile has."""
    client_id = settings.auth.client_id or record.client_id
    return record.belongs_to(client_id, settings.upstream.accounts_url, settings.profile)


async def revoke(app: App, record: Record) -> bool:
    """Revoke a login at SalesLoft, and tell whether that worked."""
    auth = app.settings.auth
    secret = auth.client_secret.reveal() if auth.client_secret is not None else None
    client = oauth.Client(id=record.client_id, secret=secret)
    revoked = True
    # The refresh token first: it is the one that lives on.
    for token in (record.token.refresh_token, record.token.access_token):
        if token:
            try:
                answer = await app.upstream.post_form(oauth.revocation(client, token=token))
                revoked = revoked and 200 <= answer.status < 300
            except Problem:
                revoked = False
    return revoked
