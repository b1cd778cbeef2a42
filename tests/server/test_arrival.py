"""Heads as they arrive: each has its time, however it begins, and all of them share some memory."""

from __future__ import annotations

import asyncio

import pytest

from slproxy.config import LimitSettings
from slproxy.server.aiohttp_private import REST_TIMEOUT
from slproxy.server.arrival import HEADS
from tests.support.pair import asked, chunked, opened, pair, problem
from tests.support.raw_http import Message, get, read_message, reply
from tests.support.waiting import PATIENCE, SOON, until

POST = get("/v2/a", "Transfer-Encoding: chunked", method="POST")
# What stands before the part of a head, and how it is cut into packets.
BEFORE = {
    "nothing": [b""],
    "a request": [get("/v2/a")],
    "a body": [get("/v2/a", method="POST", body=b"\r\n\r\n{}")],
    "the end of a body": [get("/v2/a", method="POST", body=b"x" * 100)[:-7], b"x" * 7],
    "chunks, in another packet": [POST + chunked(b"abc"), b""],
    "as many requests as the parser takes, and more": [get("/v2/a") * 40],
    "requests and bodies": [get("/v2/a") + get("/v2/a", method="POST", body=b"{}") * 2],
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
async def test_a_head_has_to_come_in_time_whatever_stands_before_it(before: list[bytes]) -> None:
    answers = b"".join(before).count(b"HTTP/1.1")
    async with pair(limits=LimitSettings(header_timeout=0.3)) as (_, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            for number, packet in enumerate(before, start=1):
                writer.write(packet + b"GET /v2/b HT" * (number == len(before)))
                await asyncio.sleep(0.02)
            for _ in range(answers):
                assert (await read_message(reader)).head.status == 200
            problem(await read_message(reader), status=408, kind="bad-request")
            assert await reader.read() == b""


@pytest.mark.parametrize(
    "first",
    [get("/v2/a") + b"\r\n", get("/v2/a", method="POST", body=b"{}") + b"\r\n\r\n", POST + chunked(b"{}")],
    ids=["a request", "a body", "chunks"],
)
async def test_line_ends_behind_a_request_are_no_head_and_a_connection_stays_open(first: bytes) -> None:
    async with pair(limits=LimitSettings(header_timeout=0.1)) as (_, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            writer.write(first)
            assert (await read_message(reader)).head.status == 200
            await asyncio.sleep(0.3)
            writer.write(get("/v2/b"))
            assert (await read_message(reader)).head.status == 200


async def test_a_head_that_waits_for_an_answer_has_its_time_from_then_on() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5 if message.head.target == "/v2/slow" else 0)
        writer.write(reply())

    async with pair(script, limits=LimitSettings(header_timeout=0.3)) as (_, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            writer.write(get("/v2/slow") + b"GET /v2/b HT")
            assert (await read_message(reader)).head.status == 200
            writer.write(b"TP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await read_message(reader)).head.status == 200


async def test_rtsp_behind_a_request_is_refused_however_it_is_cut() -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            writer.write(get("/v2/a") + b"GET /v2/b RT")
            assert (await read_message(reader)).head.status == 200
            writer.write(b"SP/1.0\r\nHost: localhost\r\n\r\n")
            problem(await read_message(reader), status=400, kind="bad-request")
    assert len(upstream.seen) == 1


LARGE = b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"a" * 60_000
# One more than fit.
MANY = HEADS // len(LARGE) + 1


async def test_heads_that_are_not_whole_share_some_memory_and_the_largest_gives_way() -> None:
    async with pair() as (_, app):
        small = await opened(app)
        small[1].write(b"GET /v2/small HTTP/1.1\r\nHost: local")
        large = [await opened(app) for _ in range(MANY)]
        for _, writer in large:
            writer.write(LARGE)
        async with asyncio.timeout(PATIENCE):
            first = [asyncio.create_task(read_message(reader)) for reader, _ in large]
            done, _ = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            document = problem(done.pop().result(), status=503, kind="overloaded")
            assert "headers" in str(document["detail"])
            # Those that are left have what they need.
            for _, writer in large:
                writer.write(b"\r\n\r\n")
            small[1].write(b"host\r\n\r\n")
            assert (await read_message(small[0])).head.status == 200
            statuses = [each.head.status for each in await asyncio.gather(*first)]
        assert sorted(set(statuses)) == [200, 503]
        assert statuses.count(503) < 5
        assert (await asked(app.urls[0], get("/v2/after"))).head.status == 200


async def test_heads_that_wait_for_their_turn_share_it_and_a_connection_ends_before_those_that_give_way() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    async with pair(script) as (upstream, app):
        clients = [await opened(app) for _ in range(MANY // 2 + 1)]
        for _, writer in clients:
            writer.write(get("/v2/slow"))
        await until(lambda: len(upstream.seen) == len(clients))
        for _, writer in clients:
            writer.write((LARGE + b"\r\n\r\n") * 2)
            await writer.drain()
        await asyncio.sleep(0.5)
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            firsts = [(await read_message(reader)).head for reader, _ in clients]
            assert {each.status for each in firsts} == {200}
            gave_way = [each for each in zip(firsts, clients, strict=True) if each[0].get("Connection") == "close"]
            assert 0 < len(gave_way) < 5
            for _, (reader, _) in gave_way:
                assert await reader.read() == b""
            for head, (reader, _) in zip(firsts, clients, strict=True):
                if head.get("Connection") != "close":
                    assert [(await read_message(reader)).head.status for _ in range(2)] == [200, 200]


TRAILERS = b"0\r\n" + (b"X: " + b"a" * 90 + b"\r\n") * 1_000


@pytest.mark.parametrize("target", ["/v2/a", "/nothing"], ids=["that is served", "that is refused"])
async def test_trailers_that_are_not_whole_share_it_too(target: str) -> None:
    request = get(target, "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n"
    async with pair() as (_, app):
        clients = [await opened(app) for _ in range(HEADS // len(TRAILERS) + 2)]
        async with asyncio.timeout(REST_TIMEOUT / 2):
            for reader, writer in clients:
                writer.write(request)
                if target == "/nothing":
                    assert (await read_message(reader)).head.status == 404
                writer.write(TRAILERS)
            first = [asyncio.create_task(reader.readline()) for reader, _ in clients]
            done, others = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        assert {each.result()[9:12] for each in done} == {b"" if target == "/nothing" else b"503"}
        assert len(done) < 5
        for each in others:
            each.cancel()
