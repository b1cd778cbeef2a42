"""Replicas: several proxies on one stored login."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from slproxy.config import Secret
from slproxy.sandbox import Sandbox
from slproxy.store import FileStore, TokenCipher, TokenStore
from slproxy.store.redis import RedisStore
from tests.support.programs import Program, program

# More than a test spends in one minute: what is shown is about tokens, not about the budget.
NO_LIMIT = 1_000_000
KEY = "a-key-that-the-replicas-share"


@dataclass(frozen=True)
class Place:
    """One store for several processes: how this one sees it, and the settings by which they do."""

    store: TokenStore
    env: Mapping[str, str]


def in_a_file(path: Path) -> Place:
    return Place(FileStore(path), {"SLPROXY_STORE__PATH": str(path), "SLPROXY_STORE__ENCRYPTION": "off"})


@asynccontextmanager
async def in_redis(url: str) -> AsyncIterator[Place]:
    store = RedisStore(Secret(url), "default", TokenCipher("key", key=Secret(KEY), keyring=lambda: None))
    try:
        yield Place(
            store,
            {
                "SLPROXY_STORE__KIND": "redis",
                "SLPROXY_STORE__REDIS_URL": url,
                "SLPROXY_STORE__ENCRYPTION": "key",
                "SLPROXY_STORE__KEY": KEY,
            },
        )
    finally:
        await store.close()


def environment_of(place: Place, sandbox: Sandbox, **more: str) -> dict[str, str]:
    """Return the environment of a proxy with a login of the sandbox's client, stored in that place."""
    return {
        "SALESLOFT_CLIENT_ID": sandbox.options.client_id,
        "SALESLOFT_CLIENT_SECRET": sandbox.options.client_secret,
        "SLPROXY_AUTH__GRANT": "authorization_code",
        "SLPROXY_UPSTREAM__API_URL": sandbox.url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": sandbox.url,
        "SLPROXY_LISTEN__PORT": "0",
        "SLPROXY_PACE__MODE": "off",
        "SLPROXY_LOG__FORMAT": "json",
        "SLPROXY_LOG__LEVEL": "warning",
        **place.env,
        **more,
    }


@asynccontextmanager
async def replicas(count: int, env: Mapping[str, str], *, home: Path) -> AsyncIterator[list[Program]]:
    """Run that many proxies on one store."""
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(
            *(stack.enter_async_context(program("serve", home=home, env=env)) for _ in range(count))
        )
