"""A running proxy follows its stored login: ``slproxy login`` and ``logout`` reach it, and so does nothing else."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import keyring
import pytest

from slproxy.sandbox import Sandbox
from slproxy.store import FileStore, Record
from slproxy.store.keyring import KeyringStore
from slproxy.store.redis import WATCH_INTERVAL as REDIS_INTERVAL
from slproxy.store.token_store import WATCH_INTERVAL
from tests.support.commands import free_port, log_in, oauth, run_here, sandboxed, state_of, system_keyring, token_file
from tests.support.logins import KEYRING, put
from tests.support.programs import Program, program, verified
from tests.support.raw_http import get, raw
from tests.support.replicas import Place, environment_of, replicas
from tests.support.sandboxes import login_at, running_sandbox
from tests.support.waiting import SLACK, until

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("chosen_keyring")]

REPLICAS = 20


async def answer(server: Program) -> str:
    """Return what a client gets: the status, or the type of the proxy's own answer."""
    found = await raw(server.url, get("/v2/people"))
    return str(json.loads(found.body)["type"]) if found.head.status == 503 else str(found.head.status)


async def ready(server: Program) -> int:
    return (await raw(server.url, get("/_slproxy/readyz"))).head.status


async def follows(server: Program, expected: str, *, within: float = WATCH_INTERVAL) -> None:
    """Wait until clients get something else than before: by the next look at the store, for which nobody asks."""
    async with asyncio.timeout(within + SLACK):
        while (await ready(server) == 200) != (expected == "200") or await answer(server) != expected:
            await asyncio.sleep(0.05)


async def acts_as(server: Program, sandbox: Sandbox, record: Record) -> None:
    """Wait until requests carry the token of a login, and see that nothing else was sent meanwhile by a client."""
    async with asyncio.timeout(WATCH_INTERVAL + SLACK):
        while True:
            assert await answer(server) == "200"
            if sandbox.requests[-1].token == record.token.access_token:
                return
            await asyncio.sleep(0.05)


def said(server: Program, words: str) -> int:
    return sum(words in line for line in server.errors)


def events(audit: Path, *kinds: str) -> list[str]:
    lines = map(json.loads, audit.read_text().splitlines())
    return [line["kind"] for line in lines if line.get("kind") in kinds]


async def stored(home: Path) -> Record:
    record = await FileStore(token_file(home)).read()
    assert record is not None
    return record


@asynccontextmanager
async def serving(home: Path, sandbox: Sandbox, **more: str) -> AsyncIterator[tuple[Program, dict[str, str], Path]]:
    """Serve with a login that is stored, in the file of ``home`` if nothing else is said, and known to be in use."""
    audit = home / "audit.jsonl"
    env = oauth(sandbox, SLPROXY_LOG__AUDIT=str(audit), **more)
    async with program("serve", home=home, env=env) as server:
        assert "Authenticated as" in await verified(server)
        yield server, {name: each for name, each in env.items() if name != "SLPROXY_LOG__AUDIT"}, audit


async def test_a_logout_that_could_not_revoke_ends_the_login_in_a_running_proxy_all_the_same(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        down = f"http://127.0.0.1:{free_port()}"
        await put(FileStore(token_file(tmp_path)), record := replace(login_at(sandbox), accounts_url=down))
        async with serving(tmp_path, sandbox, SLPROXY_UPSTREAM__ACCOUNTS_URL=down) as (server, env, audit):
            code, out, _ = await run_here("logout", home=tmp_path, env=env)
            assert (code, out.startswith("Deleted here, but not revoked")) == (0, True)
            assert sandbox.accepts(record.token.access_token)
            await follows(server, "login-required")
            assert events(audit, "login", "logout") == ["logout"]
            assert said(server, "Not logged in") == 1
            sent = len(sandbox.requests)
            assert await answer(server) == "login-required"
            assert len(sandbox.requests) == sent


async def test_a_login_beside_a_running_proxy_is_what_requests_act_as_and_a_logout_ends_both(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path)), replace(login_at(sandbox), user_id=99))
        async with serving(tmp_path, sandbox) as (server, env, audit):
            await log_in(tmp_path, env, "--replace")
            own = len(sandbox.requests)
            await until(lambda: said(server, "Authenticated as") == 2)
            # One request of the proxy's own names who it is; nobody asked for a token.
            assert [each.target for each in sandbox.requests[own:]] == ["/v2/me.json"]
            assert [each.grant_type for each in sandbox.token_requests] == ["authorization_code"]
            assert (await state_of(server))["token"]["user_id"] == 1  # type: ignore[index]
            await acts_as(server, sandbox, await stored(tmp_path))
            assert events(audit, "login", "logout", "renewal") == ["login"]
            assert (await run_here("logout", home=tmp_path, env=env)).code == 0
            await follows(server, "login-required")
            assert events(audit, "login", "logout") == ["login", "logout"]
            await log_in(tmp_path, env)
            await follows(server, "200")
            await acts_as(server, sandbox, await stored(tmp_path))
            await until(lambda: said(server, "Authenticated as") == 3)


