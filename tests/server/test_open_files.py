"""File descriptors: the proxy keeps within what it may open, and serves all the same."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from pathlib import Path

import pytest

from slproxy.server.open_files import MARGIN, Room, shared_out
from tests.support.commands import pointed_at
from tests.support.programs import Program, program
from tests.support.raw_http import get, port_of, raw
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("files", "room"),
    [
        (2132, Room(clients=1000, past_limit=1000, upstream=100)),
        (1024, Room(clients=594, past_limit=298, upstream=100)),
        (64, Room(clients=16, past_limit=8, upstream=8)),
        (MARGIN, Room(clients=1, past_limit=1, upstream=1)),
    ],
)
def test_what_the_process_may_open_is_shared_out(files: int, room: Room) -> None:
    assert shared_out(files, clients=1000, upstream=100) == room


def open_files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


async def idle_clients(stack: contextlib.ExitStack, port: int, count: int) -> None:
    """Connect and say nothing."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))


async def is_served_beside_idle_clients(running: Program, idle: int) -> None:
    """Connect more clients than there are descriptors, and ask as somebody who comes after them."""
    with contextlib.ExitStack() as stack:
        await idle_clients(stack, port_of(running.url), idle)
        for _ in range(3):
            assert (await raw(running.url, get("/v2/a"))).head.status == 200
    assert (await raw(running.url, get("/v2/a"))).head.status == 200
    said = "\n".join(running.errors)
    assert "Traceback" not in said
    assert len(said) < 4096, said


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets the limits of a process that runs")
async def test_who_asks_is_served_when_idle_clients_have_taken_all_descriptors(tmp_path: Path) -> None:
    """asyncio alone logs a traceback for each of a thousand tries to accept (python/cpython#151615)."""
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY="ak_" + "0a1b2c" * 8)
        async with program("serve", home=tmp_path, env=env) as running:
            assert (await raw(running.url, get("/v2/a"))).head.status == 200
            limit = open_files(running.process.pid) + 24
            resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
            await is_served_beside_idle_clients(running, 150)
            assert await running.stop() == 0
        assert sum("cannot accept connections: Too many open files" in line for line in running.errors) == 1


async def test_a_start_with_few_descriptors_keeps_within_them_and_says_so(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY="ak_" + "0a1b2c" * 8)
        few = ("sh", "-c", 'ulimit -n 64 && exec "$@"', "sh")
        async with program("serve", home=tmp_path, env=env, before=few) as running:
            await until(lambda: any("limits.max_connections" in line for line in running.errors))
            await is_served_beside_idle_clients(running, 150)
            assert await running.stop() == 0
        assert not any("Too many open files" in line for line in running.errors)
