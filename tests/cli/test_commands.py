"""What the commands beside a proxy do to a login, with real files, a Redis and a keyring."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import keyring
import pytest
from redis import Redis

import slproxy
from slproxy.config import Secret
from slproxy.errors import UndecryptableError
from slproxy.sandbox import Sandbox
from slproxy.store import FileStore, Record, TokenCipher, TokenStore
from slproxy.store.keyring import KeyringStore
from slproxy.store.redis import RedisStore
from slproxy.store.system_keyring import SystemKeyring
from tests.support.commands import (
    SECRET,
    Interactive,
    allowed,
    free_port,
    log_in,
    log_in_here,
    oauth,
    run_here,
    sandboxed,
    system_keyring,
    token_file,
)
from tests.support.rig import (
    PATIENCE,
    Message,
    Program,
    ScriptedUpstream,
    environment,
    get,
    login_at,
    port_of,
    program,
    raw,
    redis_server,
    reply,
    until,
)

pytestmark = pytest.mark.heavy

# The keyring that a machine without a desktop can have.
KEYRING = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring"}
FIRST, SECOND = "first-key-of-the-store", "second-key-of-the-store"


@pytest.fixture(autouse=True)
def a_chosen_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process take the keyring as the others do: it does not encrypt, so somebody must have chosen it."""
    for name, value in KEYRING.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def redis_anew() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_anew: str) -> str:
    """An empty Redis."""
    with contextlib.closing(Redis.from_url(redis_anew)) as client:
        client.flushall()
    return redis_anew


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


# store move

PLAIN = [
    (source, target, None)
    for source in ("file", "keyring", "redis")
    for target in ("file", "keyring", "redis")
    if source != target
]
SEALED = [("file", "redis", FIRST), ("redis", "file", FIRST), ("keyring", "redis", FIRST)]


def stores(kind: str, redis_url: str, key: str | None = None) -> dict[str, str]:
    """Return the settings that name a kind of store, and know of the others."""
    env = {**KEYRING, "SLPROXY_STORE__KIND": kind, "SLPROXY_STORE__REDIS_URL": redis_url}
    if key is None:
        return {**env, "SLPROXY_STORE__ENCRYPTION": "off"}
    return {**env, "SLPROXY_STORE__KEY": key}


@pytest.mark.parametrize(
    ("source", "target", "key"),
    [
        pytest.param(*each, id=f"{each[0]} to {each[1]}, {'sealed' if each[2] else 'plain'}")
        for each in [*PLAIN, *SEALED]
    ],
)
async def test_a_login_moves_whole_and_leaves_nothing_behind(
    tmp_path: Path, redis_url: str, source: str, target: str, key: str | None
) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of(source, tmp_path, redis_url=redis_url, key=key), record)
        # A key is of no use in a keyring, and refused beside it: then the settings name the other of the two.
        chosen = target if key is not None and source == "keyring" else source
        env = {**oauth(sandbox), **stores(chosen, redis_url, key)}
        named = ["--from", source] if chosen != source else []
        out, err = await command("store", "move", *named, "--to", target, home=tmp_path, env=env, code=0)
        assert "Moved the login of the profile default" in out
        assert (f"Now set store.kind = {target}" in err) == (chosen != target)
        assert await kept_in(store_of(source, tmp_path, redis_url=redis_url, key=key)) is None
        assert await kept_in(store_of(target, tmp_path, redis_url=redis_url, key=key)) == record
        if key is not None and target == "file":
            no_token_in(token_file(tmp_path).read_text(), record)
        if key is not None and target == "redis":
            with contextlib.closing(Redis.from_url(redis_url)) as client:
                no_token_in(str(client.hgetall("slproxy:token:default")), record)
        assert sandbox.requests == []
        assert sandbox.token_requests == []


@pytest.mark.parametrize(("source", "target"), [("file", "redis"), ("redis", "keyring")])
async def test_a_proxy_serves_and_renews_from_where_the_login_was_moved_to(
    tmp_path: Path, redis_url: str, source: str, target: str
) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of(source, tmp_path, redis_url=redis_url), record)
        env = oauth(sandbox)
        move = ("store", "move", "--to", target)
        await command(*move, home=tmp_path, env={**env, **stores(source, redis_url)}, code=0)
        async with program("serve", home=tmp_path, env={**env, **stores(target, redis_url)}) as server:
            await serves_and_renews(server, sandbox, record)
        kept = await kept_in(store_of(target, tmp_path, redis_url=redis_url))
        assert kept is not None
        assert kept.generation == record.generation + 1
        assert await kept_in(store_of(source, tmp_path, redis_url=redis_url)) is None


