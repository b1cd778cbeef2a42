"""``[client.NAME]``: a table for each client, in the file or in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from slproxy.changes import changes
from slproxy.config import Secret, check_listening, effective
from slproxy.errors import ConfigError
from tests.support.settings import SECRET, loaded, refusal

REPORT = f"[client.report]\nkey = '{SECRET}'\n"


def test_a_client_has_a_key_and_rules_with_the_defaults_of_the_policy(tmp_path: Path) -> None:
    toml = REPORT + "read_only = true\nbudget = 60\npriority = 'bulk'\nreject_paths = ['/v2/emails']"
    report = loaded(tmp_path, toml=toml).clients["report"]
    assert report.key == Secret(SECRET)
    assert (report.read_only, report.budget, report.priority) == (True, 60, "bulk")
    assert (report.accept_paths, report.reject_paths) == (("/v2/",), ("/v2/emails",))


def test_the_environment_may_name_a_client_and_change_one_of_the_file(tmp_path: Path) -> None:
    mounted = tmp_path / "key"
    mounted.write_text("another-key")
    settings = loaded(
        tmp_path,
        toml="[client.weekly-report]\nkey = 'x'",
        env={
            "SLPROXY_CLIENT__WEEKLY_REPORT__BUDGET": "30",
            "SLPROXY_CLIENT__AGENT__KEY_FILE": str(mounted),
            "SLPROXY_CLIENT__AGENT__ACCEPT_PATHS": "/v2/people,/v2/me",
        },
    )
    assert list(settings.clients) == ["agent", "weekly-report"]
    assert settings.clients["weekly-report"].budget == 30
    assert settings.clients["agent"].key == Secret("another-key")
    assert settings.clients["agent"].accept_paths == ("/v2/people", "/v2/me")


def test_a_profile_may_have_clients_of_its_own(tmp_path: Path) -> None:
    toml = REPORT + "[profile.work.client.report]\nbudget = 5\n[profile.work.client.agent]\nkey = 'x'"
    assert set(loaded(tmp_path, toml=toml).clients) == {"report"}
    assert loaded(tmp_path, toml=toml, profile="work").clients["report"].budget == 5
    assert set(loaded(tmp_path, toml=toml, profile="work").clients) == {"report", "agent"}


@pytest.mark.parametrize(
    ("toml", "env", "says"),
    [
        ("[client.report]\nbudget = 1", {}, "client.report (file slproxy.toml:2) has no key"),
        ("", {"SLPROXY_CLIENT__REPORT__BUDGET": "1"}, "client.report (env SLPROXY_CLIENT__REPORT__BUDGET) has no key"),
        ("[client.Report]\nkey = 'x'", {}, "expected a name of 1 to 32 small letters"),
        ("[client.a__b]\nkey = 'x'", {}, "expected a name of 1 to 32 small letters"),
        ("[client]\nkey = 'x'", {}, "client.key (file slproxy.toml:2): expected tables such as [client.report]"),
        (REPORT + "keys = 'y'", {}, "client.report.keys (file slproxy.toml:3): no setting has this name"),
        ("", {"SLPROXY_CLIENT__REPORT__KEYS": "x"}, "no setting has this name"),
        (REPORT + "budget = 0", {}, "client.report.budget (file slproxy.toml:3): expected an integer of at least 1"),
        (REPORT + "accept_paths = []", {}, "client.report.accept_paths (file slproxy.toml:3): is empty"),
        (REPORT + "reject_paths = ['/x']", {}, "is below nothing in client.report.accept_paths"),
        (REPORT + "priority = 'low'", {}, "expected one of interactive, bulk"),
        (REPORT + f"[client.agent]\nkey = '{SECRET}'", {}, "client.agent.key (file slproxy.toml:4) and client.report"),
        (REPORT, {"SLPROXY_LISTEN__KEY": SECRET}, "are the same: a client is known by its key"),
        (REPORT + "budget = 9\n[pace]\nmode = 'off'", {}, "is off: it would not hold"),
        (
            "[client.a-b]\nkey = 'x'\n[client.a_b]\nkey = 'y'",
            {"SLPROXY_CLIENT__A_B__READ_ONLY": "true"},
            "client.a-b and client.a_b are the same in the environment",
        ),
        (REPORT + "key_file = 'x'", {}, "expected either key or key_file, got both"),
    ],
)
def test_what_is_wrong_with_a_client_is_said(toml: str, env: dict[str, str], says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path, toml=toml, env=env)


@pytest.mark.parametrize(
    "toml",
    [
        REPORT + "accept_paths = ['/v2/people']\nreject_paths = ['/v2/users']",
        "[policy]\naccept_paths = ['/v2/people']\nreject_paths = ['/v2/users']",
        "[policy]\naccept_paths = ['/v2/', '/v3/']\n" + REPORT + "reject_paths = ['/v3/users']",
        "[policy]\naccept_paths = ['/v2/people']\n" + REPORT + "reject_paths = ['/v2/users']",
    ],
)
def test_what_is_closed_already_may_be_rejected(toml: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, toml=toml)


def test_the_settings_of_clients_are_shown_with_their_origins_and_without_keys(tmp_path: Path) -> None:
    rows = {row.key: (row.value, row.origin) for row in effective(loaded(tmp_path, toml=REPORT + "budget = 9"))}
    assert SECRET not in repr(rows)
    assert rows["client.report.key"] == ("***", "file slproxy.toml:2")
    assert rows["client.report.budget"] == ("9", "file slproxy.toml:3")
    assert rows["client.report.read_only"] == ("false", "default")


def test_a_reload_names_what_of_a_client_changed(tmp_path: Path) -> None:
    before = loaded(tmp_path, toml=REPORT)
    assert changes(before, loaded(tmp_path, toml=REPORT + "budget = 9")).changed == ["client.report.budget"]
    gone = changes(before, loaded(tmp_path, toml="")).changed
    assert gone
    assert all(key.startswith("client.report.") for key in gone)


def test_a_proxy_that_others_reach_needs_no_other_key_than_those_of_its_clients(tmp_path: Path) -> None:
    everywhere = {"SLPROXY_LISTEN__HOST": "0.0.0.0"}
    check_listening(loaded(tmp_path, toml=REPORT, env=everywhere))
    with pytest.raises(ConfigError, match=r"client\.agent\.key .* has under 16 characters"):
        check_listening(loaded(tmp_path, toml=REPORT + "[client.agent]\nkey = 'short'", env=everywhere))
