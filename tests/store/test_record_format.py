"""Stored formats: a login that an earlier version has stored still loads."""

from __future__ import annotations

import json
from dataclasses import replace

from slproxy.config import Secret
from slproxy.store import Record, Token, TokenCipher
from slproxy.store.record_format import parse_record, serialize_record

# As version 0.1 has written them; these bytes never change.
PLAIN = b"""{
 "format": "slproxy-token-1",
 "client_id": "client-1",
 "accounts_url": "https://accounts.salesloft.com",
 "profile": "work",
 "login": 1795000000000,
 "generation": 7,
 "refused": "",
 "user_id": 3,
 "team_id": 1,
 "access_token": "hidden-access",
 "refresh_token": "hidden-refresh",
 "obtained_at": 1795000000.25,
 "expires_at": 1795007200.25,
 "scope": "a b"
}
"""
ENCRYPTED = b"""{
 "format": "slproxy-sealed-1",
 "key": "store.key",
 "salt": "CeX1cyE3ul0gpzSpsXUF1w==",
 "sealed": "%s"
}
""" % b"".join(
    (
        b"gAAAAABrC0PRvttfTkYKQ7t4HUn6z1LKsbyWfWhQp5WIQB2sN9M_SIFNgVoOe_nwXBBz8F3M2ZmznqnUFFebfYVN0MJ_jtseCMZdVZybB3",
        b"ZJbB7CVYC8uwIyhbKBb-RWvyfjsj0u9kPpRJTJkMx9aNP9PlN6HOgET-6ZVpgTSd0nk4iaN4jwyvoJK4oC8w3f0EuNXzfjrrGHYJZp3aNs",
        b"QDs0DgEnFZTjUVjkrUvhmq7jmulLQ3CFkFXLAZNVnMPlxjiYVQhPT3-ZWw2B32JwK3AzJ-MqowVvtIu9YPxAkobB0SX98Pmv5Biw7THeTM",
        b"ly3ASGO6pKuR_6cdvyQVRr_AwRddFfF7f0XvB-l7sXk_72OpUfXtMDz3ig5OXOAde7STvhNGFfQBWUoIKFgXv-uT20iI70qf2wBqOUHR8l",
        b"295PJpGi88IZ8EgNskMuql91bMOq7Auk1E16AvqCeYWByZSoz8SSHQVx4knaMTER55SoFuRkuU7yxshLCX_rUjCDqPkV2bcu0BDR3iLK_L",
        b"875wNm4irxwvv5A7wiiL28gqzI-VAeVO9HaNM=",
    )
)
RECORD = Record(
    client_id="client-1",
    accounts_url="https://accounts.salesloft.com",
    profile="work",
    login=1_795_000_000_000,
    generation=7,
    user_id=3,
    team_id=1,
    token=Token(
        access_token="hidden-access",
        refresh_token="hidden-refresh",
        obtained_at=1_795_000_000.25,
        expires_at=1_795_007_200.25,
        scope="a b",
    ),
)


def test_a_record_of_an_earlier_version_is_read_and_written_byte_for_byte_but_for_the_api_that_it_belongs_to() -> None:
    assert parse_record(PLAIN) == RECORD
    assert RECORD.api_url == "https://api.salesloft.com"
    profile = b' "profile": "work",\n'
    assert serialize_record(RECORD) == PLAIN.replace(profile, profile + b' "api_url": "https://api.salesloft.com",\n')
    token = replace(RECORD.token, clock_offset=-3600.5)
    assert parse_record(serialize_record(more := replace(RECORD, api_url="http://127.0.0.1:9", token=token))) == more


def test_a_record_from_before_logins_were_counted_is_read() -> None:
    document = json.loads(PLAIN)
    for name in ("login", "user_id", "team_id"):
        del document[name]
    older = parse_record(json.dumps(document).encode())
    assert (older.login, older.user_id, older.team_id) == (1, None, None)


def test_an_encrypted_record_of_an_earlier_version_is_decrypted() -> None:
    cipher = TokenCipher("key", key=Secret("a phrase of the test"), keyring=lambda: None)
    assert cipher.decrypt(ENCRYPTED) == PLAIN
    assert json.loads(cipher.encrypt(PLAIN)).keys() == json.loads(ENCRYPTED).keys()


def test_an_earlier_version_s_login_at_a_sandbox_belongs_to_that_sandbox() -> None:
    document = {**json.loads(PLAIN), "accounts_url": "http://127.0.0.1:8643"}
    assert parse_record(json.dumps(document).encode()).api_url == "http://127.0.0.1:8643"