async def test_a_login_does_not_move_to_a_redis_that_is_down(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(FileStore(token_file(tmp_path)), record)
        kept = token_file(tmp_path).read_bytes()
        env = {**oauth(sandbox), **stores("file", f"redis://127.0.0.1:{free_port()}/0")}
        _, err = await command("store", "move", "--to", "redis", home=tmp_path, env=env, code=1, hidden=(record,))
        assert "Redis does not answer" in err
        assert "store.redis_url" in err
        assert token_file(tmp_path).read_bytes() == kept


@pytest.mark.parametrize("there", ["another login, made later", "the same login, renewed since"])
async def test_a_login_does_not_move_over_a_newer_one(tmp_path: Path, there: str) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        newer = replace(record, token=login_at(sandbox).token)
        newer = replace(newer, login=record.login + 1) if "another" in there else newer.renewed(newer.token)
        await put(store_of("keyring", tmp_path), newer)
        await put(FileStore(token_file(tmp_path)), record)
        env = {**oauth(sandbox), **stores("file", "")}
        del env["SLPROXY_STORE__REDIS_URL"]
        move = ("store", "move", "--to", "keyring")
        _, err = await command(*move, home=tmp_path, env=env, code=1, hidden=(record, newer))
        assert "newer" in err
        assert "SLPROXY_STORE__KIND=keyring slproxy logout" in err
        assert await kept_in(store_of("file", tmp_path)) == record
        assert await kept_in(store_of("keyring", tmp_path)) == newer


async def test_a_login_takes_the_place_of_an_older_one(tmp_path: Path, redis_url: str) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of("redis", tmp_path, redis_url=redis_url), replace(login_at(sandbox), login=7, generation=9))
        await put(store_of("file", tmp_path), record)
        env = {**oauth(sandbox), **stores("file", redis_url)}
        await command("store", "move", "--to", "redis", home=tmp_path, env=env, code=0)
        assert await kept_in(store_of("redis", tmp_path, redis_url=redis_url)) == record
        assert await kept_in(store_of("file", tmp_path)) is None


async def test_a_login_does_not_move_over_that_of_another_profile(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record, others = of_somebody(sandbox), replace(login_at(sandbox), profile="work", login=7)
        await put(store_of("keyring", tmp_path), record)
        shared = token_file(tmp_path)
        await put(FileStore(shared), others)
        env = {**oauth(sandbox), **stores("keyring", "redis://unused"), "SLPROXY_STORE__PATH": str(shared)}
        move = ("store", "move", "--to", "file")
        _, err = await command(*move, home=tmp_path, env=env, code=1, hidden=(record, others))
        assert "profile" in err
        assert await kept_in(FileStore(shared)) == others
        assert await kept_in(store_of("keyring", tmp_path)) == record


async def test_a_login_does_not_move_over_what_cannot_be_opened(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of("keyring", tmp_path), record)
        await put(FileStore(token_file(tmp_path), given(SECOND)), replace(record, login=7))
        sealed = token_file(tmp_path).read_bytes()
        env = {**oauth(sandbox), **stores("file", "redis://unused", FIRST)}
        move = ("store", "move", "--from", "keyring", "--to", "file")
        _, err = await command(*move, home=tmp_path, env=env, code=1, hidden=(record,))
        assert "cannot be decrypted" in err
        assert token_file(tmp_path).read_bytes() == sealed
        assert await kept_in(store_of("keyring", tmp_path)) == record


async def test_a_move_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = {**oauth(sandbox), **KEYRING}
        cases = [
            (["--to", "file"], {}, 2, "already stored in file"),
            (["--to", "redis"], {}, 2, "SLPROXY_STORE__REDIS_URL"),
            (["--from", "redis", "--to", "keyring"], {}, 2, "SLPROXY_STORE__REDIS_URL"),
            (["--to", "memory"], {}, 2, "invalid choice"),
            (["--to", "keyring"], {}, 1, "has no login of this client"),
            # A login of another client is not moved: it is not this one's to take.
            (["--to", "keyring"], {"SALESLOFT_CLIENT_ID": "another"}, 1, "has no login of this client"),
        ]
        homes = [tmp_path / str(number) for number in range(len(cases))]
        for home in homes:
            home.mkdir()
        await put(FileStore(token_file(homes[-1])), record := of_somebody(sandbox))
        told = await asyncio.gather(
            *(
                command("store", "move", *arguments, home=home, env={**env, **more}, code=code, hidden=(record,))
                for home, (arguments, more, code, _) in zip(homes, cases, strict=True)
            )
        )
        for (arguments, _, _, said), (out, err) in zip(cases, told, strict=True):
            assert out == "", arguments
            assert said in err, (arguments, err)
        assert await kept_in(FileStore(token_file(homes[-1]))) == record


async def test_a_move_that_was_cut_off_after_its_write_can_be_made_again(tmp_path: Path) -> None:
    """Both places then hold the same token. It is one login: nothing is newer, and nothing is to be logged out of."""
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of("file", tmp_path), record)
        await put(store_of("keyring", tmp_path), record)
        env = {**oauth(sandbox), **stores("file", "redis://unused")}
        await command("store", "move", "--to", "keyring", home=tmp_path, env=env, code=0, hidden=(record,))
        assert await kept_in(store_of("keyring", tmp_path)) == record
        assert await kept_in(store_of("file", tmp_path)) is None


