"""Parsing: types, units, bounds and the validators of single settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.settings import SECRET, loaded, refusal, value


@pytest.mark.parametrize(
    ("toml", "expected", "got"),
    [
        pytest.param(
            "[listen]\nport = '9000'", "an integer from 0 to 65535, e.g. 8642", "the string '9000'", id="text"
        ),
        pytest.param("[listen]\nport = true", "an integer", "got true", id="a boolean is no integer"),
        pytest.param("[listen]\nport = 1.0", "an integer", "got 1", id="a float is no integer"),
        pytest.param("[listen]\nport = 65536", "0 to 65535", "65536", id="above the last port"),
        pytest.param("[listen]\nport = -1", "0 to 65535", "-1", id="below the first port"),
        pytest.param("[listen]\nport = []", "an integer", "a list", id="a list"),
        pytest.param("[listen]\nport = 1979-05-27", "an integer", "a date", id="a date"),
        pytest.param("[listen]\nhost = 1", "a string", "got 1", id="a number is no host"),
        pytest.param("[listen]\naccept_hosts = 'a'", "a list of strings", "the string 'a'", id="text is no list"),
        pytest.param("[listen]\naccept_hosts = [1]", "a list of strings", "a list", id="a list of numbers"),
        pytest.param("[listen]\nuds_mode = 600", 'octal, e.g. "0600"', "not in octal", id="a mode in decimal"),
        pytest.param("[listen]\nuds_mode = 600 # 0o600", 'octal, e.g. "0600"', "not in octal", id="octal in a comment"),
        pytest.param("[listen]\nuds_mode = '0800'", 'octal, e.g. "0600"', "'0800'", id="a mode with an 8"),
        pytest.param("[listen]\nuds_mode = '7777'", 'octal, e.g. "0600"', "'7777'", id="a mode with sticky bits"),
        pytest.param("[upstream]\nconnect_timeout = 0", "from 0.001 to 86400", "got 0", id="no time at all"),
        pytest.param("[upstream]\nconnect_timeout = true", "a number", "got true", id="a boolean is no time"),
        pytest.param("[auth]\napi_key = 123456", "a string", "got an integer", id="a number is no key"),
        pytest.param("[upstream]\nconnect_timeout = nan", "a number", "nan", id="not a number"),
        pytest.param("[upstream]\nconnect_timeout = inf", "a number", "inf", id="for ever"),
        pytest.param("[upstream]\nmax_connections = 0", "at least 1", "got 0", id="no connection"),
        pytest.param(f"[retry]\nbudget = 1{'0' * 400}", "a number", "a huge number", id="beyond any float"),
        pytest.param(f"[retry]\nattempts = 1{'0' * 400}", "an integer", "a huge number", id="beyond any counter"),
        pytest.param("[retry]\nattempts = 0", "at least 1", "got 0", id="no attempt"),
        pytest.param("[retry]\nbudget = -0.1", "at least 0", "-0.1", id="a negative budget"),
        pytest.param("[pace]\nreserve = 0.91", "from 0 to 0.9", "0.91", id="nearly all reserved"),
        pytest.param("[pace]\nlimit = 0", "at least 1", "got 0", id="no budget"),
        pytest.param("[pace]\nmode = 'fast'", "one of pace, observe, off", "'fast'", id="not a choice"),
        pytest.param("[limits]\nmax_target = '1 MB'", "MiB", "'1 MB'", id="a decimal unit"),
        pytest.param("[limits]\nmax_target = '1024'", "MiB", "'1024'", id="bytes as text"),
        pytest.param("[limits]\nmax_target = -1", "at least 1", "-1", id="a negative size"),
        pytest.param("[policy]\nread_only = 'true'", "true or false", "'true'", id="a switch as text"),
        pytest.param("[policy]\nread_only = 1", "true or false", "got 1", id="a switch as a number"),
        pytest.param("[log]\nlevel = 'TRACE'", "one of debug, info, warning, error", "'TRACE'", id="no choice"),
        pytest.param("listen = 1", "a table", "got 1", id="a section that is no table"),
        pytest.param("profile = 'work'", "[profile.work.auth]", "slproxy.toml:1", id="the profile as a value"),
        pytest.param("[profile]\nwork = 1", "[profile.work.auth]", "slproxy.toml:2", id="a profile that is no table"),
        pytest.param("[profile.'a b'.log]\nlevel = 'info'", "1 to 64 letters", "slproxy.toml:1", id="a profile's name"),
        pytest.param("[store]\npath = ''", "is empty", "remove it", id="an empty path"),
        pytest.param('[listen]\nuds = "a\\u0000b"', "control character", "slproxy.toml:2", id="NUL in a path"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(toml: str, expected: str, got: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, toml=toml)
    assert expected in message
    assert got in message
    assert "slproxy.toml:" in message


@pytest.mark.parametrize(
    ("variable", "text", "key", "expected"),
    [
        *[("SLPROXY_POLICY__READ_ONLY", text, "policy.read_only", True) for text in ("true", "1", "YES", "on")],
        *[("SLPROXY_POLICY__READ_ONLY", text, "policy.read_only", False) for text in ("False", "0", "no", "off")],
        ("SLPROXY_LISTEN__PORT", " 9000 ", "listen.port", 9000),
        ("SLPROXY_RETRY__BUDGET", ".5", "retry.budget", 0.5),
        ("SLPROXY_RETRY__DEADLINE", "30", "retry.deadline", 30.0),
        ("SLPROXY_LIMITS__MAX_TARGET", "2048", "limits.max_target", 2048),
        ("SLPROXY_LIMITS__MAX_TARGET", "2 KiB", "limits.max_target", 2048),
        ("SLPROXY_LIMITS__REPLAY_DISK", "1GiB", "limits.replay_disk", 1024**3),
        ("SLPROXY_LISTEN__UDS_MODE", "0660", "listen.uds_mode", 0o660),
        ("SLPROXY_LISTEN__UDS_MODE", "660", "listen.uds_mode", 0o660),
        ("SLPROXY_LISTEN__UDS_MODE", "0o660", "listen.uds_mode", 0o660),
        ("SLPROXY_LISTEN__ACCEPT_HOSTS", "A.test, b_1.test.,", "listen.accept_hosts", ("a.test", "b_1.test")),
        ("SLPROXY_LISTEN__ACCEPT_HOSTS", '["a.test"]', "listen.accept_hosts", ("a.test",)),
        ("SLPROXY_LISTEN__ACCEPT_HOSTS", "[]", "listen.accept_hosts", ()),
        ("SLPROXY_LISTEN__ACCEPT_HOSTS", "FD00:0::1,10.0.0.1", "listen.accept_hosts", ("[fd00::1]", "10.0.0.1")),
        ("SLPROXY_LISTEN__ALLOW_ORIGINS", "HTTPS://A.test:443", "listen.allow_origins", ("https://a.test",)),
        ("SLPROXY_LISTEN__ALLOW_ORIGINS", "http://a.test:81", "listen.allow_origins", ("http://a.test:81",)),
        ("SLPROXY_LISTEN__HOST", "[::1]", "listen.host", "::1"),
        ("SLPROXY_UPSTREAM__API_URL", "https://A.test/", "upstream.api_url", "https://a.test"),
        ("SLPROXY_UPSTREAM__API_URL", "http://[::1]:8643", "upstream.api_url", "http://[::1]:8643"),
        ("SLPROXY_UPSTREAM__API_URL", "http://x.localhost:80", "upstream.api_url", "http://x.localhost"),
        ("SALESLOFT_SCOPE", "a:read b", "auth.scope", "a:read b"),
        ("SALESLOFT_API_KEY", f" {SECRET}\n", "auth.api_key", SECRET),
    ],
)
def test_text_of_the_environment_is_understood(
    variable: str, text: str, key: str, expected: object, tmp_path: Path
) -> None:
    got = value(loaded(tmp_path, env={variable: text}), key)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("toml", "key", "expected"),
    [
        ("[listen]\nuds_mode = 0o660", "listen.uds_mode", 0o660),
        ("listen = { uds_mode = 0o660 }", "listen.uds_mode", 0o660),
        ("[listen]\nuds_mode = '0660'", "listen.uds_mode", 0o660),
        ("[limits]\nreplay_memory = '2 MiB'", "limits.replay_memory", 2 * 1024**2),
        ("[limits]\nreplay_memory = 0", "limits.replay_memory", 0),
        ("[retry]\nmax_wait = 3", "retry.max_wait", 3.0),
        ("listen.port = 0", "listen.port", 0),
    ],
)
def test_values_of_the_file_are_understood(toml: str, key: str, expected: object, tmp_path: Path) -> None:
    got = value(loaded(tmp_path, toml=toml), key)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SLPROXY_LISTEN__PORT", "9000.0"),
        ("SLPROXY_LISTEN__PORT", "9_000"),
        ("SLPROXY_LISTEN__PORT", "٩"),
        ("SLPROXY_RETRY__BUDGET", "nan"),
        ("SLPROXY_RETRY__BUDGET", "inf"),
        ("SLPROXY_RETRY__BUDGET", "1e999"),
        ("SLPROXY_POLICY__READ_ONLY", "maybe"),
        ("SLPROXY_LISTEN__ACCEPT_HOSTS", "[1]"),
        ("SLPROXY_LISTEN__ACCEPT_HOSTS", "[oops"),
        ("SLPROXY_LIMITS__MAX_TARGET", "1.5 MiB"),
        ("SLPROXY_LISTEN__UDS_MODE", "rw-------"),
    ],
)
def test_text_of_the_environment_that_means_nothing_is_refused(variable: str, text: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, env={variable: text})
    assert f"env {variable}" in message
    assert "expected" in message


def test_all_mistakes_are_told_at_once_one_a_line(tmp_path: Path) -> None:
    message = refusal(
        tmp_path,
        toml="[listen]\nprot = 1\n[retry]\nattempts = 0",
        env={"SLPROXY_LOG__LEVEL": "loud", "SLPROXY_X": "1"},
    )
    for part in ("listen.prot (file slproxy.toml:2)", "retry.attempts (file slproxy.toml:4)", "log.level", "SLPROXY_X"):
        assert len([line for line in message.splitlines() if line.startswith(part)]) == 1
