"""Processes that share one login: each of them serves, and one of them renews."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from slproxy.config import Secret
from slproxy.sandbox import Options, Sandbox
from slproxy.store import FileStore, TokenCipher, TokenStore
from slproxy.store.redis import RedisStore
from tests.support.rig import PATIENCE, Program, get, login_at, program, raw, redis_server, running_sandbox

pytestmark = pytest.mark.heavy

PROCESSES = 4
# Of a token, in seconds; and of the load.
LIFE, LOAD = 2.0, 30.0
# More than the load takes of one minute: this is about tokens, not about the budget.
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


def settings_for(place: Place, sandbox: Sandbox, **more: str) -> dict[str, str]:
    """Return an environment for a proxy with a login of the sandbox's client, kept in that place."""
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


@dataclass
class Load:
    """Asks one proxy again and again, GET and POST in turn, until the block ends; keeps what was answered.

    It does not wait for one reply before it sends the next request: a proxy that stands still is seen as one.
    """

    url: str
    every: float = 0.1
    posted: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _running: asyncio.Task[None] | None = None

    @property
    def failed(self) -> dict[str, int]:
        return {answer: count for answer, count in self.answers.items() if answer != "200"}

    @property
    def served(self) -> int:
        return self.answers["200"]

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait({self._running})
        if self._asking:
            await asyncio.wait(self._asking)  # each of them is bounded

    async def _run(self) -> None:
        while True:
            task = asyncio.create_task(self.ask())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
            await asyncio.sleep(self.every)

    async def ask(self) -> None:
        """Send the next request, and count what came of it."""
        number = next(self._numbers)
        request = get("/v2/me.json") if number % 2 else self._post(f"{id(self)}-{number}@race.example")
        try:
            reply = await raw(self.url, request)
        except (OSError, EOFError, TimeoutError) as error:
            self.answers[repr(error)] += 1
        else:
            status = reply.head.status
            self.answers["200" if status == 200 else f"{status} {reply.body.decode()}"] += 1

    def _post(self, address: str) -> bytes:
        self.posted.append(address)
        body = json.dumps({"email_address": address, "last_name": "Racer"}).encode()
        return get("/v2/people.json", "Content-Type: application/json", method="POST", body=body)


def carried_out(sandbox: Sandbox) -> Counter[str]:
    """Return how often each person was made."""
    return Counter(
        json.loads(request.body)["email_address"]
        for request in sandbox.requests
        if request.method == "POST" and request.status == 200
    )


async def race(place: Place, home: Path) -> None:
    async with running_sandbox(Options(token_lifetime=LIFE, budget=NO_LIMIT)) as sandbox:
        await place.store.write(login_at(sandbox))
        env = settings_for(place, sandbox)
        async with replicas(PROCESSES, env, home=home) as proxies, AsyncExitStack() as stack:
            began = time.time()
            loads = [await stack.enter_async_context(Load(proxy.url)) for proxy in proxies]
            await asyncio.sleep(LOAD)
            await stack.aclose()
            ended = time.time()
            # A renewal that is under way at SIGTERM is finished and written (docs/contract.md, Shutdown).
            assert await asyncio.gather(*(proxy.stop() for proxy in proxies)) == [0] * PROCESSES

        assert [load.failed for load in loads] == [{}] * PROCESSES
        # Each of them had its share, whoever renewed.
        assert min(load.served for load in loads) > LOAD / Load.every / 3
        assert carried_out(sandbox) == Counter(address for load in loads for address in load.posted)
        assert {(request.grant_type, request.status) for request in sandbox.token_requests} == {("refresh_token", 200)}
        renewals, lives = (
            sum(began <= request.at <= ended for request in sandbox.token_requests),
            (ended - began) / LIFE,
        )
        assert renewals <= lives + 1
        # And not far fewer: nobody got by on a token that was over.
        assert renewals >= lives / 2
        kept = await place.store.read()
        assert kept is not None
        assert not kept.refused
        assert kept.generation == len(sandbox.token_requests) + 1
        for proxy in proxies:
            assert "invalid_grant" not in proxy.output
            assert "Traceback" not in proxy.output


async def test_four_processes_on_one_login_of_two_seconds_fail_no_request_and_renew_once_a_life(tmp_path: Path) -> None:
    # On a file and on Redis at the same time: each has a SalesLoft of its own, and this takes half a minute.
    (tmp_path / "redis").mkdir()
    (tmp_path / "file").mkdir()
    with redis_server() as url:
        async with in_redis(url) as shared, asyncio.TaskGroup() as group:
            group.create_task(race(in_a_file(tmp_path / "file" / "state" / "token.json"), tmp_path / "file"))
            group.create_task(race(shared, tmp_path / "redis"))


@pytest.fixture(params=["file", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "file":
        yield in_a_file(tmp_path / "state" / "token.json")
        return
    with redis_server() as url:
        async with in_redis(url) as made:
            yield made


async def test_a_token_that_the_server_ended_is_renewed_once_for_80_requests_in_four_processes(
    place: Place, tmp_path: Path
) -> None:
    async with running_sandbox() as sandbox:
        login = login_at(sandbox)
        await place.store.write(login)
        async with replicas(PROCESSES, settings_for(place, sandbox), home=tmp_path) as proxies:
            loads = [Load(proxy.url) for proxy in proxies]
            await asyncio.gather(*(load.ask() for load in loads))
            sandbox.expire(login.token.access_token)
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(load.ask() for load in loads for _ in range(20)))

        assert [load.answers for load in loads] == [{"200": 21}] * PROCESSES
        assert carried_out(sandbox) == Counter(address for load in loads for address in load.posted)
        assert [(request.grant_type, request.status) for request in sandbox.token_requests] == [("refresh_token", 200)]
        kept = await place.store.read()
        assert kept is not None
        assert kept.generation == 2