@asynccontextmanager
async def relay(to: str, *, lets_it_through: bool) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to Redis on which no answer comes any more once the token is to be changed, carried out or not."""
    reached, answers_stop = asyncio.Event(), asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool) -> None:
        while data := await reader.read(2**16):
            hangs = asks and b"slproxy:token:" in data and b"HGET" not in data
            if hangs:
                answers_stop.set()
            if not asks and answers_stop.is_set():
                await asyncio.Event().wait()
            if not hangs or lets_it_through:
                writer.write(data)
                await writer.drain()
            if hangs:
                reached.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        tasks.add(serving)
        there, back = await asyncio.open_connection("127.0.0.1", port_of(to.removesuffix("/0")))
        pumps = [
            asyncio.create_task(pump(reader, back, asks=True)),
            asyncio.create_task(pump(there, writer, asks=False)),
        ]
        tasks.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in (writer, back):
                end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", reached
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("carried_out", [True, False], ids=["carried out", "not carried out"])
@pytest.mark.parametrize(("source", "target"), [("file", "redis"), ("redis", "file")])
async def test_a_move_that_is_killed_leaves_the_login_whole_in_one_place_or_in_both(
    tmp_path: Path, redis_url: str, source: str, target: str, carried_out: bool
) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of(source, tmp_path, redis_url=redis_url), record)
        # The first change is the write, or, where Redis is the source, the removal.
        async with relay(redis_url, lets_it_through=carried_out) as (url, reached):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "slproxy", "store", "move", "--to", target),
                cwd=tmp_path,
                env=environment(tmp_path, **oauth(sandbox), **stores(source, url)),
            )
            try:
                async with asyncio.timeout(PATIENCE):
                    await reached.wait()
                    with contextlib.closing(Redis.from_url(redis_url)) as client:
                        # Redis answers the relay, not the process: that it was carried out is seen in Redis itself.
                        wanted = 1 if (target == "redis") == carried_out else 0
                        while client.exists("slproxy:token:default") != wanted:
                            await asyncio.sleep(0.01)
            finally:
                assert process.returncode is None, "it ended before it could be killed"
                process.kill()
                await process.wait()
        places = {kind: await kept_in(store_of(kind, tmp_path, redis_url=redis_url)) for kind in ("file", "redis")}
        there = {"file": source == "file" or target == "file", "redis": (target == "redis") == carried_out}
        assert places == {kind: record if held else None for kind, held in there.items()}


# store rekey


def sealed_by(path: Path) -> str:
    """Return the name of the key that a token file is sealed with."""
    name = json.loads(path.read_text())["key"]
    assert isinstance(name, str)
    return name


async def test_a_new_key_in_the_keyring_takes_the_place_of_the_old_one_under_a_running_proxy(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record, path, ring = of_somebody(sandbox), token_file(tmp_path), system_keyring(tmp_path)
        cipher = TokenCipher("keyring", key=None, keyring=lambda: SystemKeyring(ring))
        await put(FileStore(path, cipher), record)
        old, old_name = path.read_bytes(), sealed_by(path)
        env = {**oauth(sandbox), **KEYRING, "SLPROXY_STORE__ENCRYPTION": "keyring"}
        async with program("serve", home=tmp_path, env=env) as server:
            await command("store", "rekey", home=tmp_path, env=env, code=0, hidden=(record,))
            new_name = sealed_by(path)
            assert new_name != old_name
            assert ring.get_password("slproxy", old_name) is None
            assert await kept_in(
                FileStore(path, TokenCipher("keyring", key=None, keyring=lambda: SystemKeyring(ring)))
            ) == (record)
            await serves_and_renews(server, sandbox, record)
            assert await server.stop() == 0
        assert sealed_by(path) == new_name
        kept = await kept_in(FileStore(path, TokenCipher("keyring", key=None, keyring=lambda: SystemKeyring(ring))))
        assert kept is not None
        assert kept.generation == record.generation + 1
        # What was sealed with the old key, in a backup, cannot be decrypted any more.
        path.write_bytes(old)
        await command("token", home=tmp_path, env=env, code=1, hidden=(record, kept))


@pytest.mark.parametrize(
    ("kind", "old"),
    [("file", None), ("file", FIRST), ("redis", FIRST)],
    ids=["what was plain", "a sealed file", "a sealed login in Redis"],
)
async def test_a_given_key_seals_what_the_old_one_did_and_the_old_one_opens_it_no_more(
    tmp_path: Path, redis_url: str, kind: str, old: str | None
) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(store_of(kind, tmp_path, redis_url=redis_url, key=old), record)
        file = tmp_path / "new"
        file.write_text(SECOND + "\n")
        env = {**oauth(sandbox), **stores(kind, redis_url, old)}
        env.pop("SLPROXY_STORE__ENCRYPTION", None)
        rekey = ("store", "rekey", "--new-key-file", "new")
        _, err = await command(*rekey, home=tmp_path, env=env, code=0, hidden=(record,))
        assert "store.key" in err
        with pytest.raises(UndecryptableError):
            await kept_in(store_of(kind, tmp_path, redis_url=redis_url, key=old))
        assert await kept_in(store_of(kind, tmp_path, redis_url=redis_url, key=SECOND)) == record


async def test_a_running_proxy_goes_on_when_the_mounted_key_is_exchanged_after_a_rekey(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record, mounted = of_somebody(sandbox), tmp_path / "mounted"
        await put(FileStore(token_file(tmp_path), given(FIRST)), record)
        mounted.write_text(FIRST)
        (tmp_path / "new").write_text(SECOND)
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY_FILE": str(mounted)}
        async with program("serve", home=tmp_path, env=env) as server:
            rekey = ("store", "rekey", "--new-key-file", "new")
            await command(*rekey, home=tmp_path, env=env, code=0, hidden=(record,))
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            _, err = await command("token", home=tmp_path, env=env, code=1, hidden=(record,))
            assert "cannot be decrypted" in err
            (tmp_path / "new").replace(mounted)
            out, _ = await command("token", home=tmp_path, env=env, code=0)
            assert out == record.token.access_token + "\n"
            await until(lambda: any("settings read again; changed: store.key" in line for line in server.errors))
            await serves_and_renews(server, sandbox, record)
            assert await server.stop() == 0
            assert SECOND not in server.output
        kept = await kept_in(FileStore(token_file(tmp_path), given(SECOND)))
        assert kept is not None
        assert kept.generation == record.generation + 1


# What becomes ``store.key`` as it is, and what a file of that setting may not hold.
NO_KEYS = {
    "missing": None,
    "empty": "\n",
    "too large": "k" * 70_000,
    "with spaces": "a phrase of words",
    "of two lines": "one\ntwo",
}


@pytest.mark.parametrize("name", NO_KEYS)
async def test_a_new_key_that_is_none_is_refused_and_changes_nothing(tmp_path: Path, name: str) -> None:
    """What the settings would refuse as ``store.key`` must not seal a login: nothing could open it afterwards."""
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path), given(FIRST)), record := of_somebody(sandbox))
        kept = token_file(tmp_path).read_bytes()
        if (content := NO_KEYS[name]) is not None:
            (tmp_path / name).write_text(content)
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY": FIRST}
        rekey = ("store", "rekey", "--new-key-file", name)
        _, err = await command(*rekey, home=tmp_path, env=env, code=2, hidden=(record,))
        assert name in err
        assert "phrase" not in err
        assert token_file(tmp_path).read_bytes() == kept


async def test_a_rekey_that_cannot_be_made_says_why_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "new").write_text(SECOND)
    new = ["--new-key-file", str(tmp_path / "new")]
    cases: list[tuple[list[str], dict[str, str], int, str]] = [
        ([], {"SLPROXY_STORE__KIND": "keyring"}, 2, "store.kind = keyring"),
        ([], {"SLPROXY_STORE__KIND": "redis", "SLPROXY_STORE__REDIS_URL": "redis://unused"}, 2, "--new-key-file"),
        # There is no keyring.
        ([], {}, 1, "--new-key-file"),
        # Sealed in spite of it, the next renewal would write it in the clear again.
        ([], {**KEYRING, "SLPROXY_STORE__ENCRYPTION": "off"}, 2, "store.encryption"),
        (new, {"SLPROXY_STORE__ENCRYPTION": "off"}, 2, "store.encryption"),
        (new, {"SLPROXY_STORE__PATH": "elsewhere/token.json"}, 1, "slproxy login"),
    ]
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        homes = [tmp_path / str(number) for number in range(len(cases))]
        for home in homes:
            home.mkdir()
            await put(FileStore(token_file(home)), record)
        kept = token_file(homes[0]).read_bytes()
        results = await asyncio.gather(
            *(
                run_here("store", "rekey", *arguments, home=home, env={**oauth(sandbox), **more})
                for home, (arguments, more, _, _) in zip(homes, cases, strict=True)
            )
        )
    for home, case, (code, out, err) in zip(homes, cases, results, strict=True):
        assert (code, out) == (case[2], ""), (case, err)
        assert case[3] in err, case
        no_token_in(err, record)
        assert token_file(home).read_bytes() == kept, case


async def test_a_rekey_needs_the_old_key(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path), given(FIRST)), of_somebody(sandbox))
        kept = token_file(tmp_path).read_bytes()
        (tmp_path / "new").write_text(SECOND)
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY": "a-wrong-key"}
        rekey = ("store", "rekey", "--new-key-file", "new")
        _, err = await command(*rekey, home=tmp_path, env=env, code=1)
        assert "cannot be decrypted" in err
        assert token_file(tmp_path).read_bytes() == kept
        with pytest.raises(UndecryptableError):
            await kept_in(FileStore(token_file(tmp_path), given(SECOND)))


# profiles


async def test_profiles_lists_those_of_the_file_and_those_with_a_token_and_the_broken_one(tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_text(
        "[profile.work.listen]\nport = 9001\n[profile.bad.retry]\nattempts = 'x'\nmax_wait = 'y'\n"
    )
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path, "side")), replace(login_at(sandbox), profile="side", generation=4))
        await put(FileStore(token_file(tmp_path, "open")), replace(login_at(sandbox), profile="open"))
        token_file(tmp_path, "open").chmod(0o644)
        env = oauth(sandbox)
        arguments = ("profiles", "--profile", "work")
        (out, _), (told, err) = await asyncio.gather(
            command(*arguments, "--json", home=tmp_path, env=env, code=0),
            command(*arguments, home=tmp_path, env=env, code=0),
        )
    assert err == ""
    rows = {row["profile"]: row for row in json.loads(out)}
    assert list(rows) == ["bad", "default", "open", "side", "work"]
    assert {tuple(row) for row in rows.values()} == {("profile", "chosen", "token", "kept_in")}
    assert [name for name, row in rows.items() if row["chosen"]] == ["work"]
    assert rows["work"]["token"] == rows["default"]["token"] == "login needed"
    assert "renewed 3 times" in rows["side"]["token"]
    assert str(token_file(tmp_path, "side")) in rows["side"]["kept_in"]
    assert "broken: " in rows["bad"]["token"]
    assert "retry.attempts" in rows["bad"]["token"]
    assert "open to others" in rows["open"]["token"]
    lines = told.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["bad", "default", "open", "side"]
    assert [line.split()[:2] for line in lines if line.startswith("*")] == [["*", "work"]]
    assert len(lines) == 5, "a line each"
    assert "None" not in told


async def test_each_profile_has_a_login_and_a_proxy_of_its_own(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("one", "two")}
    (tmp_path / "slproxy.toml").write_text(
        "".join(f"[profile.{name}.listen]\nport = {port}\n" for name, port in ports.items())
    )
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        del env["SLPROXY_LISTEN__PORT"]
        tokens = {}
        await log_in(tmp_path, env, "--profile", "one")
        await put(FileStore(token_file(tmp_path, "two")), replace(login_at(sandbox), profile="two"))
        for name in ports:
            kept = await kept_in(FileStore(token_file(tmp_path, name)))
            assert kept is not None
            assert kept.profile == name
            tokens[name] = kept.token.access_token
        assert len(set(tokens.values())) == 2
        assert not token_file(tmp_path).exists()
        async with (
            program("serve", "--profile", "one", home=tmp_path, env=env) as first,
            program("serve", "--profile", "two", home=tmp_path, env=env) as second,
        ):
            for name, server in (("one", first), ("two", second)):
                assert port_of(server.url) == ports[name]
                sandbox.requests.clear()
                assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
                assert [request.token for request in sandbox.requests] == [tokens[name]]
            # One of them is logged out, and the other does not notice.
            await command("logout", "--profile", "one", home=tmp_path, env=env, code=0)
            assert (await raw(second.url, get("/v2/me.json"))).head.status == 200
            assert sandbox.alive() == 1


# logout


@pytest.mark.parametrize("answer", ["200 OK", "503 Service Unavailable"])
async def test_logout_revokes_refresh_and_access_token_and_only_then_forgets(tmp_path: Path, answer: str) -> None:
    path, there = token_file(tmp_path), []

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.append(path.exists())
        writer.write(reply(answer))

    async with sandboxed() as sandbox, ScriptedUpstream(script) as upstream:
        record = replace(of_somebody(sandbox), accounts_url=upstream.url)
        await put(FileStore(path), record)
        env = {**oauth(sandbox), "SLPROXY_UPSTREAM__ACCOUNTS_URL": upstream.url}
        out, err = await command("logout", home=tmp_path, env=env, code=0, hidden=(record,))
    assert [message.head.target for message in upstream.seen] == ["/oauth/revoke"] * 2
    sent = [dict(part.split("=", 1) for part in message.body.decode().split("&")) for message in upstream.seen]
    assert [each["token"] for each in sent] == [record.token.refresh_token, record.token.access_token]
    assert {each["client_id"] for each in sent} == {record.client_id}
    assert there == [True, True]
    assert not path.exists()
    assert ("not revoked" in out + err) == (answer != "200 OK")


async def test_logout_of_all_goes_on_after_one_that_fails_and_says_how_each_went(tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_text("[profile.bad.retry]\nattempts = 'x'\n[profile.none.listen]\nport = 9001\n")
    async with sandboxed() as sandbox:
        records = [replace(login_at(sandbox), profile=name) for name in ("default", "locked", "side", "work")]
        for record in records:
            await put(FileStore(token_file(tmp_path, record.profile)), record)
        token_file(tmp_path, "locked").chmod(0o644)
        env = oauth(sandbox)
        out, err = await command("logout", "--all", home=tmp_path, env=env, code=2, hidden=tuple(records))
        how = dict(line.split(": ", 1) for line in out.splitlines())
        assert {name: " ".join(told.split()[:2]) for name, told in how.items()} == {
            "bad": "not logged",
            "default": "Logged out:",
            "locked": "not logged",
            "none": "Not logged",
            "side": "Logged out:",
            "work": "Logged out:",
        }
        assert "chmod 600" in err
        assert "retry.attempts" in err
        assert [path.name for path in token_file(tmp_path).parent.glob("*.json")] == ["locked.json"]
        assert sandbox.alive() == 1
        token_file(tmp_path, "locked").chmod(0o600)
        (tmp_path / "slproxy.toml").unlink()
        out, err = await command("logout", "--all", home=tmp_path, env=env, code=0)
        assert "locked: Logged out:" in out
        assert err == ""
        assert sandbox.alive() == 0


async def test_logout_of_all_includes_the_chosen_profile_wherever_its_login_is_kept(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        keyring.set_keyring(system_keyring(tmp_path))
        store = KeyringStore("work", lock_path=tmp_path / "unused.lock")
        await put(store, replace(login_at(sandbox), profile="work"))
        env = {**oauth(sandbox), **KEYRING, "SLPROXY_STORE__KIND": "keyring"}
        out, _ = await command("logout", "--all", "--profile", "work", home=tmp_path, env=env, code=0)
        assert "work: Logged out:" in out
        assert sandbox.alive() == 0
        assert await store.read() is None


# status


async def test_status_tells_of_the_token_and_of_the_renewals_of_the_running_proxy(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        path = token_file(tmp_path)
        await put(FileStore(path, given(FIRST)), record)
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port()), "SLPROXY_STORE__KEY": FIRST}

        async def told(code: int) -> tuple[dict[str, str], dict[str, object]]:
            kept = await kept_in(FileStore(path, given(FIRST)))
            (out, err), (document, _) = await asyncio.gather(
                command("status", home=tmp_path, env=env, code=code, hidden=(record, kept)),
                command("status", "--json", home=tmp_path, env=env, code=code, hidden=(record, kept)),
            )
            assert err == ""
            return rows_in(out), json.loads(document)

        rows, facts = await told(0)
        assert set(rows) == {"profile", "auth", "token", "user", "stored in", "proxy"}
        assert re.search(r"valid for 1 h 59 min( \d+ s)?, renewed 4 times, \d+ s old", rows["token"]), rows
        assert "1 of team 3" in rows["user"]
        assert str(path) in rows["stored in"]
        assert "encrypted, key in store.key" in rows["stored in"]
        assert "not running" in rows["proxy"]
        assert set(facts) == {"profile", "token", "login_needed", "proxy"}
        token = facts["token"]
        assert isinstance(token, dict)
        assert {name: token[name] for name in ("grant", "generation", "user_id", "team_id", "valid", "saved")} == {
            "grant": "authorization_code",
            "generation": 5,
            "user_id": 1,
            "team_id": 3,
            "valid": True,
            "saved": True,
        }
        assert 0 <= token["age"] < PATIENCE
        assert 7200 - PATIENCE < token["expires_in"] <= 7200
        assert {"store", "encryption", "renewals", "last_renewal", "why"} <= set(token)

        async with program("serve", home=tmp_path, env=env) as server:
            started = time.time()
            await serves_and_renews(server, sandbox, record)
            rows, facts = await told(0)
            assert "up at" in rows["proxy"]
            assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ: renewed", rows["renewal"]), rows
            proxy = facts["proxy"]
            assert isinstance(proxy, dict)
            assert (proxy["profile"], proxy["token"]["generation"], proxy["token"]["renewals"]) == ("default", 6, 1)
            assert started - 1 <= proxy["token"]["last_renewal"]["at"] <= time.time()
            assert "renewed 5 times" in rows["token"]

            # The login dies: the proxy has tried, and says so; it is a person's turn.
            sandbox.revoke_all()
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 503
            rows, facts = await told(3)
            assert "no longer accepts" in rows["renewal"]
            assert "slproxy login" in rows["token"]
            assert "not ready" in rows["proxy"]
            assert facts["login_needed"] is True


async def test_status_does_not_take_the_proxy_of_another_profile_for_its_own(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(FileStore(token_file(tmp_path)), record)
        await put(FileStore(token_file(tmp_path, "work")), replace(login_at(sandbox), profile="work"))
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port())}
        async with program("serve", home=tmp_path, env=env) as server:
            await serves_and_renews(server, sandbox, record)
            out, _ = await command("status", "--profile", "work", home=tmp_path, env=env, code=0)
    (row,) = [line for line in out.splitlines() if line.startswith("proxy")]
    assert "default" in row, "whose proxy it is"
    assert "renewal" not in out, "it is not this login that was renewed"


def rows_in(out: str) -> dict[str, str]:
    """Return the rows that ``status`` printed."""
    return {line[:9].strip(): line[10:] for line in out.splitlines()}


async def rows_of_status(home: Path, env: Mapping[str, str], *, code: int) -> tuple[dict[str, str], str]:
    """Run ``status``, and return its rows and what else it said."""
    out, err = await command("status", home=home, env=env, code=code)
    return rows_in(out), err


async def test_status_tells_the_token_that_the_running_proxy_has(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port())}
        del env["SALESLOFT_REDIRECT_URI"]  # without one, id and secret are client credentials
        async with program("serve", home=tmp_path, env=env) as server:
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            rows, _ = await rows_of_status(tmp_path, env, code=0)
            assert rows["token"].startswith("valid for "), rows
            assert "restart" not in rows
            await put(FileStore(token_file(tmp_path)), of_somebody(sandbox))
            rows, _ = await rows_of_status(tmp_path, env, code=0)
    assert rows["auth"].startswith("client_credentials (")
    assert rows["restart"] == "a new start would use authorization_code (a stored login was found)"


async def test_status_needs_no_login_where_a_proxy_serves_the_sandbox(tmp_path: Path) -> None:
    env = {"SLPROXY_LISTEN__PORT": str(free_port())}
    await rows_of_status(tmp_path, env, code=3)
    async with program("serve", "--sandbox", home=tmp_path, env=env):
        rows, _ = await rows_of_status(tmp_path, env, code=0)
    assert rows["token"].startswith("valid for "), rows
    assert re.fullmatch(
        r"up at \S+, forwarding to http://127.0.0.1:\d+, ready, using authorization_code", rows["proxy"]
    ), rows


@pytest.mark.parametrize(
    ("harm", "said"),
    [("damaged", "moved to"), ("another key", "cannot be decrypted")],
)
async def test_status_tells_of_the_proxy_where_the_store_is_wrong(tmp_path: Path, harm: str, said: str) -> None:
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path), given(FIRST)), of_somebody(sandbox))
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port()), "SLPROXY_STORE__KEY": FIRST}
        async with program("serve", home=tmp_path, env=env) as server:
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            if harm == "damaged":
                token_file(tmp_path).write_bytes(b"{")
            rows, err = await rows_of_status(
                tmp_path, env | ({"SLPROXY_STORE__KEY": SECOND} if harm == "another key" else {}), code=1
            )
    assert said in err
    assert "ready" in rows["proxy"]
    assert rows["budget"].startswith("599 of 600 left, resets in ")
    assert rows["token"].startswith("valid for ")


BUDGET = {
    "mode": "pace",
    "limit": 600,
    "ours": 600,
    "remaining": 8,
    "resets_in": 41.2,
    "window": "minute",
    "shared": None,
    "alone": False,
    "queue": {"interactive": 0, "bulk": 0},
    "waiting": {},
    "this_minute": {"by_client": {}, "by_endpoint": {}, "by_others": 0},
    "last_minutes": [],
}


@pytest.mark.parametrize(
    ("change", "row", "told"),
    [
        ({}, "budget", "8 of 600 left, resets in 42 s"),
        ({"ours": 60}, "budget", "8 of 60 left (the team has 600), resets in 42 s"),
        ({"told": True}, "budget", "8 of 600 left, resets in 42 s"),
        ({"told": False}, "budget", "8 of an assumed 600 left, resets in 42 s"),
        (
            {"queue": {"interactive": 1, "bulk": 0}, "waiting": {"a": 1}},
            "budget",
            "8 of 600 left, resets in 42 s; 1 request waiting: a 1",
        ),
        (
            {"this_minute": {"by_client": {"a": 3, "b": 0}, "by_endpoint": {}, "by_others": 30}},
            "clients",
            "a 3; 30 by others",
        ),
        (
            {"this_minute": {"by_client": {}, "by_endpoint": {f"e{n}": 9 for n in range(7)}, "by_others": 0}},
            "endpoints",
            "e0 9, e1 9, e2 9, e3 9, e4 9 and 2 more",
        ),
        (
            {
                "last_minutes": [
                    {"at": "2026-11-28T10:01:00Z", "spent": 40},
                    {"at": "2026-11-28T10:02:00Z", "spent": 0},
                ]
            },
            "history",
            "10:01Z 40",
        ),
    ],
    ids=["all", "a part", "told", "assumed", "one waits", "others", "many", "minutes"],
)
async def test_status_words_the_budget_as_it_is(tmp_path: Path, change: dict[str, object], row: str, told: str) -> None:
    page = json.dumps({"version": slproxy.__version__, "profile": "default", "budget": BUDGET | change}).encode()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", page))

    async with ScriptedUpstream(script) as proxy:
        env = {"SLPROXY_LISTEN__PORT": str(port_of(proxy.url)), "SALESLOFT_API_KEY": "ak_x"}
        rows, _ = await rows_of_status(tmp_path, env, code=0)
    assert rows[row] == told


# login


@asynccontextmanager
async def logging_in(
    home: Path, env: Mapping[str, str], *arguments: str, stdin: int = asyncio.subprocess.PIPE, shell: str = ""
) -> AsyncIterator[Interactive]:
    """Run ``login --no-browser``, its input where one likes, in what a line of a shell has made of the process."""
    within = ("sh", "-c", f'{shell}; exec "$@"', "sh") if shell else ()
    process = await asyncio.create_subprocess_exec(
        *(*within, sys.executable, "-m", "slproxy", "login", "--no-browser", *arguments),
        cwd=home,
        env=environment(home, **env),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield Interactive(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def login_ends(
    home: Path, env: Mapping[str, str], *arguments: str, code: int, then: str = "", shell: str = ""
) -> tuple[str, str]:
    """Log in and allow it, without a terminal, with more to read after it; return what was said."""
    if shell:
        async with logging_in(home, env, *arguments, shell=shell) as login:
            got = await login.end(await allowed(await login.url()) + "\n" + then)
        out, err = login.out, login.err
    else:
        got, out, err = await log_in_here(*arguments, home=home, env=env, then=then)
    assert got == code, (out, err)
    assert "Traceback" not in err
    assert SECRET not in out + err
    return out, err


async def works(sandbox: Sandbox, record: Record | None) -> bool:
    """Tell whether SalesLoft takes a login's token; at the sandbox its refresh token lives and dies with it."""
    assert record is not None
    asked = get("/v2/people.json", f"Authorization: Bearer {record.token.access_token}")
    return (await raw(sandbox.url, asked)).head.status == 200