async def test_a_login_that_its_store_has_lost_is_stored_again_and_can_be_logged_out(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := login_at(sandbox))
        async with serving(tmp_path, sandbox) as (server, env, audit):
            shutil.rmtree(path.parent)
            await until(path.exists)
            assert (await stored(tmp_path)).token == record.token
            assert said(server, "has lost the login in use") == 1
            assert await answer(server) == "200"
            assert events(audit, "login", "logout", "renewal") == []
            assert (await run_here("logout", home=tmp_path, env=env)).code == 0
            await follows(server, "login-required")
            assert not path.exists()


async def test_a_renewal_by_another_process_is_taken_over_and_is_no_login(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path)), record := login_at(sandbox))
        async with serving(tmp_path, sandbox) as (server, _, audit):
            await put(FileStore(token_file(tmp_path)), renewed := record.renewed(login_at(sandbox).token))
            sent = len(sandbox.requests)
            await acts_as(server, sandbox, renewed)
            # A login, found after it, would have been told by now.
            await put(FileStore(token_file(tmp_path)), replace(login_at(sandbox), login=record.login + 1))
            await until(lambda: said(server, "Authenticated as") == 2)
            assert events(audit, "login", "logout", "renewal") == ["login"]
            assert [each.target for each in sandbox.requests[sent:]].count("/v2/me.json") == 1
            assert sandbox.token_requests == []


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: (path.write_bytes(path.read_bytes() + b"\n"), path.chmod(0o644)), id="it is refused"),
        pytest.param(lambda path: path.write_text("{"), id="it is damaged"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="it is no file"),
    ],
)
async def test_a_store_that_cannot_be_read_takes_no_token_away(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := login_at(sandbox))
        async with serving(tmp_path, sandbox) as (server, env, audit):
            harm(path)
            await until(lambda: said(server, "The login in use is kept") == 1)
            await acts_as(server, sandbox, record)
            assert await ready(server) == 200
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            await log_in(tmp_path, env)
            await acts_as(server, sandbox, await stored(tmp_path))
            assert said(server, "The login in use is kept") == 1, "said once, however often it was looked at"
            assert events(audit, "login", "logout") == ["login"]


async def test_a_login_in_a_keyring_is_followed(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        keyring.set_keyring(system_keyring(tmp_path))
        more = {**KEYRING, "SLPROXY_STORE__KIND": "keyring"}
        store = KeyringStore("default", lock_path=token_file(tmp_path).with_suffix(".keyring.lock"))
        async with store.lock():
            await store.write(login_at(sandbox))
        async with serving(tmp_path, sandbox, **more) as (server, env, _):
            assert (await run_here("logout", home=tmp_path, env=env)).code == 0
            await follows(server, "login-required")
            await log_in(tmp_path, env)
            await follows(server, "200")


async def test_twenty_replicas_see_a_logout(place: Place, tmp_path: Path) -> None:
    async with running_sandbox() as sandbox:
        await place.store.write(login_at(sandbox))
        async with replicas(REPLICAS, environment_of(place, sandbox), home=tmp_path) as proxies:
            assert [await answer(proxy) for proxy in proxies] == ["200"] * REPLICAS
            async with place.store.lock():
                await place.store.delete()
            await asyncio.gather(*(follows(proxy, "login-required", within=REDIS_INTERVAL) for proxy in proxies))
            assert sandbox.token_requests == []
