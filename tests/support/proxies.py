"""The proxy in this process, on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from slproxy.app import App
from slproxy.clock import Clock
from slproxy.config import AuthSettings, ListenSettings, Secret, Settings, StoreSettings
from slproxy.config.schema import UpstreamSettings
from slproxy.observe import Listener
from slproxy.store import TokenStore
from tests.support.waiting import PATIENCE

API_KEY = "ak_" + "5a" * 32


def settings_for(
    upstream: str, *, accounts: str | None = None, auth: AuthSettings | None = None, path: Path | None = None
) -> Settings:
    """Return settings for a proxy on any free port; without ``path`` nothing is written to disk.

    It makes no connection that no request needs: a test that counts connections counts those of its requests.
    """
    return Settings(
        listen=ListenSettings(port=0),
        upstream=UpstreamSettings(
            api_url=upstream, accounts_url=accounts or upstream, connect_timeout=PATIENCE, warm=0.0
        ),
        auth=auth or AuthSettings(api_key=Secret(API_KEY)),
        store=StoreSettings(kind="file" if path else "memory", path=path or Path("unused")),
    )


@asynccontextmanager
async def proxy(
    settings: Settings,
    *,
    store: TokenStore | None = None,
    clock: Clock | None = None,
    listeners: Sequence[Listener] = (),
) -> AsyncIterator[App]:
    """Run a proxy in this process, on a real socket; its address is ``app.urls[0]``."""
    async with App(settings, store=store, clock=clock or Clock(), listeners=listeners) as app:
        await app.listen()
        yield app
