"""A reader of the log who stalls, leaves or comes back: requests do not wait for it, nor does the end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slproxy.observe.background_writer import BATCH, CAPACITY
from tests.support.commands import KEY, pointed_at
from tests.support.programs import environment, spawn
from tests.support.raw_http import get, port_of, read_message
from tests.support.waiting import PATIENCE, SOON

pytestmark = pytest.mark.heavy

FILLING = b"x" * 4095 + b"\n"


@pytest.fixture
def stalled() -> Iterator[tuple[int, int]]:
    """Give a pipe that takes no more."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, FILLING)
    except BlockingIOError:
        os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)


@asynccontextmanager
async def serving(home: Path, stderr: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    env = pointed_at("http://127.0.0.1:9", SALESLOFT_API_KEY=KEY)
    process = await spawn(["serve"], home, env, stdin=asyncio.subprocess.DEVNULL, stderr=stderr)
    os.close(stderr)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            said = (await process.stdout.readline()).decode()
            yield process, said.split()[2].rstrip(".")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(url: str, times: int) -> None:
    """Ask for a page many times; each must be answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    for _ in range(times // 50):
        writer.write(get("/_slproxy/status.json") * 50)
        for _ in range(50):
            assert (await read_message(reader)).head.status == 200
    writer.close()


async def test_a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end(
    tmp_path: Path, stalled: tuple[int, int]
) -> None:
    async with serving(tmp_path, stalled[1]) as (process, url):
        await ask(url, 500)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SOON):
            assert await process.wait() == 0


async def test_who_comes_back_to_the_log_reads_whole_lines_and_how_many_were_dropped(
    tmp_path: Path, stalled: tuple[int, int]
) -> None:
    reading, writing = stalled
    filled = fcntl.fcntl(writing, getattr(fcntl, "F_GETPIPE_SZ", 1032))
    async with serving(tmp_path, writing) as (process, url):
        asked = 50 * ((CAPACITY + BATCH // 100) // 50 + 2)
        await ask(url, asked)
        told = b""
        while len(told) < filled + 100 or not told.endswith(b"\n") or b"dropped" not in told:
            told += await asyncio.to_thread(os.read, reading, 1 << 20)
        await ask(url, 50)
        process.send_signal(signal.SIGTERM)
        while part := await asyncio.to_thread(os.read, reading, 1 << 20):
            told += part
        assert await process.wait() == 0
    lines = [json.loads(line) for line in told[filled:].splitlines() if line.startswith(b"{")]
    notes = [line["message"] for line in lines if "dropped" in line.get("message", "")]
    assert len(notes) == 1
    # What else the proxy had to say may be among the dropped.
    assert 0 <= sum("path" in line for line in lines) + int(notes[0].split()[0]) - (asked + 50) <= 5
    assert lines[-1]["message"].startswith("shutting down")


async def test_a_log_whose_reader_has_gone_stops_neither_the_proxy_nor_its_way_down(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with serving(tmp_path, writing) as (process, url):
        for _ in range(3):
            await ask(url, 50)
            await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_command_whose_standard_error_is_closed_still_works(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"exec {sys.executable} -m slproxy config 2>&-"),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"listen.port" in out
