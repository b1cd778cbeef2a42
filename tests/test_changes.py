"""What a reload changes: which keys take effect, which wait for a new start, and which parts are made anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slproxy.changes import changes
from slproxy.config import Settings, StoreSettings

SETTINGS = Settings(store=StoreSettings(path=Path("unused")))


def with_key(key: str, value: object) -> Settings:
    section, name = key.split(".")
    part: Any = getattr(SETTINGS, section)
    return replace(SETTINGS, **{section: replace(part, **{name: value})})


@pytest.mark.parametrize(
    ("key", "value", "anew"),
    [
        ("policy.read_only", True, set()),
        ("pace.limit", 300, set()),
        ("upstream.idle_timeout", 9.0, {"upstream", "credentials"}),
        ("auth.leeway", 9.0, {"credentials"}),
        ("store.kind", "memory", {"store", "credentials"}),
    ],
)
def test_a_key_that_changes_takes_effect_with_the_parts_that_stand_on_it(
    key: str, value: object, anew: set[str]
) -> None:
    change = changes(SETTINGS, with_key(key, value))
    assert (change.changed, change.later) == ([key], [])
    assert {part for part in ("store", "upstream", "credentials") if getattr(change, part)} == anew
    assert change.settings == with_key(key, value)


@pytest.mark.parametrize(
    "key", ["listen.host", "listen.port", "listen.uds", "listen.uds_mode", "log.level", "log.format"]
)
def test_what_is_made_at_the_start_waits_for_a_new_one(key: str) -> None:
    change = changes(SETTINGS, with_key(key, "other"))
    assert (change.changed, change.later) == ([], [key])
    assert change.settings == SETTINGS


@pytest.mark.parametrize(
    ("key", "value", "same"),
    [("auth.client_id", "other", False), ("auth.grant", "api_key", False), ("auth.leeway", 9.0, True)],
)
def test_other_credentials_spend_another_rate_limit(key: str, value: object, same: bool) -> None:
    assert changes(SETTINGS, with_key(key, value)).is_same_team is same


def test_nothing_changes_by_the_same_settings() -> None:
    change = changes(SETTINGS, SETTINGS)
    assert (change.changed, change.later, change.is_same_team) == ([], [], True)
    assert (change.store, change.upstream, change.credentials) == (False, False, False)
