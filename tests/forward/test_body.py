"""A request's body, read once and given as often as a cure needs it: docs/contract.md, Cure and `limits`."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from slproxy.forward.body import WHOLE, Body, ReplayMemory
from tests.support import ROOT
from tests.support.waiting import PATIENCE


def client(*pieces: bytes) -> Callable[[], Awaitable[bytes]]:
    """Return a client that sends these pieces, and then the end of its body."""
    left = list(pieces)

    async def read() -> bytes:
        return left.pop(0) if left else b""

    return read


def plenty() -> ReplayMemory:
    return ReplayMemory(2**30)


async def read(body: Body) -> bytes:
    return b"".join([chunk async for chunk in body.chunks()])


def pieces_of(data: bytes, dice: random.Random) -> list[bytes]:
    """Cut ``data`` at random places; no piece is empty, since an empty one is the end."""
    cuts = sorted(dice.sample(range(1, len(data)), dice.randint(0, min(8, len(data) - 1)))) if len(data) > 1 else []
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# What was read is given again


@pytest.mark.parametrize("known", [True, False], ids=["with length", "chunked"])
@pytest.mark.parametrize(
    ("memory", "disk"), [(0, 0), (0, 1), (1, 0), (0, 100), (10, 100), (100, 10), (100, 100), (1000, 1000)]
)
@pytest.mark.parametrize("size", [0, 1, 2, 9, 10, 11, 99, 100, 101, 999, 1000, 1001])
async def test_a_body_goes_up_whole_and_as_often_as_the_limits_allow(
    size: int, memory: int, disk: int, known: bool
) -> None:
    data = random.Random(size).randbytes(size)
    for seed in range(10):
        pieces = pieces_of(data, random.Random(seed))
        body = Body(client(*pieces), length=size if known else None, memory=memory, disk=disk, of_all=plenty())
        assert await read(body) == data
        assert body.replayable is (size <= disk)
        assert body.too_large is (size > disk)
        if body.replayable:
            assert [await read(body), await read(body)] == [data, data]
        assert body.error is None
        body.close()


@pytest.mark.parametrize(
    "pieces", [[b"abc", b"d" * 50_000, b"e"], [b"x"] * 3000, [b"y" * 300_000]], ids=["mixed", "small", "large"]
)
@pytest.mark.parametrize("memory", [10, 100_000, 2**20])
async def test_pieces_arrive_as_they_came_the_first_time_and_whole_the_second(memory: int, pieces: list[bytes]) -> None:
    body = Body(client(*pieces), length=None, memory=memory, disk=2**20, of_all=plenty())
    assert [chunk async for chunk in body.chunks()] == pieces
    assert await read(body) == b"".join(pieces)
    body.close()


async def test_a_body_with_a_length_is_not_asked_for_more_than_that() -> None:
    asked = 0

    async def read_once() -> bytes:
        nonlocal asked
        asked += 1
        assert asked == 1, "the end of the body is known"
        return b"abc"

    body = Body(read_once, length=3, memory=10, disk=10, of_all=plenty())
    assert [await read(body), await read(body)] == [b"abc", b"abc"]
    none = Body(read_once, length=0, memory=10, disk=10, of_all=plenty())
    assert await read(none) == b""


async def test_reading_from_the_client_goes_no_faster_than_the_upstream_takes_it() -> None:
    asked = 0

    async def endless() -> bytes:
        nonlocal asked
        asked += 1
        return b"x" * 1000

    body = Body(endless, length=None, memory=10_000, disk=10_000, of_all=plenty())
    chunks = aiter(body.chunks())
    for number in range(1, 6):
        await anext(chunks)
        assert asked == number


async def test_what_is_over_the_memory_lies_in_a_file_without_a_name_until_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = open_files()
    body = Body(client(b"a" * 10, b"b"), length=11, memory=10, disk=100, of_all=plenty())
    chunks = aiter(body.chunks())
    await anext(chunks)
    assert open_files() == before
    await anext(chunks)
    assert open_files() == before + 1
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  # nothing else runs on this loop
    assert await read(body) == b"a" * 10 + b"b"
    body.close()
    assert open_files() == before


async def test_a_body_over_the_disk_limit_frees_what_was_kept_of_it() -> None:
    before = open_files()
    body = Body(client(b"a" * 60, b"b" * 60), length=None, memory=10, disk=100, of_all=plenty())
    assert await read(body) == b"a" * 60 + b"b" * 60
    assert open_files() == before


@pytest.mark.parametrize(("length", "too_large"), [(100, False), (101, True), (None, False)])
async def test_a_body_that_says_it_is_too_large_is_known_before_it_is_read_and_repeatable_until_then(
    length: int | None, too_large: bool
) -> None:
    stream = asyncio.StreamReader()
    body = Body(lambda: stream.read(1000), length=length, memory=10, disk=100, of_all=plenty())
    assert (body.too_large, body.replayable) == (too_large, True)
    # From the moment that somebody waits for it: what comes is that reader's, though it may have given up.
    reading = asyncio.create_task(read(body))
    await asyncio.sleep(0)
    assert body.replayable is not too_large
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert body.replayable is not too_large


async def test_closing_twice_is_no_error() -> None:
    body = Body(client(b"a" * 20), length=20, memory=10, disk=100, of_all=plenty())
    await read(body)
    body.close()
    body.close()


# A disk without room: the body still streams. A process of its own, because such a limit is one of the whole process.

FULL_DISK = textwrap.dedent("""
    import asyncio, resource, signal, sys
    from slproxy.forward.body import Body, ReplayMemory

    limit, size, count = map(int, sys.argv[1:])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    pieces = [bytes([65 + number % 26]) * size for number in range(count)]

    async def main():
        left = list(pieces)
        async def read():
            return left.pop(0) if left else b""
        body = Body(read, length=None, memory=10, disk=10**9, of_all=ReplayMemory(2**30))
        for _ in range(2):
            assert b"".join([chunk async for chunk in body.chunks()]) == b"".join(pieces)
            if not body.replayable:
                break
        sys.stdout.write("repeatable" if body.replayable else "streamed")

    asyncio.run(main())