def of_somebody_else(sandbox: Sandbox) -> Record:
    return replace(of_somebody(sandbox), user_id=99)


async def test_a_login_keeps_who_it_is_and_the_same_person_again_is_not_asked(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env, path = oauth(sandbox), token_file(tmp_path)
        await log_in(tmp_path, env)
        first = await kept_in(FileStore(path))
        assert first is not None
        asked = get("/v2/me.json", f"Authorization: Bearer {first.token.access_token}")
        me = json.loads((await raw(sandbox.url, asked)).body)["data"]
        assert (first.user_id, first.team_id) == (me["id"], me["team"]["id"])
        # A login that is later than this machine's clock is still one before the next.
        await put(FileStore(path), ahead := replace(first, login=first.login + 10**9, generation=8))
        out, err = await login_ends(tmp_path, env, code=0)
        assert out == "Authenticated as: Jane Smith (jane@company.com)\n"
        assert "Replace" not in err
        second = await kept_in(FileStore(path))
        assert second is not None
        assert second.token.access_token != first.token.access_token
        assert ahead.is_older_than(second)
        assert second.generation == 1
        assert await works(sandbox, second)


async def test_a_login_as_somebody_else_without_a_terminal_is_refused_and_what_it_got_is_revoked(
    tmp_path: Path,
) -> None:
    async with sandboxed() as sandbox:
        env, path = oauth(sandbox), token_file(tmp_path)
        await put(FileStore(path), record := of_somebody_else(sandbox))
        kept = path.read_bytes()
        # What a script sends is nobody's answer to a question.
        out, err = await login_ends(tmp_path, env, code=1, then="y\n")
        assert out == ""
        assert "somebody else" in err
        assert "--replace" in err
        assert path.read_bytes() == kept
        assert sandbox.alive() == 1
        assert await works(sandbox, record)


async def test_a_login_as_somebody_else_replaces_when_told_to(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := of_somebody_else(sandbox))
        await login_ends(tmp_path, oauth(sandbox), "--replace", code=0)
        kept = await kept_in(FileStore(path))
        assert kept is not None
        assert (kept.user_id, record.is_older_than(kept)) == (1, True)
        assert await works(sandbox, kept)


@pytest.mark.parametrize(("typed", "replaced"), [("y\n", True), ("n\n", False), ("\x04", False)])
async def test_a_login_as_somebody_else_on_a_terminal_asks(tmp_path: Path, typed: str, replaced: bool) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), of_somebody_else(sandbox))
        kept = path.read_bytes()
        master, slave = pty.openpty()
        try:
            async with logging_in(tmp_path, oauth(sandbox), stdin=slave) as login:
                os.write(master, (await allowed(await login.url())).encode() + b"\n")
                assert login.process.stderr is not None
                while "Replace it? [y/N]" not in login.err:
                    line = (await login.process.stderr.readline()).decode()
                    assert line, f"it ended without a question: {login.err}"
                    login.err += line
                assert path.read_bytes() == kept, "nothing happens before it is answered"
                os.write(master, typed.encode())
                code = await login.end()
        finally:
            os.close(master)
            os.close(slave)
        assert code == (0 if replaced else 1), login.err
        assert (path.read_bytes() != kept) == replaced
        # With a yes there are two, for the old one is somebody else's; with a no only that one is left.
        assert sandbox.alive() == (2 if replaced else 1)


