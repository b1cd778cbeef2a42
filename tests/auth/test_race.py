"""Processes that share one login: each of them serves, and one of them renews."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from slproxy.sandbox import Options
from tests.support.load import Load, carried_out
from tests.support.redis import redis_server
from tests.support.replicas import NO_LIMIT, Place, environment_of, in_a_file, in_redis, replicas
from tests.support.sandboxes import login_at, running_sandbox
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

PROCESSES = 4
# Of a token, in seconds; and of the load, by default and with --long.
LIFE, LOAD, LONG_LOAD = 2.0, 10.0, 30.0


async def race(place: Place, home: Path, *, seconds: float) -> None:
    async with running_sandbox(Options(token_lifetime=LIFE, budget=NO_LIMIT)) as sandbox:
        await place.store.write(login_at(sandbox))
        env = environment_of(place, sandbox)
        async with replicas(PROCESSES, env, home=home) as proxies, AsyncExitStack() as stack:
            began = time.time()
            loads = [await stack.enter_async_context(Load(proxy.url)) for proxy in proxies]
            await asyncio.sleep(seconds)
            await stack.aclose()
            ended = time.time()
            # A renewal that is under way at SIGTERM is finished and written (docs/contract.md, Shutdown).
            assert await asyncio.gather(*(proxy.stop() for proxy in proxies)) == [0] * PROCESSES

        assert [load.failed for load in loads] == [{}] * PROCESSES
        # Each of them had its share, whoever renewed.
        assert min(load.served for load in loads) > seconds / Load.every / 3
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


async def test_four_processes_on_one_login_of_two_seconds_fail_no_request_and_renew_once_a_life(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = LONG_LOAD if pytestconfig.getoption("--long") else LOAD
    # On a file and on Redis at the same time: each has a SalesLoft of its own, and this mostly waits.
    (tmp_path / "redis").mkdir()
    (tmp_path / "file").mkdir()
    with redis_server() as url:
        async with in_redis(url) as shared, asyncio.TaskGroup() as group:
            group.create_task(
                race(in_a_file(tmp_path / "file" / "state" / "token.json"), tmp_path / "file", seconds=seconds)
            )
            group.create_task(race(shared, tmp_path / "redis", seconds=seconds))


async def test_a_token_that_the_server_ended_is_renewed_once_for_80_requests_in_four_processes(
    place: Place, tmp_path: Path
) -> None:
    async with running_sandbox() as sandbox:
        login = login_at(sandbox)
        await place.store.write(login)
        async with replicas(PROCESSES, environment_of(place, sandbox), home=tmp_path) as proxies:
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
