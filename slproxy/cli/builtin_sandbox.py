"""The built-in sandbox of ``serve --sandbox``: a fake SalesLoft, and a login at it that is only in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from slproxy.config import AuthSettings, Secret, Settings, StoreSettings
from slproxy.sandbox import Options, Sandbox
from slproxy.store import MemoryStore, Record, Token, TokenStore


@asynccontextmanager
async def running_sandbox(settings: Settings) -> AsyncIterator[tuple[Callable[[Settings], Settings], TokenStore]]:
    """Run a sandbox; yield what points settings at it, and a store that holds a login there and nothing real."""
    options = Options()
    sandbox = Sandbox(options)
    await sandbox.start()

    def point(settings: Settings) -> Settings:
        return replace(
            settings,
            upstream=replace(settings.upstream, api_url=sandbox.url, accounts_url=sandbox.url),
            # Always the same, so that no reload takes the real one.
            store=StoreSettings(kind="memory", path=Path("none")),
            auth=AuthSettings(
                grant="authorization_code",
                client_id=options.client_id,
                client_secret=Secret(options.client_secret),
                leeway=settings.auth.leeway,
            ),
        )

    try:
        yield point, _SandboxLogin(sandbox, settings.profile)
    finally:
        await sandbox.stop()


class _SandboxLogin(MemoryStore):
    """A login at the sandbox; one that is dead is replaced, where a person would log in again."""

    def __init__(self, sandbox: Sandbox, profile: str) -> None:
        self._sandbox, self._profile = sandbox, profile
        super().__init__(self._login(1))

    async def write(self, record: Record) -> None:
        await super().write(self._login(record.login + 1) if record.refused else record)

    def _login(self, number: int) -> Record:
        pair, options, now = self._sandbox.issue(), self._sandbox.options, time.time()
        token = Token(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            obtained_at=now,
            expires_at=now + options.token_lifetime,
        )
        return Record(
            client_id=options.client_id,
            accounts_url=self._sandbox.url,
            api_url=self._sandbox.url,
            profile=self._profile,
            token=token,
            login=number,
        )
