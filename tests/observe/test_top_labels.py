"""Top labels: whoever comes most has a count of its own, whatever else comes."""

from __future__ import annotations

import tracemalloc
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from slproxy.observe.top_labels import CANDIDATES, TopLabels


def counted(size: int, labels: list[str]) -> TopLabels:
    top = TopLabels(size)
    for label in labels:
        top.count(label)
    return top


def test_the_first_labels_are_counted_from_their_first_request() -> None:
    top = counted(2, ["a", "b", "a", "c"])
    assert {label: cell.requests for label, cell in top.cells.items()} == {"a": 2, "b": 1}
    assert top.other.requests == 1


def test_who_sends_twice_as_much_takes_the_place_of_the_least_and_starts_at_nothing() -> None:
    top = counted(2, ["a"] * 9 + ["b"] * 2 + ["c"] * 4)
    assert set(top.cells) == {"a", "b"}
    top.count("c")
    assert {label: cell.requests for label, cell in top.cells.items()} == {"a": 9, "c": 1}
    assert top.other.requests == 4


def test_who_is_called_other_is_one_of_the_others() -> None:
    top = counted(1, ["other", "a", "b", "other"])
    assert {label: cell.requests for label, cell in top.cells.items()} == {"a": 1}
    assert top.other.requests == 3


def test_two_that_send_alike_do_not_take_turns() -> None:
    top = counted(1, ["a", "b"] * 500)
    assert set(top.cells) == {"a"}
    assert top.cells["a"].requests == 500


def test_a_client_that_comes_often_is_found_among_ten_thousand_that_come_once() -> None:
    labels = [f"once-{number}" for number in range(10_000)]
    labels[1_000::10] = ["busy"] * 900
    top = counted(20, labels)
    assert "busy" in top.cells
    assert top.cells["busy"].requests > 800


def test_what_is_remembered_of_those_without_a_place_is_limited() -> None:
    top = counted(1, ["a"] * 50)
    tracemalloc.start()
    for number in range(20_000):
        top.count(f"other-{number}")
    remembered, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert remembered < 200 * CANDIDATES
    assert top.cells["a"].requests == 50


@given(st.lists(st.sampled_from("abcdefgh")))
def test_no_request_is_counted_twice_and_no_count_decreases_while_it_is_there(labels: list[str]) -> None:
    top, before = TopLabels(3), Counter[str]()
    for number, label in enumerate(labels, 1):
        top.count(label)
        now = Counter({name: cell.requests for name, cell in top.cells.items()})
        assert now.total() + top.other.requests <= number
        assert len(now) <= 3
        assert all(now[name] >= before[name] or now[name] == int(name == label) for name in now)
        before = now
