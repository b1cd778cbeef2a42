"""The sandbox in this process, and the logins at it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from slproxy.config import AuthSettings, Secret
from slproxy.sandbox import Options, Sandbox
from slproxy.store import Record, Token


@asynccontextmanager
async def running_sandbox(options: Options | None = None, **more: object) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(options or Options(), **more)  # type: ignore[arg-type]
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()


def sandbox_auth(sandbox: Sandbox, **changes: object) -> AuthSettings:
    """Return the settings of the sandbox's own client, for a login that is stored."""
    auth = AuthSettings(
        grant="authorization_code",
        client_id=sandbox.options.client_id,
        client_secret=Secret(sandbox.options.client_secret),
    )
    return replace(auth, **changes)  # type: ignore[arg-type]


def login_at(sandbox: Sandbox, *, now: float | None = None, lifetime: float | None = None) -> Record:
    """Return the record of somebody who has just logged in at the sandbox."""
    now = time.time() if now is None else now
    lifetime = sandbox.options.token_lifetime if lifetime is None else lifetime
    pair = sandbox.issue()
    return Record(
        client_id=sandbox.options.client_id,
        accounts_url=sandbox.url,
        api_url=sandbox.url,
        token=Token(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            obtained_at=now,
            expires_at=now + lifetime,
        ),
    )


def bearer(sandbox: Sandbox, token: str | None = None) -> dict[str, str]:
    """Return the header that authenticates at the sandbox: with a token, or with its API key."""
    return {"Authorization": f"Bearer {token or sandbox.options.api_key}"}
