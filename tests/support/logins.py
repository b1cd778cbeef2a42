"""Logins in each kind of store, and commands that work on them, held to what every command promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import keyring

from slproxy.config import Secret
from slproxy.sandbox import Sandbox
from slproxy.store import FileStore, Record, TokenCipher, TokenStore
from slproxy.store.keyring import KeyringStore
from slproxy.store.redis import RedisStore
from tests.support.commands import (
    SECRET,
    run_here,
    system_keyring,
    token_file,
)
from tests.support.programs import Program
from tests.support.raw_http import get, raw
from tests.support.sandboxes import login_at

# The keyring that a machine without a desktop can have.
KEYRING = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
FIRST, SECOND = "first-key-of-the-store", "second-key-of-the-store"


def given(key: str | None) -> TokenCipher:
    return TokenCipher("off" if key is None else "key", key=None if key is None else Secret(key), keyring=lambda: None)


def store_of(kind: str, home: Path, *, redis_url: str = "", key: str | None = None) -> TokenStore:
    """Return the place that a process in ``home`` keeps its login in."""
    match kind:
        case "keyring":
            keyring.set_keyring(system_keyring(home))
            return KeyringStore("default", lock_path=home / "unused.lock")
        case "redis":
            return RedisStore(Secret(redis_url), "default", given(key))
    return FileStore(token_file(home), given(key))


async def put(store: TokenStore, record: Record) -> None:
    await store.write(record)
    await store.close()


async def kept_in(store: TokenStore) -> Record | None:
    try:
        return await store.read()
    finally:
        await store.close()


def of_somebody(sandbox: Sandbox, **changes: object) -> Record:
    """Return a login with everything that a record can hold."""
    return replace(login_at(sandbox), login=1_795_000_000_000, generation=5, user_id=1, team_id=3, **changes)  # type: ignore[arg-type]


def no_token_in(text: str, *records: Record | None) -> None:
    for record in records:
        assert record is not None
        assert record.token.access_token not in text
        assert str(record.token.refresh_token) not in text


async def command(
    *arguments: str, home: Path, env: Mapping[str, str], code: int, hidden: tuple[Record | None, ...] = ()
) -> tuple[str, str]:
    """Run a command to its end, and hold it to what all of them promise; return what it said."""
    got, out, err = await run_here(*arguments, home=home, env=env)
    assert got == code, (arguments, out, err)
    assert "Traceback" not in out + err
    for secret in (SECRET, FIRST, SECOND):
        assert secret not in out + err
    no_token_in(out + err, *hidden)
    return out, err


async def serves_and_renews(server: Program, sandbox: Sandbox, held: Record) -> None:
    """Let a running proxy meet a token that has ended, and see its client not notice."""
    sandbox.expire(held.token.access_token)
    assert (await raw(server.url, get("/v2/me.json"))).head.status == 200


def stores(kind: str, redis_url: str, key: str | None = None) -> dict[str, str]:
    """Return the settings that name a kind of store, and know of the others."""
    env = {**KEYRING, "SLPROXY_STORE__KIND": kind, "SLPROXY_STORE__REDIS_URL": redis_url}
    if key is None:
        return {**env, "SLPROXY_STORE__ENCRYPTION": "off"}
    return {**env, "SLPROXY_STORE__KEY": key}