""")


@pytest.mark.parametrize(
    ("limit", "size", "count", "expected"),
    [
        (10**9, 50_000, 6, "repeatable"),
        pytest.param(100_000, 50_000, 6, "streamed", id="large pieces"),
        pytest.param(100, 50, 6, "streamed", id="small pieces"),
        pytest.param(100, 110, 1, "streamed", id="the last piece, still in the file's buffer"),
    ],
)
def test_a_body_that_the_disk_has_no_room_for_streams_whole_and_is_not_repeatable(
    limit: int, size: int, count: int, expected: str
) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(limit), str(size), str(count)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


# Two readers in turn


@pytest.mark.parametrize("memory", [1000, 2], ids=["in memory", "on disk"])
@pytest.mark.parametrize("when", ["waiting", "just as it arrives", "just before it arrives"])
async def test_the_reader_after_a_cancelled_one_loses_nothing(when: str, memory: int) -> None:
    stream = asyncio.StreamReader()
    body = Body(lambda: stream.read(1000), length=None, memory=memory, disk=1000, of_all=plenty())
    got_one = asyncio.Event()

    async def attempt() -> None:
        async for chunk in body.chunks():
            assert chunk == b"one "
            got_one.set()

    first = asyncio.create_task(attempt())
    stream.feed_data(b"one ")
    await got_one.wait()
    await asyncio.sleep(0)
    if when == "just before it arrives":
        first.cancel()
        stream.feed_data(b"two ")
    elif when == "just as it arrives":
        stream.feed_data(b"two ")
        first.cancel()
    else:
        first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    if when == "waiting":
        stream.feed_data(b"two ")
    second = asyncio.create_task(read(body))
    await asyncio.sleep(0)
    stream.feed_data(b"three")
    stream.feed_eof()
    async with asyncio.timeout(PATIENCE):
        assert await second == b"one two three"
    assert body.replayable
    assert body.error is None
    body.close()


@pytest.mark.parametrize("memory", [1000, 2], ids=["in memory", "on disk"])
async def test_an_attempt_that_lingers_and_the_one_that_follows_both_get_the_whole_body(memory: int) -> None:
    stream = asyncio.StreamReader()
    reading = 0

    async def read_alone() -> bytes:
        nonlocal reading
        reading += 1
        assert reading == 1, "never two readers of the client at the same time"
        try:
            return await stream.read(3)
        finally:
            reading -= 1

    body = Body(read_alone, length=None, memory=memory, disk=1000, of_all=plenty())
    readers = [asyncio.create_task(read(body)) for _ in range(3)]
    for number in range(10):
        stream.feed_data(b"%d" % number)
        await asyncio.sleep(0)
    stream.feed_eof()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*readers) == [b"0123456789"] * 3
    body.close()


# Whose fault it is


async def test_a_client_that_breaks_off_is_recorded_and_its_body_is_not_repeatable() -> None:
    broken = ConnectionResetError("the client left")

    async def read_some() -> bytes:
        if received:
            raise broken
        received.append(b"abc")
        return b"abc"

    received: list[bytes] = []
    body = Body(read_some, length=6, memory=10, disk=10, of_all=plenty())
    with pytest.raises(ConnectionResetError) as caught:
        await read(body)
    assert caught.value is broken
    assert body.error is broken
    assert not body.replayable


async def test_an_attempt_that_is_cancelled_is_no_fault_of_the_client() -> None:
    async def cancelled() -> bytes:
        raise asyncio.CancelledError

    body = Body(cancelled, length=None, memory=10, disk=10, of_all=plenty())
    with pytest.raises(asyncio.CancelledError):
        await read(body)
    assert body.error is None
    assert body.replayable


# Small bodies in one piece


@pytest.mark.parametrize(
    ("length", "memory", "whole"),
    [
        (0, 10**6, True),
        (1, 10**6, True),
        (WHOLE, 10**6, True),
        (WHOLE + 1, 10**6, False),
        (11, 11, True),
        (11, 10, False),
        (1, 0, False),
    ],
)
async def test_a_small_body_of_a_known_length_comes_in_one_piece(length: int, memory: int, whole: bool) -> None:
    data = random.Random(1).randbytes(length)
    body = Body(
        client(*(pieces_of(data, random.Random(1)) if data else [])),
        length=length,
        memory=memory,
        disk=10**6,
        of_all=plenty(),
    )
    assert await body.whole() == (data if whole else None)
    # And again for the next attempt, in one piece or not.
    assert await body.whole() == (data if whole else None)
    assert await read(body) == data
    body.close()


async def test_a_chunked_body_is_streamed_however_small() -> None:
    body = Body(client(b"a"), length=None, memory=100, disk=100, of_all=plenty())
    assert await body.whole() is None
    assert await read(body) == b"a"
