"""``slproxy store move``: the login goes whole from one store to another, or stays."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from slproxy.store import FileStore
from tests.support.commands import (
    free_port,
    oauth,
    sandboxed,
    token_file,
)
from tests.support.logins import (
    FIRST,
    KEYRING,
    SECOND,
    command,
    given,
    kept_in,
    no_token_in,
    of_somebody,
    put,
    serves_and_renews,
    store_of,
    stores,
)
from tests.support.programs import environment, program
from tests.support.raw_http import port_of
from tests.support.sandboxes import login_at
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("chosen_keyring")]

PLAIN = [
    (source, target, None)
    for source in ("file", "keyring", "redis")
    for target in ("file", "keyring", "redis")
    if source != target
]
ENCRYPTED = [("file", "redis", FIRST), ("redis", "file", FIRST), ("keyring", "redis", FIRST)]


@pytest.mark.parametrize(
    ("source", "target", "key"),
    [
        pytest.param(*each, id=f"{each[0]} to {each[1]}, {'encrypted' if each[2] else 'plain'}")
        for each in [*PLAIN, *ENCRYPTED]
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
        encrypted = token_file(tmp_path).read_bytes()
        env = {**oauth(sandbox), **stores("file", "redis://unused", FIRST)}
        move = ("store", "move", "--from", "keyring", "--to", "file")
        _, err = await command(*move, home=tmp_path, env=env, code=1, hidden=(record,))
        assert "cannot be decrypted" in err
        assert token_file(tmp_path).read_bytes() == encrypted
        assert await kept_in(store_of("keyring", tmp_path)) == record


async def test_a_move_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = {**oauth(sandbox), **KEYRING}
        cases = [
            (["--to", "file"], {}, 2, "already stored in file"),
            (["--to", "redis"], {}, 2, "SLPROXY_STORE__REDIS_URL"),
            (["--from", "redis", "--to", "keyring"], {}, 2, "SLPROXY_STORE__REDIS_URL"),
            (["--to", "memory"], {}, 2, "It is one of file, keyring, redis"),
            (["--to", "keyring"], {}, 1, "has no login"),
            # A login of another client is not moved: it is not this one's to take.
            (["--to", "keyring"], {"SALESLOFT_CLIENT_ID": "another"}, 1, "of the client "),
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
