"""Stored logins: whose one is, and how it is revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from slproxy.app import App
from slproxy.auth import oauth
from slproxy.config import Settings
from slproxy.errors import Problem
from slproxy.store import Record, TokenStore, owner_of


@asynccontextmanager
async def closing(store: TokenStore) -> AsyncIterator[TokenStore]:
    """Close a store at the end of the block."""
    try:
        yield store
    finally:
        await store.close()


def differs_from_settings(record: Record, settings: Settings) -> str:
    """Say what makes a login somebody else's than the settings'; without a client id, any client's is theirs."""
    owner = owner_of(settings)
    return record.differs_from(replace(owner, client_id=owner.client_id or record.client_id))


async def revoke(app: App, record: Record) -> bool:
    """Revoke a login at SalesLoft, and tell whether that worked."""
    auth = app.settings.auth
    secret = auth.client_secret.reveal() if auth.client_secret is not None else None
    client = oauth.OAuthClient(id=record.client_id, secret=secret)
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
