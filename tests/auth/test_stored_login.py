"""Login in the store, reconciled with the one in use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slproxy.auth.stored_login import StoredLogin
from slproxy.errors import StaleWriteError, StoreError, UnwritableError
from slproxy.store import MemoryStore, Record, Token

OLD = Record(client_id="c", accounts_url="https://a", token=Token(access_token="old", obtained_at=1.0))
NEW = OLD.renewed(Token(access_token="new", obtained_at=2.0))


class FullDisk(MemoryStore):
    async def write(self, record: Record) -> None:
        raise StoreError("No space left.", hint="Make room.")


def stored(store: MemoryStore, client_id: str = "c") -> StoredLogin:
    return StoredLogin(store, replace(OLD.owner, client_id=client_id))


@pytest.mark.parametrize(
    ("in_store", "in_use", "newest"),
    [
        pytest.param(OLD, NEW, NEW, id="the store is behind"),
        pytest.param(NEW, OLD, NEW, id="the login in use is behind"),
        pytest.param(OLD, None, OLD, id="none is in use"),
        pytest.param(None, OLD, None, id="logged out"),
        pytest.param(None, None, None, id="never logged in"),
    ],
)
async def test_the_newer_one_counts_and_is_then_stored(
    in_store: Record | None, in_use: Record | None, newest: Record | None
) -> None:
    store = MemoryStore(in_store)
    login = stored(store)
    login.unpersisted = "No space left."
    assert await login.newest(in_use) == newest
    assert await store.read() == newest
    assert login.unpersisted is None


async def test_another_clients_login_is_neither_used_nor_overwritten() -> None:
    store = MemoryStore(OLD)
    login = stored(store, client_id="another")
    assert await login.read() is None
    assert await login.newest(NEW) is None
    assert await store.read() == OLD


async def test_what_cannot_be_stored_is_said_to_be_in_memory_alone() -> None:
    login = stored(FullDisk(OLD))
    await login.write(NEW)
    assert login.unpersisted == "No space left."


async def test_a_disk_is_tried_before_a_refresh_token_is_spent_unless_its_successor_is_in_memory_anyway() -> None:
    login = stored(FullDisk(OLD))
    with pytest.raises(UnwritableError, match="No space left"):
        await login.check_writable(OLD)
    login.unpersisted = "No space left."
    await login.check_writable(OLD)
    with pytest.raises(StaleWriteError):
        await stored(MemoryStore(NEW)).check_writable(OLD)


async def test_a_login_that_is_refused_is_stored_as_such_unless_another_process_has_renewed_it() -> None:
    dead = replace(OLD, refused="invalid_grant")
    store = MemoryStore(OLD)
    assert await stored(store).mark_refused(dead) is None
    assert await store.read() == dead
    assert await stored(MemoryStore(NEW)).mark_refused(dead) == NEW
