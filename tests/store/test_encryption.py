"""Token encryption: the right key decrypts, a wrong one destroys nothing, and what is stored shows nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from slproxy.config import Encryption, Secret
from slproxy.errors import StoreError, UndecryptableError
from slproxy.store import TokenCipher
from slproxy.store.keys import SETTINGS_KEY

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


def cipher(encryption: Encryption = "auto", *, key: str | None = None, ring: Ring | None = None) -> TokenCipher:
    return TokenCipher(encryption, key=None if key is None else Secret(key), keyring=lambda: ring)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda ring: cipher("auto", key="a phrase", ring=ring), id="auto with a key"),
        pytest.param(lambda ring: cipher("key", key="a phrase"), id="key"),
        pytest.param(lambda ring: cipher("keyring", ring=ring), id="keyring"),
        pytest.param(lambda ring: cipher("auto", ring=ring), id="auto with a keyring"),
    ],
)
def test_what_is_encrypted_shows_nothing_and_is_decrypted_with_its_key_in_another_process(
    made: Callable[[Ring], TokenCipher],
) -> None:
    ring = Ring()
    kept = made(ring).encrypt(PLAIN)
    assert b"hidden" not in kept
    assert made(ring).decrypt(kept) == PLAIN


def test_a_given_key_goes_before_the_keyring() -> None:
    ring = Ring()
    assert json.loads(cipher(key="a phrase", ring=ring).encrypt(PLAIN))["key"] == SETTINGS_KEY
    assert ring.held == {}


@pytest.mark.parametrize("made", [cipher("off", ring=Ring()), cipher("auto")], ids=["off", "auto without a keyring"])
def test_what_is_not_to_be_encrypted_stays_as_it_is(made: TokenCipher) -> None:
    assert made.encrypt(PLAIN) == PLAIN
    assert made.decrypt(PLAIN) == PLAIN
    assert made.description == "not encrypted"


def test_a_wrong_key_is_told_and_says_nothing_of_either() -> None:
    kept = cipher(key="the right phrase").encrypt(PLAIN)
    with pytest.raises(StoreError, match="cannot be decrypted") as caught:
        cipher(key="a wrong phrase").decrypt(kept)
    assert "phrase" not in f"{caught.value} {caught.value.hint}"


def test_a_missing_key_is_told() -> None:
    with pytest.raises(StoreError, match=r"store\.key is not set"):
        cipher().decrypt(cipher(key="a phrase").encrypt(PLAIN))
    with pytest.raises(StoreError, match="not in this machine's keyring"):
        cipher(ring=Ring()).decrypt(cipher(ring=Ring()).encrypt(PLAIN))


def test_encryption_that_is_asked_for_and_cannot_be_had_is_an_error_and_never_plain_text() -> None:
    with pytest.raises(StoreError):
        cipher("keyring").encrypt(PLAIN)
    with pytest.raises(StoreError):
        cipher("key").encrypt(PLAIN)


@pytest.mark.parametrize("cut", [10, 60, -3])
def test_what_was_cut_short_or_changed_is_never_decrypted(cut: int) -> None:
    kept = cipher(key="a phrase").encrypt(PLAIN)
    document = json.loads(kept)
    document["sealed"] = document["sealed"][:cut]
    with pytest.raises((StoreError, ValueError)):
        cipher(key="a phrase").decrypt(json.dumps(document).encode())


def test_what_was_plain_is_encrypted_at_the_next_write_and_the_other_way_round() -> None:
    ring = Ring()
    encrypting = cipher(ring=ring)
    assert encrypting.decrypt(PLAIN) == PLAIN
    kept = encrypting.encrypt(PLAIN)
    assert b"hidden" not in kept
    stops = cipher("off", ring=ring)
    assert stops.decrypt(kept) == PLAIN
    assert stops.encrypt(PLAIN) == PLAIN


def test_one_key_is_kept_for_one_login_however_often_it_is_written() -> None:
    ring = Ring()
    first = cipher(ring=ring).encrypt(PLAIN)
    again = cipher(ring=ring)
    again.decrypt(first)
    again.encrypt(PLAIN)
    assert len(ring.held) == 1


def test_a_key_is_changed_such_that_at_every_point_what_is_kept_can_be_decrypted() -> None:
    ring = Ring()
    old = cipher(ring=ring).encrypt(PLAIN)
    changing = cipher(ring=ring)
    changing.decrypt(old)
    delete = changing.change_key(None)
    assert cipher(ring=ring).decrypt(old) == PLAIN
    new = changing.encrypt(PLAIN)
    assert cipher(ring=ring).decrypt(old) == PLAIN
    assert cipher(ring=ring).decrypt(new) == PLAIN
    delete()
    assert cipher(ring=ring).decrypt(new) == PLAIN
    with pytest.raises(StoreError):
        cipher(ring=ring).decrypt(old)
    assert len(ring.held) == 1


def test_a_given_key_takes_the_place_of_another_and_what_was_encrypted_before_is_still_decrypted() -> None:
    old = cipher(key="first").encrypt(PLAIN)
    changing = cipher(key="first")
    changing.change_key(Secret("second"))
    assert changing.decrypt(old) == PLAIN
    new = changing.encrypt(PLAIN)
    assert changing.decrypt(new) == PLAIN
    assert cipher(key="second").decrypt(new) == PLAIN
    with pytest.raises(UndecryptableError):
        cipher(key="first").decrypt(new)


def test_what_was_plain_is_encrypted_with_a_given_key() -> None:
    changing = cipher()
    changing.decrypt(PLAIN)
    changing.change_key(Secret("second"))
    new = changing.encrypt(PLAIN)
    assert changing.decrypt(new) == PLAIN
    assert cipher(key="second").decrypt(new) == PLAIN


@pytest.mark.parametrize("encryption", ["auto", "keyring"])
def test_the_next_write_uses_the_key_that_the_settings_ask_for_now(encryption: Encryption) -> None:
    ring = Ring()
    by_keyring, by_settings = cipher(ring=ring).encrypt(PLAIN), cipher(key="a phrase").encrypt(PLAIN)
    for before in (by_keyring, by_settings):
        changed = cipher(encryption, key="a phrase", ring=ring)
        assert changed.decrypt(before) == PLAIN
        name = json.loads(changed.encrypt(PLAIN))["key"]
        assert (name == SETTINGS_KEY) is (encryption == "auto")
