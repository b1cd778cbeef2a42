"""What encrypts a token at rest: the right key opens, a wrong one destroys nothing, and what is kept shows nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from slproxy.config import Encryption, Secret
from slproxy.errors import SealedError, StoreError
from slproxy.store import Seal
from slproxy.store.encryption import GIVEN

PLAIN = b'{"access_token": "hidden"}'


class Ring:
    """A keyring of its own."""

    def __init__(self) -> None:
        self.description = "the test's keyring"
        self.held: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        return self.held.get(name)

    def set(self, name: str, value: str) -> None:
        self.held[name] = value

    def delete(self, name: str) -> None:
        self.held.pop(name, None)


def seal(encryption: Encryption = "auto", *, key: str | None = None, ring: Ring | None = None) -> Seal:
    return Seal(encryption, key=None if key is None else Secret(key), keyring=lambda: ring)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda ring: seal("auto", key="a phrase", ring=ring), id="auto with a key"),
        pytest.param(lambda ring: seal("key", key="a phrase"), id="key"),
        pytest.param(lambda ring: seal("keyring", ring=ring), id="keyring"),
        pytest.param(lambda ring: seal("auto", ring=ring), id="auto with a keyring"),
    ],
)
def test_what_is_sealed_shows_nothing_and_opens_with_its_key_in_another_process(made: Callable[[Ring], Seal]) -> None:
    ring = Ring()
    kept = made(ring).seal(PLAIN)
    assert b"hidden" not in kept
    assert made(ring).open(kept) == PLAIN


def test_a_given_key_goes_before_the_keyring() -> None:
    ring = Ring()
    assert json.loads(seal(key="a phrase", ring=ring).seal(PLAIN))["key"] == GIVEN
    assert ring.held == {}


@pytest.mark.parametrize("made", [seal("off", ring=Ring()), seal("auto")], ids=["off", "auto without a keyring"])
def test_what_is_not_to_be_sealed_stays_as_it_is(made: Seal) -> None:
    assert made.seal(PLAIN) == PLAIN
    assert made.open(PLAIN) == PLAIN
    assert made.description == "not encrypted"


def test_a_wrong_key_is_told_and_says_nothing_of_either() -> None:
    kept = seal(key="the right phrase").seal(PLAIN)
    with pytest.raises(StoreError, match="does not open") as caught:
        seal(key="a wrong phrase").open(kept)
    assert "phrase" not in f"{caught.value} {caught.value.hint}"


def test_a_missing_key_is_told() -> None:
    with pytest.raises(StoreError, match=r"store\.key is not set"):
        seal().open(seal(key="a phrase").seal(PLAIN))
    with pytest.raises(StoreError, match="not in this machine's keyring"):
        seal(ring=Ring()).open(seal(ring=Ring()).seal(PLAIN))


def test_encryption_that_is_asked_for_and_cannot_be_had_is_an_error_and_never_plain_text() -> None:
    with pytest.raises(StoreError):
        seal("keyring").seal(PLAIN)
    with pytest.raises(StoreError):
        seal("key").seal(PLAIN)


@pytest.mark.parametrize("cut", [10, 60, -3])
def test_what_was_cut_short_or_changed_never_opens(cut: int) -> None:
    kept = seal(key="a phrase").seal(PLAIN)
    document = json.loads(kept)
    document["sealed"] = document["sealed"][:cut]
    with pytest.raises((StoreError, ValueError)):
        seal(key="a phrase").open(json.dumps(document).encode())


def test_what_was_plain_is_sealed_at_the_next_write_and_the_other_way_round() -> None:
    ring = Ring()
    sealing = seal(ring=ring)
    assert sealing.open(PLAIN) == PLAIN
    kept = sealing.seal(PLAIN)
    assert b"hidden" not in kept
    stops = seal("off", ring=ring)
    assert stops.open(kept) == PLAIN
    assert stops.seal(PLAIN) == PLAIN


def test_one_key_is_kept_for_one_login_however_often_it_is_written() -> None:
    ring = Ring()
    first = seal(ring=ring).seal(PLAIN)
    again = seal(ring=ring)
    again.open(first)
    again.seal(PLAIN)
    assert len(ring.held) == 1


def test_a_key_is_changed_such_that_at_every_point_what_is_kept_can_be_opened() -> None:
    ring = Ring()
    old = seal(ring=ring).seal(PLAIN)
    changing = seal(ring=ring)
    changing.open(old)
    forget = changing.change_key(None)
    assert seal(ring=ring).open(old) == PLAIN
    new = changing.seal(PLAIN)
    assert seal(ring=ring).open(old) == PLAIN
    assert seal(ring=ring).open(new) == PLAIN
    forget()
    assert seal(ring=ring).open(new) == PLAIN
    with pytest.raises(StoreError):
        seal(ring=ring).open(old)
    assert len(ring.held) == 1


def test_a_given_key_takes_the_place_of_another_and_what_was_sealed_before_still_opens() -> None:
    old = seal(key="first").seal(PLAIN)
    changing = seal(key="first")
    changing.change_key(Secret("second"))
    assert changing.open(old) == PLAIN
    new = changing.seal(PLAIN)
    assert changing.open(new) == PLAIN
    assert seal(key="second").open(new) == PLAIN
    with pytest.raises(SealedError):
        seal(key="first").open(new)


def test_what_was_plain_is_sealed_with_a_given_key() -> None:
    changing = seal()
    changing.open(PLAIN)
    changing.change_key(Secret("second"))
    new = changing.seal(PLAIN)
    assert changing.open(new) == PLAIN
    assert seal(key="second").open(new) == PLAIN