@pytest.mark.parametrize(
    ("known", "arguments", "code"),
    [(True, [], 1), (True, ["--replace"], 0), (False, [], 0)],
    ids=["over a known login", "over a known login, told to", "over a login of nobody knows whom"],
)
async def test_a_login_of_which_it_could_not_be_asked_whose_it_is(
    tmp_path: Path, known: bool, arguments: list[str], code: int
) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        before = of_somebody(sandbox) if known else replace(of_somebody(sandbox), user_id=None, team_id=None)
        await put(FileStore(path), before)
        kept = path.read_bytes()
        sandbox.fault("status=403;times=9", path="/v2/me.json")
        out, err = await login_ends(tmp_path, oauth(sandbox), *arguments, code=code)
        after = await kept_in(FileStore(path))
        assert after is not None
        if code:
            assert "--replace" in err
            assert path.read_bytes() == kept
            assert sandbox.alive() == 1
        else:
            assert "could not be looked up" in out
            assert (after.user_id, after.team_id) == (None, None)
            assert before.is_older_than(after)
        assert await works(sandbox, after)


async def test_a_login_over_one_that_does_not_open_is_refused_before_the_browser_and_sets_it_aside_when_told_to(
    tmp_path: Path,
) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path, given(FIRST)), record := of_somebody(sandbox))
        sealed = path.read_bytes()
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY": SECOND}
        _, err = await command("login", "--no-browser", home=tmp_path, env=env, code=1)
        assert "/oauth/authorize" not in err
        assert "--replace" in err
        assert path.read_bytes() == sealed
        await login_ends(tmp_path, env, "--replace", code=0)
        (aside,) = path.parent.glob("default.json.aside-*")
        assert aside.read_bytes() == sealed
        assert aside.stat().st_mode & 0o777 == 0o600
        assert await kept_in(FileStore(aside, given(FIRST))) == record
        assert await works(sandbox, await kept_in(FileStore(path, given(SECOND))))


