"""The memory for request bodies that are kept for a retry, all together: docs/contract.md, Settings."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.config import LimitSettings
from slproxy.forward.body import Body, ReplayMemory
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until

TOTAL, SIZE = 100_000, 90_000
LIMITS = LimitSettings(replay_memory=TOTAL, replay_memory_total=TOTAL, replay_disk=TOTAL)


async def of_pieces(memory: ReplayMemory, *pieces: bytes, most: int = 100, disk: int = 1000) -> Body:
    """Return a body that was read once."""
    left = list(pieces)

    async def read() -> bytes:
        return left.pop(0) if left else b""

    body = Body(read, length=None, memory=most, disk=disk, of_all=memory)
    assert b"".join([chunk async for chunk in body.chunks()]) == b"".join(pieces)
    return body


async def test_bodies_share_the_memory_and_give_back_what_they_took() -> None:
    memory = ReplayMemory(100)
    first = await of_pieces(memory, b"a" * 30, b"b" * 30)
    # The second has no room for its last piece: all of it is on disk.
    second = await of_pieces(memory, b"c" * 30, b"d" * 30)
    assert memory.taken == 60
    small = await of_pieces(memory, b"e" * 40)
    assert memory.taken == 100
    for body, pieces in ((first, b"a" * 30 + b"b" * 30), (second, b"c" * 30 + b"d" * 30), (small, b"e" * 40)):
        assert b"".join([chunk async for chunk in body.chunks()]) == pieces
        assert body.replayable
        body.close()
        body.close()
    assert memory.taken == 0


async def test_a_body_that_goes_to_disk_or_is_given_up_leaves_the_memory_to_others() -> None:
    memory = ReplayMemory(100)
    on_disk = await of_pieces(memory, b"a" * 30, b"b" * 30, most=50)
    assert (memory.taken, on_disk.replayable) == (0, True)
    given_up = await of_pieces(memory, b"a" * 30, b"b" * 30, disk=50)
    assert (memory.taken, given_up.replayable) == (0, False)
    for body in (on_disk, given_up):
        body.close()
    assert memory.taken == 0


async def test_a_body_that_is_closed_keeps_nothing_of_what_still_comes() -> None:
    memory = ReplayMemory(100)
    left = [b"a" * 10, b"b" * 10]

    async def read() -> bytes:
        return left.pop(0)

    body = Body(read, length=20, memory=100, disk=100, of_all=memory)
    chunks = aiter(body.chunks())
    await anext(chunks)
    body.close()
    assert await anext(chunks) == b"b" * 10
    assert memory.taken == 0


# In the proxy: however a request ends.


class Held:
    """What an upstream does with a request, by its target; those to ``/v2/hold`` are answered when ``go_on`` is set."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.held = 0

    async def script(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/early":
            writer.write(reply("413 Too Large", b"", "Connection: close"))
            writer.close()
            return
        await reader.readexactly(int(message.head.get("Content-Length") or 0))
        if message.head.target == "/v2/reset":
            raise ConnectionResetError
        if message.head.target in ("/v2/hold", "/v2/left"):
            self.held += 1
            await self.go_on.wait()
        writer.write(reply("503 S" if message.head.target == "/v2/503" else "200 OK"))


def post(target: str, *, size: int = SIZE, sent: int | None = None) -> bytes:
    return get(target, f"Content-Length: {size}", method="POST") + b"x" * (size if sent is None else sent)


def answered(target: str, *, size: int = SIZE, status: int) -> Callable[[str, Held], Awaitable[None]]:
    async def ending(url: str, held: Held) -> None:
        assert (await raw(url, post(target, size=size))).head.status == status

    return ending


async def left_in_the_body(url: str, held: Held) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    writer.write(post("/v2/a", sent=SIZE - 1))
    await writer.drain()
    writer.transport.abort()


async def left_before_the_answer(url: str, held: Held) -> None:
    before = held.held
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    writer.write(post("/v2/left"))
    await until(lambda: held.held > before)
    writer.transport.abort()


ENDINGS = {
    "answered": answered("/v2/a", status=200),
    "read whole before it was sent": answered("/v2/a", size=1000, status=200),
    "503": answered("/v2/503", status=503),
    "reset": answered("/v2/reset", status=502),
    "answered early": answered("/v2/early", status=413),
    "over replay_disk": answered("/v2/a", size=TOTAL + 1, status=200),
    "the client left in the body": left_in_the_body,
    "the client left before the answer": left_before_the_answer,
}


@pytest.mark.skipif(sys.platform != "linux", reason="a process's open files are told in /proc")
async def test_what_has_no_room_in_memory_is_on_disk_and_there_is_room_again_however_a_request_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def on_disk() -> int:
        links = []
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                links.append(os.readlink(each))  # noqa: PTH115  # a path that is no longer there
        return sum(link.startswith(f"{tmp_path}{os.sep}") for link in links)

    held = Held()
    async with ScriptedUpstream(held.script, whole=False) as upstream:
        settings = replace(settings_for(upstream.url), limits=LIMITS)
        async with proxy(settings) as app:
            assert app.server is not None
            for name, ending in ENDINGS.items():
                await ending(app.urls[0], held)
                await until(lambda: app.server is not None and app.server.in_flight == 0)
                held.held = 0
                held.go_on.clear()
                two: list[asyncio.Task[Message]] = []
                for number in (1, 2):
                    two.append(asyncio.create_task(raw(app.urls[0], post("/v2/hold"))))
                    await until(lambda number=number: held.held == number)  # type: ignore[misc]
                    assert on_disk() == number - 1, name
                held.go_on.set()
                assert [each.head.status for each in await asyncio.gather(*two)] == [200, 200]
                await until(lambda: on_disk() == 0)
            # A reload sets it for what comes.
            held.held = 0
            held.go_on.clear()
            changed, later = await app.reload(replace(settings, limits=replace(LIMITS, replay_memory_total=0)))
            assert (changed, later) == (["limits.replay_memory_total"], [])
            one = asyncio.create_task(raw(app.urls[0], post("/v2/hold")))
            await until(lambda: held.held == 1)
            assert on_disk() == 1
            held.go_on.set()
            assert (await one).head.status == 200
