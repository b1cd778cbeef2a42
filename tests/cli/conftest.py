"""Fixtures of the tests of commands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.support.logins import KEYRING
from tests.support.redis import redis_server


@pytest.fixture
def chosen_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this process take the keyring as the others do: it does not encrypt, so somebody must have chosen it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in KEYRING.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def redis_anew() -> Iterator[str]:
    with redis_server() as url:
        yield url


@pytest.fixture
def redis_url(redis_anew: str) -> str:
    """An empty Redis."""
    with contextlib.closing(Redis.from_url(redis_anew)) as client:
        client.flushall()
    return redis_anew