async def test_a_damaged_login_is_set_aside_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), of_somebody(sandbox))
        damaged = path.read_bytes()[:-40]
        path.write_bytes(damaged)
        _, err = await login_ends(tmp_path, oauth(sandbox), code=0)
        (aside,) = path.parent.glob("default.json.aside-*")
        assert aside.read_bytes() == damaged
        assert await works(sandbox, await kept_in(FileStore(path)))
        assert "damaged" in err
        assert str(aside) in err, "where it is now"


async def test_a_login_never_takes_the_place_of_another_profiles(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := replace(of_somebody(sandbox), profile="work"))
        env = {**oauth(sandbox), "SLPROXY_STORE__PATH": str(path)}
        for arguments in ([], ["--replace"]):
            _, err = await login_ends(tmp_path, env, *arguments, code=1)
            assert "the profile work" in err
            assert await kept_in(FileStore(path)) == record
            assert sandbox.alive() == 1
        assert await works(sandbox, record)


async def test_a_login_that_cannot_be_kept_is_revoked_and_the_one_before_stays(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := of_somebody_else(sandbox))
        kept = path.read_bytes()
        # Rights would not keep root from writing; here no file may grow, as on a disk that is full.
        _, err = await login_ends(tmp_path, oauth(sandbox), "--replace", code=1, shell="ulimit -f 0")
        assert f"Cannot write {path}" in err
        assert path.read_bytes() == kept
        assert sandbox.alive() == 1
        assert await works(sandbox, record)
        assert [each.name for each in path.parent.iterdir() if ".lock" not in each.name] == ["default.json"]
