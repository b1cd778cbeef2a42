"""Request ids: the client's own where it is a sane token, else one of the proxy's."""

from __future__ import annotations

import pytest

from slproxy.observe.request_ids import RequestIds


@pytest.mark.parametrize(
    "given",
    ["a", "6f1d8a3e-1c0f-4f0e-9a57-3b1f0c9a7f11", "01JDQ2:a/b+c=~_.@", "x" * 128],
    ids=["one letter", "a UUID", "all that is sane", "the longest"],
)
def test_a_sane_id_of_the_client_is_kept(given: str) -> None:
    assert RequestIds().kept(given) == given


@pytest.mark.parametrize("given", ["", " ", "a b", 'a"b', "a\\b", "a,b", "\u00e9", "x" * 129, "a\x7f"], ids=ascii)
def test_any_other_is_replaced(given: str) -> None:
    ids = RequestIds()
    made = ids.kept(given)
    assert made != given
    assert ids.kept(made) == made, "a made one is sane"


def test_no_two_requests_have_the_same_made_id_nor_those_of_another_start() -> None:
    ids, others = RequestIds(), RequestIds()
    assert len({made.new() for made in (ids, others) for _ in range(1000)}) == 2000
