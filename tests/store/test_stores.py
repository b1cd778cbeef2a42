"""Token stores: what each of them promises, with real files, a real keyring and a real Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import keyring
import pytest
from keyrings.alt.file import PlaintextKeyring
from redis.asyncio import Redis

from slproxy.config import Secret
from slproxy.errors import StaleWriteError
from slproxy.store import FileStore, MemoryStore, Record, Token, TokenCipher, TokenStore
from slproxy.store.keyring import KeyringStore
from slproxy.store.redis import RedisStore
from tests.support.redis import redis_server
from tests.support.waiting import PATIENCE

RECORD = Record(
    client_id="client-1",
    accounts_url="https://accounts.salesloft.com",
    token=Token(
        access_token="hidden-access",
        refresh_token="hidden-refresh",
        obtained_at=1_795_000_000.25,
        expires_at=1_795_007_200.25,
        scope="a b",
    ),
    generation=7,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder / "token.json"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


def encrypted() -> TokenCipher:
    return TokenCipher("key", key=Secret("a phrase of the test"), keyring=lambda: None)


@pytest.fixture(params=["file", "encrypted file", "memory", "keyring", "redis", "encrypted redis"])
async def store(
    request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TokenStore]:
    match request.param:
        case "file":
            made: TokenStore = FileStore(path)
        case "encrypted file":
            made = FileStore(path, encrypted())
        case "memory":
            made = MemoryStore()
        case "keyring":
            # Where another process finds it too.
            monkeypatch.setenv("XDG_DATA_HOME", str(path.parent))
            keyring.set_keyring(PlaintextKeyring())
            # It is taken because somebody chose it: it does not encrypt.
            monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
            made = KeyringStore("default", lock_path=path.with_suffix(".lock"))
        case _:
            url = request.getfixturevalue("redis_url")
            cipher = encrypted() if "encrypted" in request.param else TokenCipher("off", key=None, keyring=lambda: None)
            made = RedisStore(Secret(url), secrets.token_hex(4), cipher)
    yield made
    await made.close()


# What every store does


async def test_an_empty_store_has_no_record(store: TokenStore) -> None:
    assert await store.read() is None


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(RECORD, generation=1, refused="invalid_grant", login=9, user_id=1, team_id=3),
        replace(RECORD, token=Token(access_token="t", obtained_at=0.0)),
        replace(RECORD, token=replace(RECORD.token, refresh_token=None, scope="")),
        replace(RECORD, token=replace(RECORD.token, expires_at=None)),
        replace(RECORD, token=replace(RECORD.token, access_token='"\\~', scope='"\\\n\x00é€\U0001f600\ud800')),
        replace(RECORD, client_id="", accounts_url="http://127.0.0.1:9000"),
        replace(RECORD, token=replace(RECORD.token, access_token="a" * 200_000)),
        replace(RECORD, token=replace(RECORD.token, obtained_at=1e308, expires_at=0.1 + 0.2)),
    ],
    ids=range(9),
)
async def test_what_is_written_is_read_again(store: TokenStore, record: Record) -> None:
    await store.write(record)
    assert await store.read() == record


async def test_the_last_write_is_what_is_read(store: TokenStore) -> None:
    await store.write(replace(RECORD, token=replace(RECORD.token, scope="a" * 10_000)))
    await store.write(RECORD)
    assert await store.read() == RECORD


async def test_a_token_never_gives_way_to_an_older_one_whatever_the_order_of_arrival(store: TokenStore) -> None:
    newest = replace(RECORD, login=2, generation=3)
    await store.write(newest)
    for older in (replace(newest, generation=2), replace(newest, login=1, generation=99)):
        with pytest.raises(StaleWriteError):
            await store.write(older)
    assert await store.read() == newest
    for newer in (replace(newest, generation=4), replace(newest, login=3, generation=1)):
        await store.write(newer)
        assert await store.read() == newer


async def test_a_token_may_be_marked_as_refused_in_its_own_generation(store: TokenStore) -> None:
    await store.write(RECORD)
    await store.write(replace(RECORD, refused="invalid_grant"))
    assert (await store.read() or RECORD).refused == "invalid_grant"


async def test_a_stamp_changes_with_each_write_and_deletion_and_with_nothing_else(store: TokenStore) -> None:
    stamps = [await store.stamp()]
    for record in (RECORD, replace(RECORD, generation=8), replace(RECORD, login=2), None, RECORD):
        await (store.delete() if record is None else store.write(record))
        stamps.append(await store.stamp())
        await store.read()
        await store.had_login()
        assert await store.stamp() == stamps[-1]
    assert all(one != other for one, other in pairwise(stamps))


async def test_a_record_that_was_deleted_is_gone_and_deleting_again_is_no_error(store: TokenStore) -> None:
    await store.delete()
    await store.write(RECORD)
    await store.delete()
    assert await store.read() is None
    await store.delete()
    await store.write(RECORD)
    assert await store.read() == RECORD


async def test_one_task_holds_the_lock_at_a_time(store: TokenStore) -> None:
    holding = 0
    order: list[int] = []

    async def hold(number: int) -> None:
        nonlocal holding
        async with store.lock():
            holding += 1
            assert holding == 1
            for _ in range(3):
                await asyncio.sleep(0)
            order.append(number)
            holding -= 1

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*[hold(number) for number in range(5)])
    assert sorted(order) == [0, 1, 2, 3, 4]


async def test_under_the_lock_the_store_can_be_read_and_written(store: TokenStore) -> None:
    async with asyncio.timeout(PATIENCE):
        async with store.lock():
            assert await store.read() is None
            await store.write(RECORD)
            assert await store.read() == RECORD
            await store.delete()
        async with store.lock():
            assert await store.read() is None


async def test_the_lock_is_let_go_when_its_holder_fails_or_is_cancelled(store: TokenStore) -> None:
    with pytest.raises(ZeroDivisionError):
        async with store.lock():
            raise ZeroDivisionError
    held = asyncio.Event()

    async def hold() -> None:
        async with store.lock():
            held.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    async with asyncio.timeout(PATIENCE), store.lock():
        pass


async def test_whoever_gives_up_waiting_for_the_lock_does_not_keep_it(store: TokenStore) -> None:
    async def hold() -> None:
        async with store.lock():
            raise AssertionError("it was cancelled before")

    async with store.lock():
        waiting = asyncio.create_task(hold())
        for _ in range(20):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(PATIENCE), store.lock():
        pass


async def test_what_was_logged_out_was_not_wiped(store: TokenStore) -> None:
    await store.write(RECORD)
    assert not await store.was_wiped()
    await store.delete()
    assert not await store.was_wiped()
    await store.write(RECORD)
    assert await store.read() == RECORD


async def test_a_folder_that_vanished_was_wiped(path: Path) -> None:
    store = FileStore(path)
    await store.write(RECORD)
    path.parent.rename(path.parent.with_name("elsewhere"))
    assert await store.was_wiped()


async def test_a_redis_that_came_back_empty_was_wiped(redis_url: str) -> None:
    store = RedisStore(Secret(redis_url), secrets.token_hex(4), encrypted())
    await store.write(RECORD)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    assert await store.was_wiped()
    await store.close()


def test_the_store_says_where_it_is_and_never_what_it_holds(path: Path) -> None:
    assert str(path) in FileStore(path).description
    assert MemoryStore(RECORD).description == "memory"
    assert "hidden" not in f"{RECORD} {RECORD!r}"


async def test_memory_may_begin_with_a_record() -> None:
    assert await MemoryStore(RECORD).read() == RECORD


@pytest.mark.parametrize("end", ["logout", "quarantine", "wiped"])
async def test_a_place_that_has_held_a_login_remembers_that_whatever_became_of_it(
    store: TokenStore, path: Path, end: str
) -> None:
    if isinstance(store, MemoryStore) or (end == "wiped" and isinstance(store, RedisStore)):
        return  # memory ends with its process, and nothing outlives a Redis that was flushed
    assert not await store.had_login()
    await store.write(RECORD)
    assert await store.had_login()
    match end:
        case "logout":
            await store.delete()
        case "quarantine":
            await store.quarantine()
        case _ if isinstance(store, KeyringStore):
            for name in ("token-default", "token-default-login"):
                keyring.delete_password("slproxy", name)
        case _:
            await asyncio.to_thread(path.unlink)
    assert await store.read() is None
    assert await store.had_login()


async def test_what_an_earlier_version_left_of_a_login_counts_and_is_remembered(store: TokenStore, path: Path) -> None:
    if not isinstance(store, FileStore):
        return
    marks = (path.with_name("token.json.login"), path.with_name("token.json.logout"))
    for left in (path, path.with_name("token.json.aside-20260101T000000-abcdef")):
        left.write_text("{")
        assert await store.had_login()
        left.unlink()  # by hand
        assert await store.had_login()
        for mark in marks:
            mark.unlink(missing_ok=True)
    assert not await store.had_login()
