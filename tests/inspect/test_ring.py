"""The ring: what is kept, up to its limits, and counted as what it takes."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from dataclasses import replace

import pytest

from slproxy.config import InspectSettings
from slproxy.config.schema import PaceSettings
from slproxy.inspect.ring import ENTRY, Note, Ring
from slproxy.observe import BODY_LIMIT, KeptBody, Recording
from tests.support.inspector import PAGE, details
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, port_of, raw, read_message, reply
from tests.support.scripted import ScriptedUpstream

KIB, MIB = 2**10, 2**20


def happened(ring: Ring, count: int = 1, *, size: int = 3_000) -> None:
    for _ in range(count):
        ring.number += 1
        recording = Recording()
        recording.n = ring.number
        ring.end(Note(kind="login", began=0.0, ended=0.0, text="x" * (size - ENTRY)), recording)


def kept(ring: Ring) -> list[int]:
    return [recording.n for _, recording in ring]


def test_the_oldest_gives_way_by_entries_and_by_bytes() -> None:
    ring = Ring(entries=3, memory=30_000)
    happened(ring, 5)
    assert (kept(ring), ring.size) == ([3, 4, 5], 9_000)
    happened(ring, size=25_500)
    assert (kept(ring), ring.size) == ([5, 6], 28_500)
    happened(ring, size=60_000)
    assert (kept(ring), ring.size) == ([], 0)


def test_what_is_pinned_stays_and_takes_half_of_the_room_at_most() -> None:
    ring = Ring(entries=4, memory=30_000)
    happened(ring, 4)
    assert [ring.pin(n, pinned=True) for n in (1, 2, 3)] == [True, True, False]
    happened(ring, 10)
    assert kept(ring) == [1, 2, 13, 14]
    ring.clear(lambda entry: True)
    assert (kept(ring), ring.size) == ([1, 2], 6_000)
    assert ring.pin(1, pinned=False)
    happened(ring, 3)
    assert kept(ring) == [2, 15, 16, 17]
    happened(ring, size=12_001)
    assert not ring.pin(18, pinned=True)  # over half of the memory
    assert not ring.pin(1, pinned=True)
    ring.resize(entries=1, memory=30_000)
    assert kept(ring) == [2]


def test_bodies_take_the_place_of_what_is_oldest_and_no_more_than_there_is() -> None:
    ring = Ring(entries=10, memory=30_000)
    happened(ring, 4)
    body = KeptBody(ring.take)
    body.add(b"x" * 19_200)
    assert (kept(ring), ring.size, len(body.data)) == ([3, 4], 27_600, 19_200)
    body.add(b"x" * 19_201)
    assert (kept(ring), ring.size, len(body.data), body.size) == ([], 21_600, 19_200, 38_401)
    body.add(b"x")  # what was left out leaves a gap that nothing may follow
    assert len(body.data) == 19_200


def test_of_a_body_no_more_than_a_part_is_kept() -> None:
    body = KeptBody(lambda size: True)
    for _ in range(10):
        body.add(b"x" * (BODY_LIMIT // 4 + 1))
    assert (len(body.data), body.size) == (BODY_LIMIT, 10 * (BODY_LIMIT // 4 + 1))


async def many(url: str, count: int, *headers: str) -> None:
    """Send so many requests, one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), limit=2**20)
    for number in range(count):
        own = (each.format(number) for each in headers)
        writer.write(get(f"/v2/people/{number}?page={number}", "User-Agent: python-requests/2.32", *own))
        await read_message(reader)
    writer.close()


async def taken_by(url: str, inspect: InspectSettings, *headers: str) -> int:
    """Return how many bytes so many requests leave behind."""
    settings = replace(settings_for(url), inspect=inspect, pace=PaceSettings(mode="off"))
    async with proxy(settings) as app:
        await many(app.urls[0], 10, *headers)  # what all requests share is there
        gc.collect()
        tracemalloc.start(1)
        before, _ = tracemalloc.get_traced_memory()
        await many(app.urls[0], 250, *headers)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return taken


@pytest.mark.parametrize("headers", [(), ("X-Request-Id: a-request-{}",)], ids=["same heads", "each its own head"])
@pytest.mark.parametrize("bodies", ["off", "on"])
async def test_it_takes_no_more_than_its_limit_and_uses_it(bodies: str, headers: tuple[str, ...]) -> None:
    memory, large = (MIB, 20_000) if bodies == "on" else (256 * KIB, 500)
    body = json.dumps({"data": "x" * large}).encode()
    more = ("Content-Type: application/json", "Set-Cookie: a=b", "Strict-Transport-Security: max-age=1", 'ETag: "abc"')

    async def answer(message: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.seen.clear()
        writer.write(reply("200 OK", body, *more))

    async with ScriptedUpstream(answer) as upstream:
        rules = InspectSettings(bodies=bodies, memory=memory)  # type: ignore[arg-type]
        disabled = replace(rules, enabled=False)
        await taken_by(upstream.url, disabled, *headers)  # what is remembered of their paths is there
        off = await taken_by(upstream.url, disabled, *headers)
        on = await taken_by(upstream.url, rules, *headers)
    assert 0.6 * memory < on - off < 1.05 * memory


async def test_what_is_under_way_is_kept_however_much_ends_meanwhile() -> None:
    go_on = asyncio.Event()

    async def slow(message: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(upstream.seen) == 1:
            await go_on.wait()
        writer.write(reply())

    async with ScriptedUpstream(slow) as upstream:
        settings = replace(settings_for(upstream.url), inspect=InspectSettings(entries=3))
        async with proxy(settings) as app:
            url = app.urls[0]
            first = asyncio.create_task(raw(url, get("/v2/first")))
            while not upstream.seen:
                await asyncio.sleep(0.001)
            await many(url, 5)
            assert (await details(url, 1))["row"]["state"] == "open"
            assert (await raw(url, get(f"{PAGE}exchanges/2"))).head.status == 404
            go_on.set()
            await first
            assert (await details(url, 1))["row"]["status"] == 200
