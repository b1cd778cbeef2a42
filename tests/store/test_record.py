"""Record of a login."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slproxy.store import Record, Token

RECORD = Record(
    client_id="client-1",
    accounts_url="https://accounts.salesloft.com",
    token=Token(
        access_token="hidden-access",
        refresh_token="hidden-refresh",
        obtained_at=1_795_000_000.25,
        expires_at=1_795_007_200.25,
        scope="a b",
    ),
    generation=7,
)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"client_id": "client-2"}, "of the client client-1, not client-2"),
        ({"client_id": ""}, "of the client client-1, not none"),
        ({"client_id": "CLIENT-1"}, "of the client client-1, not CLIENT-1"),
        ({"accounts_url": "http://127.0.0.1:9"}, "of the accounts_url https://accounts.salesloft.com, not http://127"),
        ({"api_url": "http://127.0.0.1:9"}, "of the api_url https://api.salesloft.com, not http://127.0.0.1:9"),
        ({"profile": "work"}, "of the profile default, not work"),
    ],
)
def test_a_record_belongs_to_one_client_for_one_api_at_one_accounts_host_in_one_profile(
    changed: dict[str, str], said: str
) -> None:
    owner = replace(RECORD.owner, **changed)
    assert RECORD.belongs_to(owner) is (not changed)
    assert RECORD.differs_from(owner).startswith(said)
    assert bool(RECORD.differs_from(owner)) is bool(changed)


def test_a_renewed_record_is_the_next_generation_of_the_same_login() -> None:
    token = Token(access_token="new", obtained_at=2.0)
    old = replace(RECORD, refused="invalid_grant")
    assert old.renewed(token) == replace(RECORD, token=token, generation=8, refused="")
    assert old.generation == 7


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        pytest.param(RECORD, replace(RECORD, login=2, generation=1), id="another login"),
        pytest.param(RECORD, replace(RECORD, generation=8), id="a renewal"),
        pytest.param(
            RECORD, replace(RECORD, token=replace(RECORD.token, obtained_at=1_795_000_001.0)), id="the same one later"
        ),
    ],
)
def test_of_two_records_it_is_known_which_is_newer(older: Record, newer: Record) -> None:
    assert older.is_older_than(newer)
    assert not newer.is_older_than(older)
    assert not older.is_older_than(older)
