"""Bodies that do not fit: how much memory they take, and who waits for whom."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from tests.support.programs import program
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, read_message, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE, until

MIB = 1024 * 1024
CHUNK = bytes(range(256)) * 256  # 64 KiB
GROWTH = 32 * MIB


def peak_memory(pid: int) -> int:
    """Return the largest resident size that a process has had, in bytes (proc_pid_status(5), VmHWM)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def environment_of(upstream: ScriptedUpstream) -> dict[str, str]:
    return {
        "SALESLOFT_API_KEY": API_KEY,
        "SLPROXY_UPSTREAM__API_URL": upstream.url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": upstream.url,
        "SLPROXY_STORE__KIND": "memory",
    }


async def test_a_response_of_500_mb_passes_whole_in_little_memory(tmp_path: Path) -> None:
    chunks = 500 * MIB // len(CHUNK)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/large":
            writer.write(reply("200 OK", b"", f"Content-Length: {chunks * len(CHUNK)}", length=False))
            for _ in range(chunks):
                writer.write(CHUNK)
                await writer.drain()
        else:
            writer.write(reply())

    async with (
        ScriptedUpstream(script) as upstream,
        program("serve", "--port", "0", home=tmp_path, env=environment_of(upstream)) as running,
    ):
        await raw(running.url, get("/v2/small"))
        before = peak_memory(running.process.pid)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running.url))
        writer.write(get("/v2/large"))
        await reader.readuntil(b"\r\n\r\n")
        received, digest, expected = 0, hashlib.blake2b(), hashlib.blake2b()
        while received < chunks * len(CHUNK):
            data = await reader.read(MIB)
            assert data, "the body ended early"
            received += len(data)
            digest.update(data)
        writer.close()
        growth = peak_memory(running.process.pid) - before
    for _ in range(chunks):
        expected.update(CHUNK)
    assert digest.digest() == expected.digest()
    assert growth < GROWTH


async def test_an_upload_of_200_mb_passes_whole_in_little_memory(tmp_path: Path) -> None:
    chunks = 200 * MIB // len(CHUNK)
    received = hashlib.blake2b()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = int(message.head.get("Content-Length") or 0)
        while left:
            data = await reader.read(min(left, MIB))
            assert data, "the body ended early"
            left -= len(data)
            received.update(data)
        writer.write(reply())

    async with (
        ScriptedUpstream(script, whole=False) as upstream,
        program("serve", "--port", "0", home=tmp_path, env=environment_of(upstream)) as running,
    ):
        await raw(running.url, get("/v2/small"))
        before = peak_memory(running.process.pid)
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running.url))
        writer.write(get("/v2/up", f"Content-Length: {chunks * len(CHUNK)}", method="POST"))
        for _ in range(chunks):
            writer.write(CHUNK)
            await writer.drain()
        answer = await read_message(reader)
        writer.close()
        growth = peak_memory(running.process.pid) - before
    expected = hashlib.blake2b()
    for _ in range(chunks):
        expected.update(CHUNK)
    assert answer.head.status == 200
    # Larger than limits.replay_disk, so it went through once.
    assert answer.head.get("X-Slproxy-Attempts") == "1; not-replayable"
    assert received.digest() == expected.digest()
    assert growth < GROWTH


async def test_uploads_at_once_that_are_kept_for_a_retry_share_a_little_memory(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """300 of 1 MB in 256 MiB, with the defaults; fewer of them by default, and less."""
    many, total, most = (300, "64 MiB", 256 * MIB) if pytestconfig.getoption("--long") else (40, "4 MiB", 75 * MIB)
    upload = get("/v2/up", "Content-Length: 1000000", method="POST") + bytes(1_000_000)
    seen, go_on = 0, asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        await reader.readexactly(int(message.head.get("Content-Length") or 0))
        if message.head.target == "/v2/up":
            seen += 1
            await go_on.wait()
        writer.write(reply())

    async with ScriptedUpstream(script, whole=False) as upstream:
        env = environment_of(upstream) | {
            "SLPROXY_PACE__MODE": "off",
            "SLPROXY_LIMITS__REPLAY_MEMORY_TOTAL": total,
            "SLPROXY_UPSTREAM__MAX_CONNECTIONS": str(many),
        }
        async with program("serve", "--port", "0", home=tmp_path, env=env) as running:
            asked = [asyncio.create_task(raw(running.url, upload, timeout=PATIENCE)) for _ in range(many)]
            await until(lambda: seen == many)
            peak = peak_memory(running.process.pid)
            go_on.set()
            assert {each.head.status for each in await asyncio.gather(*asked)} == {200}
    assert peak < most, (peak // MIB, most // MIB)


async def test_a_client_that_reads_slowly_slows_the_upstream() -> None:
    sent = 0

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(reply("200 OK", b"", f"Content-Length: {512 * MIB}", length=False))
        while True:
            writer.write(CHUNK)
            await writer.drain()
            sent += len(CHUNK)

    async with ScriptedUpstream(script) as upstream, proxy(settings_for(upstream.url)) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]), limit=2**16)
        writer.write(get("/v2/large"))
        await reader.readuntil(b"\r\n\r\n")
        # Nobody reads any more. What the upstream can still send fills the kernel's buffers of four sockets, at most
        # a few MiB each (tcp_rmem and tcp_wmem), and the proxy's own of some 100 KiB.
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.3)
        stalled_at = sent
        writer.transport.abort()
    assert 0 < stalled_at < 64 * MIB


async def test_an_upstream_that_takes_a_body_slowly_slows_the_client() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        raise ConnectionResetError

    async with ScriptedUpstream(script, whole=False) as upstream, proxy(settings_for(upstream.url)) as app:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
        writer.write(get("/v2/up", f"Content-Length: {512 * MIB}", method="POST"))
        sent, stalled = 0, False
        while sent < 256 * MIB and not stalled:
            writer.write(CHUNK)
            try:
                async with asyncio.timeout(1.0):
                    await writer.drain()
                sent += len(CHUNK)
            except TimeoutError:
                stalled = True
        writer.transport.abort()
        go_on.set()
    assert stalled
    assert sent < 64 * MIB
