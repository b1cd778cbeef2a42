"""The whole recipe, through real sockets: what the README promises, with many clients at a time."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.clock import Clock
from slproxy.config import AuthSettings, Secret
from slproxy.http import by_name
from slproxy.sandbox import Options, Sandbox
from slproxy.store import FileStore, MemoryStore
from tests.support.clock import FakeTime
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until

MANY = 200


async def ask_many(url: str, requests: list[bytes]) -> list[Message]:
    return list(await asyncio.gather(*(raw(url, request) for request in requests)))


async def test_the_path_and_query_reach_the_upstream_byte_for_byte() -> None:
    target = "/v2/people.json?ids[]=1&ids[]=2&q=a+b%20c%2F&updated_at[gt]=2026-01-01T00:00:00.000000-05:00"
    async with ScriptedUpstream() as upstream, proxy(settings_for(upstream.url)) as app:
        await raw(app.urls[0], get(target))
    assert upstream.seen[0].head.first == f"GET {target} HTTP/1.1"


async def test_200_requests_at_the_moment_the_token_dies_are_cured_by_one_token_request(sandbox: Sandbox) -> None:
    store = MemoryStore(login_at(sandbox))
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
    async with proxy(settings, store=store) as app:
        record = await store.read()
        assert record is not None
        sandbox.expire(record.token.access_token)
        answers = await ask_many(app.urls[0], [get("/v2/me.json")] * MANY)
    assert Counter(answer.head.status for answer in answers) == {200: MANY}
    assert [request.grant_type for request in sandbox.token_requests] == ["refresh_token"]


async def test_200_bodies_arrive_whole_and_once_after_the_token_died(sandbox: Sandbox) -> None:
    bodies = [json.dumps({"name": f"Stage {n}", "padding": f"{n:04d}" * 2500}).encode() for n in range(MANY)]
    store = MemoryStore(login_at(sandbox))
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
    async with proxy(settings, store=store) as app:
        record = await store.read()
        assert record is not None
        sandbox.expire(record.token.access_token)
        requests = [
            get("/v2/person_stages.json", "Content-Type: application/json", method="POST", body=body) for body in bodies
        ]
        answers = await ask_many(app.urls[0], requests)
    assert Counter(answer.head.status for answer in answers) == {200: MANY}
    carried_out = Counter(request.body for request in sandbox.requests if request.status == 200)
    assert carried_out == Counter(bodies)
    assert len(sandbox.token_requests) == 1


async def test_calls_in_flight_during_a_background_renewal_use_its_token_without_another(sandbox: Sandbox) -> None:
    store = MemoryStore(login_at(sandbox))
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
    async with proxy(settings, store=store) as app:
        slow = [get("/v2/me.json", "X-Sandbox-Fault: slow=0.2")] * 50
        in_flight = asyncio.create_task(ask_many(app.urls[0], slow))
        await until(lambda: len(sandbox.requests) >= 50)
        await app.credentials.renew(stale=await app.credentials.bearer())
        after = await ask_many(app.urls[0], [get("/v2/me.json")] * 50)
        answers = [*await in_flight, *after]
    assert Counter(answer.head.status for answer in answers) == {200: 100}
    assert len(sandbox.token_requests) == 1


async def test_a_client_that_leaves_during_a_renewal_does_not_lose_the_rotated_token(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    store = FileStore(folder / "token.json")
    await store.write(login_at(sandbox))
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
    sandbox.fault("slow=0.3", on="token")
    async with proxy(settings, store=store) as app:
        record = await store.read()
        assert record is not None
        sandbox.expire(record.token.access_token)
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
        writer.write(get("/v2/me.json"))
        await until(lambda: len(sandbox.token_requests) == 1)
        writer.transport.abort()
    renewed = await store.read()
    assert renewed is not None
    assert renewed.generation == record.generation + 1
    async with proxy(settings, store=store) as app:
        answer = await raw(app.urls[0], get("/v2/me.json"))
    assert answer.head.status == 200
    assert len(sandbox.token_requests) == 1


@pytest.mark.parametrize("rotation", ["immediate", "on-use"])
async def test_the_token_is_renewed_in_the_background_before_it_expires(rotation: str) -> None:
    options = Options(token_lifetime=1.0, rotation="immediate" if rotation == "immediate" else "on-use")
    async with running_sandbox(options) as sandbox:
        store = MemoryStore(login_at(sandbox))
        settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
        async with proxy(settings, store=store) as app:
            await until(lambda: len(sandbox.token_requests) >= 2)
            answer = await raw(app.urls[0], get("/v2/me.json"))
    assert answer.head.status == 200
    # Nobody asked for anything while the token was renewed, and no request met an expired one.
    assert [request.status for request in sandbox.requests] == [200]


async def test_a_rotated_refresh_token_is_stored_before_its_access_token_is_used(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "token.json"
    store = FileStore(path)
    stored_when_seen: list[bool] = []

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bearer = (message.head.get("Authorization") or "").removeprefix("Bearer ")
        stored_when_seen.append(json.loads(path.read_text())["access_token"] == bearer)
        writer.write(reply())

    async with ScriptedUpstream(script) as upstream:
        await store.write(replace(login_at(sandbox, lifetime=-1.0), api_url=upstream.url))
        settings = settings_for(upstream.url, accounts=sandbox.url, auth=sandbox_auth(sandbox))
        async with proxy(settings, store=store) as app:
            await raw(app.urls[0], get("/v2/me.json"))
    assert stored_when_seen == [True]


async def test_the_same_token_file_is_used_again_after_a_restart(sandbox: Sandbox, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "state" / "token.json")
    await store.write(login_at(sandbox))
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
    for _ in range(2):
        async with proxy(settings, store=store) as app:
            answer = await raw(app.urls[0], get("/v2/me.json"))
            assert answer.head.status == 200
    assert not sandbox.token_requests


async def test_client_credentials_work_end_to_end(sandbox: Sandbox) -> None:
    auth = AuthSettings(client_id=sandbox.options.client_id, client_secret=Secret(sandbox.options.client_secret))
    async with proxy(settings_for(sandbox.url, auth=auth)) as app:
        answers = await ask_many(app.urls[0], [get("/v2/me.json")] * 20)
        sandbox.revoke_all()
        answers += await ask_many(app.urls[0], [get("/v2/me.json")] * 20)
        assert app.credentials.selection.grant == "client_credentials"
    assert Counter(answer.head.status for answer in answers) == {200: 40}
    assert [request.grant_type for request in sandbox.token_requests] == ["client_credentials"] * 2


async def test_an_api_key_works_end_to_end_and_asks_for_no_token(sandbox: Sandbox) -> None:
    auth = AuthSettings(api_key=Secret(sandbox.options.api_key))
    async with proxy(settings_for(sandbox.url, auth=auth)) as app:
        answer = await raw(app.urls[0], get("/v2/me.json"))
    assert json.loads(answer.body)["data"]["name"] == "Jane Smith"
    assert not sandbox.token_requests


TOKEN_FAULTS = [
    ("invalid_grant", "login-required", "slproxy login"),
    ("invalid_client", "credentials-refused", "SALESLOFT_CLIENT_ID"),
    ("down", "token-endpoint-down", "accounts_url"),
    ("html-200", "token-endpoint-down", "accounts_url"),
    ("status=500", "token-endpoint-down", "accounts_url"),
]


@pytest.mark.parametrize(("fault", "problem", "hint"), TOKEN_FAULTS, ids=[row[0] for row in TOKEN_FAULTS])
async def test_a_renewal_that_fails_gives_the_error_that_the_contract_names(
    sandbox: Sandbox, fault: str, problem: str, hint: str
) -> None:
    store = MemoryStore(login_at(sandbox, lifetime=-1.0))
    sandbox.fault(f"{fault};times=1000", on="token")
    fake = FakeTime(now=time.time())
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
    async with proxy(settings, store=store, clock=background_waits(fake)) as app:
        answer = await raw(app.urls[0], get("/v2/me.json"))
        ready = await raw(app.urls[0], get("/_slproxy/readyz"))
    document = json.loads(answer.body)
    assert (answer.head.status, document["type"]) == (503, problem)
    assert hint in document["hint"]
    assert (ready.head.status, json.loads(ready.body)["type"]) == (503, problem)
    assert (answer.head.get("Retry-After") is not None) == (problem == "token-endpoint-down")


def background_waits(fake: FakeTime) -> Clock:
    """Return a clock on which retries take no time, and the background renewal never comes to its second turn."""

    async def sleep(seconds: float) -> None:
        task = asyncio.current_task()
        if task is not None and "keep the token fresh" in task.get_name():
            await asyncio.Event().wait()
        await fake.sleep(seconds)

    return Clock(now=lambda: fake.now, monotonic=lambda: fake.now, sleep=sleep, jitter=lambda: fake.die)


async def test_a_login_made_beside_a_running_proxy_is_taken_up(sandbox: Sandbox) -> None:
    store = MemoryStore()
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
    async with proxy(settings, store=store) as app:
        before = await raw(app.urls[0], get("/v2/me.json"))
        await store.write(login_at(sandbox))
        after = await raw(app.urls[0], get("/v2/me.json"))
    assert (before.head.status, json.loads(before.body)["type"]) == (503, "login-required")
    assert after.head.status == 200


async def test_a_token_that_is_still_valid_stays_in_use_while_the_token_endpoint_is_down(sandbox: Sandbox) -> None:
    store = MemoryStore(login_at(sandbox, lifetime=600.0))
    sandbox.fault("down;times=1000", on="token")
    settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox, leeway=3600.0))
    fake = FakeTime(now=time.time() + 580.0)  # well inside the margin: the background renewal has begun to fail
    async with proxy(settings, store=store, clock=background_waits(fake)) as app:
        await until(lambda: app.credentials.snapshot()["last_renewal"] is not None)
        answer = await raw(app.urls[0], get("/v2/me.json"))
        ready = await raw(app.urls[0], get("/_slproxy/readyz"))
    assert sandbox.token_requests
    assert (answer.head.status, ready.head.status) == (200, 200)


async def test_the_reply_to_a_renewal_was_lost_and_a_deferred_rotation_recovers() -> None:
    async with running_sandbox(Options(rotation="on-use")) as sandbox:
        store = MemoryStore(login_at(sandbox, lifetime=-1.0))
        sandbox.fault("lost", on="token")
        settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
        async with proxy(settings, store=store) as app:
            answer = await raw(app.urls[0], get("/v2/me.json"))
    assert answer.head.status == 200
    assert len(sandbox.token_requests) == 2


async def test_the_budget_that_the_upstream_told_last_is_in_the_status(sandbox: Sandbox) -> None:
    auth = AuthSettings(api_key=Secret(sandbox.options.api_key))
    async with proxy(settings_for(sandbox.url, auth=auth)) as app:
        answer = await raw(app.urls[0], get("/v2/me.json"))
        status = await raw(app.urls[0], get("/_slproxy/status.json"))
    told = json.loads(status.body)["budget"]
    assert str(told["remaining"]) == answer.head.get("x-ratelimit-remaining-minute")
    assert told["limit"] == 600


def test_names_of_headers_are_looked_up_in_lower_case() -> None:
    assert by_name([(b"HOST", b"a"), (b"host", b"b")]) == {b"host": [b"a", b"b"]}
