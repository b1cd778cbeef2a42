"""Slots: when one who found none is told to come again."""

from __future__ import annotations

import pytest

from slproxy.errors import Overloaded
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
