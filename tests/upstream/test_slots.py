"""Slots: when one who found none is told to come again."""

from __future__ import annotations

import asyncio
import socket

import pytest

from slproxy.errors import Overloaded
from slproxy.upstream.connection import Connection
from slproxy.upstream.outbound import Outbound
from slproxy.upstream.round_trip import RoundTrip
from slproxy.upstream.slots import Slots, room_in


@pytest.mark.parametrize(
    ("waiting", "released", "seconds"),
    [(0, 0, 60), (0, 600, 1), (9, 60, 10), (99, 60, 60), (0, 1, 60), (29, 60, 30)],
)
def test_a_slot_comes_as_fast_as_slots_were_released_lately(waiting: int, released: int, seconds: int) -> None:
    assert room_in(waiting, released=released, within=60.0) == seconds


async def test_who_got_none_in_time_is_told_when_to_come_again() -> None:
    slots = Slots(1, timeout=0.05)
    held = await slots.acquire()
    with pytest.raises(Overloaded) as told:
        await slots.acquire()
    assert told.value.headers == (("Retry-After", "1"),)
    held.release()


async def test_a_slot_that_is_put_back_goes_to_who_has_waited_longest() -> None:
    slots, order = Slots(1, timeout=60.0), []
    first = await slots.acquire()

    async def wait(name: str) -> None:
        slot = await slots.acquire()
        order.append(name)
        slot.release()

    waiting = [asyncio.create_task(wait(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert slots.take() is None
    waiting[0].cancel()
    first.release()
    first.release()  # which changes nothing
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == ["b", "c"]
    assert slots.take() is not None


async def test_a_slot_that_came_for_one_who_leaves_in_that_moment_is_not_lost() -> None:
    slots = Slots(1, timeout=60.0)
    first = await slots.acquire()
    leaving, staying = (asyncio.create_task(slots.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    first.release()
    leaving.cancel()
    async with asyncio.timeout(5.0):
        (await staying).release()
    assert slots.take() is not None


async def test_who_comes_gets_the_slot_of_a_reply_that_has_come_whole_and_was_not_read_yet() -> None:
    slots = Slots(1, timeout=60.0)
    ours, theirs = socket.socketpair()
    theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(memoryview(bytearray(1024)), lambda _: None), sock=ours
    )
    held = await slots.acquire()
    round_trip = RoundTrip(connection, "GET", lambda keep: held.release(), slots.round_trips)
    await round_trip.exchange(b"", Outbound(method="GET", target="/", headers=b""), response_timeout=5.0)
    async with asyncio.timeout(5.0):
        (await slots.acquire()).release()
    assert slots.take() is not None
    connection.transport.abort()
    await asyncio.sleep(0)
    theirs.close()
