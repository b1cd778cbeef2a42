"""Estimated wait: a table of what is ahead, what is left, and when more comes."""

from __future__ import annotations

import pytest

from slproxy.pace.estimate import estimated_wait, room_in


@pytest.mark.parametrize(
    ("costs", "blocked", "left", "growth", "team", "wait"),
    [
        ([1], 0.0, 1.0, 0.0, 600.0, 0.0),
        ([1], 7.0, 1.0, 0.0, 600.0, 7.0),
        ([1], 30.0, 0.0, 0.0, 0.0, 30.0),
        ([1], 40.0, 0.0, 0.0, 0.0, 40.0),
        ([1], 0.0, 0.0, 0.0, 0.0, 30.0),
        ([100], 0.0, 0.0, 0.0, 0.0, 30.0),
        ([100, 1], 0.0, 0.0, 0.0, 0.0, 90.0),
        ([60, 60, 60], 0.0, 0.0, 0.0, 0.0, 150.0),
        ([60, 60], 95.0, 0.0, 0.0, 0.0, 150.0),
        ([900], 0.0, 0.0, 0.0, 0.0, 30.0),
        ([5, 5], 0.0, 6.0, 2.0, 600.0, 2.0),
        ([5, 5], 3.0, 6.0, 2.0, 600.0, 3.0),
        ([5, 5], 0.0, 6.0, 2.0, 9.0, 30.0),
        ([70], 0.0, 6.0, 2.0, 600.0, 30.0),
    ],
    ids=[
        "there is enough", "blocked within this minute", "blocked until the next one", "blocked into the next one",
        "nothing is left", "all of the next minute", "one more than that", "two do not fit into one minute",
        "from the middle of a minute", "more than a minute has", "the allowance grows",
        "it has grown once it is unblocked",
        "others have spent what would grow", "it does not grow so much before the next minute",
    ],
)  # fmt: skip
def test_the_wait(costs: list[int], blocked: float, left: float, growth: float, team: float, wait: float) -> None:
    found = estimated_wait(costs, blocked=blocked, opening=30.0, left=left, team=team, growth=growth, per_minute=100.0)
    assert found == wait


@pytest.mark.parametrize(
    ("inside", "waiting", "in_flight", "seconds"),
    [
        (10, 10, 0, 40),
        # A few may be told something else, or read slowly.
        (10, 5, 0, 40),
        (10, 4, 0, 1),
        # Whoever SalesLoft has is answered soon.
        (10, 9, 1, 1),
        (10, 0, 0, 1),
        (0, 0, 0, 1),
    ],
)
def test_when_there_is_room_again(inside: int, waiting: int, in_flight: int, seconds: int) -> None:
    assert room_in(inside, waiting=waiting, in_flight=in_flight, first_wait=39.2 if waiting else 0.0) == seconds
