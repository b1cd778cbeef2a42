"""Token in use."""

from __future__ import annotations

from slproxy.auth.token_in_use import Bearer, TokenInUse
from slproxy.store import Record, Token

NOW = 1000.0


def record(access_token: str, *, expires_at: float | None = NOW + 100.0) -> Record:
    token = Token(access_token=access_token, obtained_at=NOW - 100.0, expires_at=expires_at)
    return Record(client_id="c", accounts_url="https://accounts.test", token=token)


def in_use(first: Record | None) -> TokenInUse:
    made = TokenInUse(leeway=20.0, leeway_is_set=True, jitter=0.0)
    made.set_record(first, now=NOW)
    return made


def test_a_token_is_valid_until_its_expiry_and_due_before_it() -> None:
    made = in_use(record("a"))
    assert made.valid(NOW + 99.9) == Bearer("a", 1)
    assert made.valid(NOW + 100.0) is None
    assert made.renewal_due_in(NOW) == 80.0


def test_a_token_without_an_expiry_and_an_api_key_are_valid_for_ever() -> None:
    made = in_use(record("a", expires_at=None))
    assert made.valid(1e12) == Bearer("a", 1)
    made.set_api_key("ak")
    assert made.valid(1e12) == Bearer("ak", 0)


def test_without_a_token_there_is_nothing_valid_and_a_renewal_is_due() -> None:
    made = in_use(record("a"))
    made.set_record(None, now=NOW)
    assert made.valid(NOW) is None
    assert made.renewal_due_in(NOW) == 0.0


def test_a_rejected_token_is_sent_but_not_good_until_another_takes_its_place() -> None:
    made = in_use(record("a"))
    made.rejected = "a"
    made.set_record(record("a"), now=NOW)
    assert made.valid(NOW) is not None
    assert not made.is_good(NOW)
    assert made.renewal_due_in(NOW) == 0.0
    made.set_record(record("b"), now=NOW)
    assert made.is_good(NOW)
    assert made.renewal_due_in(NOW) == 80.0
