"""Login in the store, reconciled with the one in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from slproxy.auth.stored_login import StoredLogin
from slproxy.errors import StaleWriteError, StoreError, UnwritableError
from slproxy.store import MemoryStore, Record, Token

OLD = Record(client_id="c", accounts_url="https://a", token=Token(access_token="old", obtained_at=1.0))
NEW = OLD.renewed(Token(access_token="new", obtained_at=2.0))


class Place(MemoryStore):
    """A store that counts what it is asked, can be lost or unreadable, and in which something may happen meanwhile."""

    reads = 0
    lost = unreadable = False
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    async def read(self) -> Record | None:
        self.reads += 1
        if self.unreadable:
            raise StoreError("It is locked.")
        record = await super().read()
        self.meanwhile()
        return record

    async def was_wiped(self) -> bool:
        return self.lost


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


@pytest.mark.parametrize(
    ("in_store", "in_use", "lost", "counts"),
    [
        pytest.param(OLD, NEW, False, NEW, id="the store is behind"),
        pytest.param(NEW, OLD, False, NEW, id="renewed elsewhere, or another login"),
        pytest.param(OLD, None, False, OLD, id="none is in use"),
        pytest.param(None, OLD, False, None, id="logged out"),
        pytest.param(None, OLD, True, OLD, id="lost"),
        pytest.param(replace(NEW, client_id="another"), OLD, False, None, id="replaced by another client's"),
    ],
)
async def test_a_look_tells_which_login_counts_and_reads_only_what_has_changed(
    in_store: Record | None, in_use: Record | None, lost: bool, counts: Record | None
) -> None:
    place = Place(in_store)
    place.lost = lost
    login = stored(place)
    assert await login.look(lambda: in_use) == counts
    for _ in range(3):
        assert await login.look(lambda: counts) == counts
    # A logout that follows a loss leaves the same stamp.
    assert place.reads == (4 if lost else 1)
    assert await MemoryStore.read(place) == in_store
    await place.delete()
    await place.write(newer := replace(NEW, login=9))
    assert await login.look(lambda: counts) == newer


async def test_a_logout_after_a_loss_is_seen() -> None:
    place = Place(None)
    place.lost = True
    login = stored(place)
    assert await login.look(lambda: OLD) == OLD
    place.lost = False
    assert await login.look(lambda: OLD) is None


async def test_a_look_that_fails_is_repeated_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(NEW)
    place.unreadable = True
    login = stored(place)
    for _ in range(3):
        with pytest.raises(StoreError):
            await login.look(lambda: OLD)
    assert [record.getMessage() for record in caplog.records] == ["It is locked.  The login in use is kept."]
    place.unreadable = False
    assert await login.look(lambda: OLD) == NEW


async def test_a_look_during_which_something_is_stored_or_renewed_tells_nothing_and_the_next_one_does() -> None:
    place, used = Place(), OLD
    login = stored(place)
    place.meanwhile = lambda: setattr(place, "_record", NEW)
    assert await login.look(lambda: OLD) == OLD, "no logout: it was stored again"
    assert await login.look(lambda: OLD) == NEW

    def renew() -> None:
        nonlocal used
        used = NEW

    place, used = Place(replace(OLD, login=0)), OLD
    place.meanwhile = renew
    login = stored(place)
    assert await login.look(lambda: used) == NEW
    place.meanwhile = lambda: None
    await login.look(lambda: used)
    assert place.reads == 2


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
