from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from slproxy.config import SCHEMA, Secret, Settings, effective, is_loopback
from slproxy.config.load import load
from slproxy.config.schema import SECTIONS
from slproxy.config.setting import Setting
from slproxy.errors import ConfigError
from tests.support import ROOT

EXAMPLE = ROOT / "config.example.toml"
# Long, so that no message could hold it by chance.
SECRET = "sEcReT-0123456789-abcdefghij"


def loaded(
    cwd: Path,
    *,
    toml: str | None = None,
    dotenv: str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    profile: str | None = None,
    config: Path | None = None,
) -> Settings:
    """Load with ``cwd`` as the whole world: its own home, and no other file or variable."""
    if toml is not None:
        (cwd / "slproxy.toml").write_text(toml)
    if dotenv is not None:
        (cwd / ".env").write_text(dotenv)
    home = {"XDG_CONFIG_HOME": str(cwd / "config-home"), "XDG_STATE_HOME": str(cwd / "state-home")}
    return load(config=config, profile=profile, flags=flags or {}, environ=home | dict(env or {}), cwd=cwd)


def value(settings: Settings, key: str) -> object:
    section, name = key.split(".")
    found: object = getattr(getattr(settings, section), name)
    return found.reveal() if isinstance(found, Secret) else found


def refusal(
    cwd: Path,
    *,
    toml: str | None = None,
    dotenv: str | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    profile: str | None = None,
    config: Path | None = None,
) -> str:
    """Return the message and the hint that the load ends in; there is always both, and never the secret."""
    with pytest.raises(ConfigError) as caught:
        loaded(cwd, toml=toml, dotenv=dotenv, env=env, flags=flags, profile=profile, config=config)
    error = caught.value
    assert error.exit_code == 2
    message = f"{error.detail} | {error.hint}"
    assert error.hint or "\n" in error.detail
    assert SECRET not in message
    return message


# Precedence and origins


def test_with_nothing_set_every_value_is_the_default_of_the_contract(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    got = {key: value(settings, key) for key in SCHEMA}
    assert got == {
        "listen.host": "127.0.0.1",
        "listen.port": 8642,
        "listen.uds": None,
        "listen.uds_mode": 0o600,
        "listen.key": None,
        "listen.accept_hosts": (),
        "listen.allow_origins": (),
        "listen.allow_unauthenticated": False,
        "upstream.api_url": "https://api.salesloft.com",
        "upstream.accounts_url": "https://accounts.salesloft.com",
        "upstream.ca_file": None,
        "upstream.connect_timeout": 5.0,
        "upstream.response_timeout": 60.0,
        "upstream.idle_timeout": 60.0,
        "upstream.max_connections": 100,
        "auth.grant": "auto",
        "auth.client_id": None,
        "auth.client_secret": None,
        "auth.redirect_uri": "http://localhost:3000/callback",
        "auth.api_key": None,
        "auth.scope": None,
        "auth.leeway": 120.0,
        "store.kind": "file",
        "store.path": tmp_path / "state-home" / "slproxy" / "default.json",
        "store.redis_url": None,
        "store.encryption": "auto",
        "store.key": None,
        "retry.attempts": 4,
        "retry.max_wait": 60.0,
        "retry.deadline": 120.0,
        "retry.budget": 0.2,
        "pace.mode": "pace",
        "pace.limit": 600,
        "pace.reserve": 0.0,
        "pace.max_wait": 75.0,
        "pace.burst": 1.0,
        "policy.read_only": False,
        "policy.accept_paths": ("/v2/",),
        "policy.reject_paths": (),
        "limits.replay_memory": 1024**2,
        "limits.replay_disk": 64 * 1024**2,
        "limits.max_connections": 1000,
        "limits.header_timeout": 15.0,
        "limits.body_timeout": 60.0,
        "limits.max_target": 32 * 1024,
        "limits.max_headers": 64 * 1024,
        "log.level": "info",
        "log.format": "auto",
    }
    assert {str(origin) for origin in settings.origins.values()} == {"default"}
    assert set(settings.origins) == set(SCHEMA)
    assert settings.profile == "default"


LAYERS = ["file", "dotenv", "env", "flag"]


@pytest.mark.parametrize("top", LAYERS)
def test_the_highest_layer_that_gives_a_value_wins_and_is_named_as_its_origin(top: str, tmp_path: Path) -> None:
    given = LAYERS[: LAYERS.index(top) + 1]
    settings = loaded(
        tmp_path,
        toml="\n[listen]\nport = 1\n" if "file" in given else None,
        dotenv="A=b\n\nSLPROXY_LISTEN__PORT=2\n" if "dotenv" in given else None,
        env={"SLPROXY_LISTEN__PORT": "3"} if "env" in given else None,
        flags={"listen.port": 4} if "flag" in given else None,
    )
    port, origin = {
        "file": (1, "file slproxy.toml:3"),
        "dotenv": (2, ".env:3"),
        "env": (3, "env SLPROXY_LISTEN__PORT"),
        "flag": (4, "flag --port"),
    }[top]
    assert settings.listen.port == port
    assert str(settings.origins["listen.port"]) == origin


def test_a_flag_that_is_none_or_an_empty_variable_is_not_given(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        dotenv="SLPROXY_LISTEN__PORT=2\n",
        env={"SLPROXY_LISTEN__PORT": "  ", "SALESLOFT_API_KEY": "", "SLPROXY_NO_SUCH": ""},
        flags={"listen.port": None},
    )
    assert settings.listen.port == 2
    assert settings.auth.api_key is None


@pytest.mark.parametrize("setting", SCHEMA.values(), ids=lambda setting: setting.key)
def test_every_setting_can_be_set_from_the_environment(setting: Setting, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.touch()
    special = {
        "listen.host": "::1",
        "listen.uds": str(tmp_path / "a.sock"),
        "listen.accept_hosts": "a.test",
        "listen.allow_origins": "https://a.test",
        "upstream.api_url": "https://a.test",
        "upstream.accounts_url": "https://b.test",
        "auth.redirect_uri": "https://a.test/cb",
        "store.kind": "memory",
        "store.encryption": "off",
        "policy.accept_paths": "/v2/me.json",
        "policy.reject_paths": "/v2/users/",
        "pace.reserve": "0.5",
        "pace.burst": "0.5",
    }
    plain = {
        "text": setting.choices[-1] if setting.choices else "x",
        "integer": "7",
        "number": "7.5",
        "size": "7",
        "mode": "0660",
        "switch": "true",
        "path": str(tmp_path / "x"),
        "file": str(ca_file),
        "secret": SECRET,
        "list": "x",
    }
    pair = {"SALESLOFT_CLIENT_ID": "id"} if setting.key == "auth.client_secret" else {}
    if setting.key == "store.redis_url":
        pair = {"SLPROXY_STORE__KIND": "redis"}
    env = {setting.variables[-1]: special.get(setting.key, plain[setting.kind])} | pair
    settings = loaded(tmp_path, env=env)
    assert value(settings, setting.key) != setting.default
    assert str(settings.origins[setting.key]) == f"env SLPROXY_{setting.section.upper()}__{setting.name.upper()}"


@pytest.mark.parametrize("name", ["CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI", "API_KEY", "SCOPE"])
@pytest.mark.parametrize("suffix", ["", "_FILE"])
def test_every_credential_has_the_name_that_salesloft_users_know(name: str, suffix: str, tmp_path: Path) -> None:
    text = "https://a.test/cb" if name == "REDIRECT_URI" else "abc"
    mounted = tmp_path / "mounted"
    mounted.write_text(f"{text}\r\n\n")
    settings = loaded(
        tmp_path,
        env={"SLPROXY_AUTH__CLIENT_ID": "abc", f"SALESLOFT_{name}{suffix}": str(mounted) if suffix else text}
        if name != "CLIENT_ID"
        else {f"SALESLOFT_{name}{suffix}": str(mounted) if suffix else text},
    )
    assert value(settings, f"auth.{name.lower()}") == text
    shown = f" ({mounted})" if suffix else ""
    assert str(settings.origins[f"auth.{name.lower()}"]) == f"env SALESLOFT_{name}{suffix}{shown}"


# Which file


def test_the_file_is_the_flag_then_the_variable_then_the_folder_at_hand_then_the_users(tmp_path: Path) -> None:
    user = tmp_path / "config-home" / "slproxy" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("[listen]\nport = 1")
    assert loaded(tmp_path).listen.port == 1
    assert loaded(tmp_path, toml="[listen]\nport = 2").listen.port == 2
    (tmp_path / "named.toml").write_text("[listen]\nport = 3")
    (tmp_path / "flag.toml").write_text("[listen]\nport = 5")
    assert loaded(tmp_path, dotenv="SLPROXY_CONFIG=named.toml").listen.port == 3
    (tmp_path / "env.toml").write_text("[listen]\nport = 4")
    assert loaded(tmp_path, env={"SLPROXY_CONFIG": str(tmp_path / "env.toml")}).listen.port == 4
    settings = loaded(tmp_path, env={"SLPROXY_CONFIG": "named.toml"}, config=Path("flag.toml"))
    assert settings.listen.port == 5
    assert str(settings.origins["listen.port"]) == "file flag.toml:2"


def test_a_named_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    assert "flag --config" in refusal(tmp_path, config=Path("none.toml"))
    assert "env SLPROXY_CONFIG" in refusal(tmp_path, env={"SLPROXY_CONFIG": "none.toml"})
    (tmp_path / "folder").mkdir()
    assert "cannot be read" in refusal(tmp_path, config=Path("folder"))


@pytest.mark.parametrize(
    ("content", "place"),
    [
        pytest.param(b"[listen]\nport = = 1\n", "slproxy.toml:2:8: is not valid TOML", id="two equal signs"),
        pytest.param(b"[listen]\nhost = 'a", "slproxy.toml:2:10: is not valid TOML", id="a quote left open at the end"),
        pytest.param(b"[listen]\n# caf\xe9\n", "slproxy.toml:2:6: is not UTF-8", id="Latin-1"),
        pytest.param(b"[a]\nx = 1\n[a]\n", "slproxy.toml:3:3: is not valid TOML", id="a table given twice"),
    ],
)
def test_a_file_that_does_not_parse_is_named_with_line_and_column(content: bytes, place: str, tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_bytes(content)
    assert place in refusal(tmp_path)


def test_the_byte_order_mark_of_windows_editors_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_bytes(b"\xef\xbb\xbf[listen]\nport = 1\n")
    assert loaded(tmp_path).listen.port == 1


def test_a_relative_folder_of_the_xdg_variables_is_ignored_as_their_specification_says(tmp_path: Path) -> None:
    path = loaded(tmp_path, env={"XDG_STATE_HOME": "here"}).store.path
    assert path.is_absolute()
    assert not path.is_relative_to(tmp_path)


# .env


def test_dotenv_reads_quotes_and_export_but_expands_nothing(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        dotenv="export SALESLOFT_CLIENT_ID='abc'\nSALESLOFT_CLIENT_SECRET=\"x${HOME}$y\"\n",
        env={"HOME": "/home/jane"},
    )
    assert value(settings, "auth.client_id") == "abc"
    assert value(settings, "auth.client_secret") == "x${HOME}$y"


def test_a_broken_line_of_dotenv_is_told_only_if_it_is_ours(tmp_path: Path) -> None:
    assert loaded(tmp_path, dotenv="OTHER='open\nSLPROXY_LISTEN__PORT=9\n").listen.port == 9
    assert ".env:2" in refusal(tmp_path, dotenv=f'A=b\nSALESLOFT_API_KEY="{SECRET}\n')


def test_a_virtual_environment_called_dotenv_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert loaded(tmp_path).listen.port == 8642


# Profiles

PROFILES = """
[listen]
port = 1
[auth]
client_id = "base"
[profile.work.auth]
client_id = "work"
[profile.default.retry]
attempts = 9
"""


def test_a_profile_overrides_any_section_and_has_its_own_token_file(tmp_path: Path) -> None:
    work = loaded(tmp_path, toml=PROFILES, profile="work")
    assert (work.profile, work.listen.port, work.auth.client_id, work.retry.attempts) == ("work", 1, "work", 4)
    assert work.store.path.name == "work.json"
    assert str(work.origins["auth.client_id"]) == "file slproxy.toml:7"
    default = loaded(tmp_path)
    assert (default.auth.client_id, default.retry.attempts) == ("base", 9)
    assert default.store.path != work.store.path


def test_the_variable_chooses_the_profile_where_no_flag_does(tmp_path: Path) -> None:
    assert loaded(tmp_path, toml=PROFILES, env={"SLPROXY_PROFILE": "work"}).auth.client_id == "work"
    assert loaded(tmp_path, dotenv="SLPROXY_PROFILE=work").auth.client_id == "work"
    assert loaded(tmp_path, env={"SLPROXY_PROFILE": "default"}).auth.client_id == "base"
    assert loaded(tmp_path, profile="default").auth.client_id == "base"


def test_a_profile_may_be_no_more_than_a_token(tmp_path: Path) -> None:
    assert loaded(tmp_path, toml=PROFILES, profile="other").store.path.name == "other.json"


@pytest.mark.parametrize("name", ["", "../x", "a b", "é", "x" * 65, "a.b", "a\n"])
def test_a_profile_name_that_is_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    assert "flag --profile" in refusal(tmp_path, profile=name)


# Names


@pytest.mark.parametrize(
    ("toml", "place", "nearest"),
    [
        pytest.param("[listen]\nprot = 1", "listen.prot (file slproxy.toml:2)", "port", id="a key with a typo"),
        pytest.param("\n[listne]\nport = 1", "listne (file slproxy.toml:2)", "listen", id="a section with a typo"),
        pytest.param("listen = { prot = 1 }", "(file slproxy.toml:1)", "port", id="in an inline table"),
        pytest.param("listen.prot = 1", "(file slproxy.toml:1)", "port", id="a dotted key"),
        pytest.param("port = 1", "port (file slproxy.toml:1)", "listen.port", id="a key outside its section"),
        pytest.param("[listen]\nread_only = true", "slproxy.toml:2", "policy.read_only", id="a key of another section"),
        pytest.param("[profile.x.auth]\nclient = '1'", "slproxy.toml:2", "client_id", id="in a profile not in use"),
        pytest.param(
            "[log]\nlevel_file = 'x'", "log.level_file (file slproxy.toml:2)", "level", id="_file of no secret"
        ),
        pytest.param('[log]\nx = """\nz = 1\n"""\nz = 1', "log.z (file slproxy.toml:5)", "", id="below a long string"),
    ],
)
def test_an_unknown_name_in_the_file_is_told_with_its_line_and_the_nearest(
    toml: str, place: str, nearest: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, toml=toml)
    assert place in message
    assert f"did you mean {nearest}" in message or not nearest


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        pytest.param("SLPROXY_LISTEN_PORT", "SLPROXY_LISTEN__PORT", id="one underscore"),
        pytest.param("SLPROXY_PORT", "SLPROXY_LISTEN__PORT", id="no section"),
        pytest.param("SLPROXY_API_KEY", "SLPROXY_AUTH__API_KEY", id="a credential under our name"),
        pytest.param("SLPROXY_LISTEN__SERVICE_HOST", "SLPROXY_LISTEN__HOST", id="much like Kubernetes"),
        pytest.param("SLPROXY_CA_FILE", "SLPROXY_UPSTREAM__CA_FILE", id="no section, and nearer to another"),
        pytest.param("SLPROXY_LISTEN__PROT", "SLPROXY_LISTEN__PORT", id="a typo"),
        pytest.param("SLPROXY_LISTEN__PORT_FILE", "SLPROXY_LISTEN__PORT", id="a file for what is no secret"),
        pytest.param("SLPROXY_PROFIL", "SLPROXY_PROFILE", id="a typo in what is no setting"),
    ],
)
def test_an_unknown_variable_of_ours_is_told_with_the_nearest(name: str, nearest: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, env={name: SECRET})
    assert name in message
    assert f"did you mean {nearest}?" in message
    assert f"{name} (.env:1)" in refusal(tmp_path, dotenv=f"{name}={SECRET}")


def test_what_kubernetes_injects_for_a_service_called_slproxy_is_left_alone(tmp_path: Path) -> None:
    links = {
        "SLPROXY_SERVICE_HOST": "10.0.0.1",
        "SLPROXY_SERVICE_PORT": "8642",
        "SLPROXY_SERVICE_PORT_HTTP": "8642",
        "SLPROXY_PORT": "tcp://10.0.0.1:8642",
        "SLPROXY_PORT_8642_TCP": "tcp://10.0.0.1:8642",
        "SLPROXY_PORT_8642_TCP_PROTO": "tcp",
        "SLPROXY_PORT_8642_TCP_PORT": "8642",
        "SLPROXY_PORT_8642_TCP_ADDR": "10.0.0.1",
        "SLPROXY_EU_SERVICE_HOST": "10.0.0.2",
        "SLPROXY_EU_PORT": "udp://10.0.0.2:53",
    }
    assert loaded(tmp_path, env=links).listen.port == 8642


def test_variables_of_other_salesloft_tools_are_left_alone(tmp_path: Path) -> None:
    assert loaded(tmp_path, env={"SALESLOFT_BASE_URL": "x", "SALESLOFT_TOKEN_FILE": "x"}).auth.api_key is None


# Types and ranges


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
        pytest.param("[log]\nlevel = 'INFO'", "one of debug, info, warning, error", "'INFO'", id="capitals"),
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


# Secrets


def test_a_secret_shows_itself_only_when_asked(tmp_path: Path) -> None:
    secret = Secret(SECRET)
    settings = loaded(tmp_path, env={"SALESLOFT_API_KEY": SECRET, "SLPROXY_LISTEN__KEY": SECRET})
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>9}", repr(settings), repr(asdict(settings.auth))]
    assert SECRET not in " ".join(shown)
    assert all("***" in each for each in shown)
    assert secret.reveal() == SECRET
    with pytest.raises(TypeError, match="JSON serializable"):
        json.dumps(secret)


def test_a_secret_is_neither_pickled_nor_changed_but_may_be_copied() -> None:
    secret = Secret(SECRET)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    with pytest.raises(AttributeError):
        secret._value = "x"
    assert copy.deepcopy(secret) == secret


def test_secrets_are_equal_to_secrets_of_the_same_value_only() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("é") != Secret("e")
    assert Secret("a") != "a"


@pytest.mark.parametrize("key", [setting.key for setting in SCHEMA.values() if setting.from_file])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(None, "does not exist", id="is missing"),
        pytest.param(b"", "is empty", id="is empty"),
        pytest.param(b"\r\n\n", "is empty", id="holds a line end alone"),
        pytest.param(b"x" * (64 * 1024 + 1), "over 64 KiB", id="is too large"),
    ],
)
def test_a_mounted_file_is_refused_when_it(key: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    if content is not None:
        mounted.write_bytes(content)
    variable = SCHEMA[key].variables[0] + "_FILE"
    message = refusal(tmp_path, env={variable: str(mounted)})
    assert reason in message
    assert f"env {variable} ({mounted})" in message


def test_a_mounted_folder_is_no_secret(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path, env={"SALESLOFT_API_KEY_FILE": str(tmp_path)})


def test_a_file_named_in_the_file_is_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "key").write_text("abc\n")
    (tmp_path / "etc" / "my.toml").write_text("[listen]\nkey_file = 'key'\nuds = 'a.sock'\n")
    settings = loaded(tmp_path, config=Path("etc/my.toml"))
    assert value(settings, "listen.key") == "abc"
    assert settings.listen.uds == str(tmp_path / "etc" / "a.sock")
    assert str(settings.origins["listen.key"]) == f"file etc/my.toml:2 ({tmp_path / 'etc' / 'key'})"


def test_a_mounted_file_that_a_higher_layer_overrides_need_not_exist(tmp_path: Path) -> None:
    toml = "[auth]\napi_key_file = '/nowhere/key'"
    assert value(loaded(tmp_path, toml=toml, env={"SALESLOFT_API_KEY": "abc"}), "auth.api_key") == "abc"


@pytest.mark.parametrize("text", ["a b", "a\tb", "a\x00b", "a\u200bb", "clé", "a\nb"])
@pytest.mark.parametrize("key", ["auth.client_id", "auth.client_secret", "auth.api_key", "listen.key"])
def test_a_mangled_credential_is_told_without_showing_it(key: str, text: str, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.write_text(SECRET + text)
    message = refusal(tmp_path, env={SCHEMA[key].variables[-1] + "_FILE": str(mounted)})
    assert f"{key} (" in message
    assert "looks mangled" in message


@pytest.mark.parametrize(
    "toml",
    [
        f"[auth]\napi_key = ['{SECRET}']",
        f"[auth]\napi_key = '{SECRET} '",
        f"[auth]\napi_key = '{SECRET}'\napi_key_file = 'x'",
        f"[auth]\nclient_secret = '{SECRET}'",
        f"[auth]\napi_kee = '{SECRET}'",
        f"[auth]\napi_key = '{SECRET}",
        f"[store]\nredis_url = 'redis://:{SECRET}@r.test'\nencryption = 'key'",
        f"[store]\nkey = '{SECRET}'\nencryption = 'off'",
        f"[upstream]\napi_url = 'https://me:{SECRET}@a.test'",
    ],
)
def test_no_message_shows_a_secret(toml: str, tmp_path: Path) -> None:
    assert "slproxy.toml:" in refusal(tmp_path, toml=toml)


# Clashes


@pytest.mark.parametrize(
    "env",
    [
        {"SALESLOFT_API_KEY": "a", "SLPROXY_AUTH__API_KEY": "b"},
        {"SALESLOFT_API_KEY": "a", "SALESLOFT_API_KEY_FILE": "/x"},
        {"SLPROXY_LISTEN__KEY": "/x", "SLPROXY_LISTEN__KEY_FILE": "/x"},
        {"SALESLOFT_API_KEY_FILE": "/x", "SLPROXY_AUTH__API_KEY": "b"},
    ],
    ids=" and ".join,
)
def test_two_variables_for_one_setting_clash(env: dict[str, str], tmp_path: Path) -> None:
    for places in (refusal(tmp_path, env=env), refusal(tmp_path, dotenv="\n".join(f"{k}={v}" for k, v in env.items()))):
        assert all(name in places for name in env)


def test_two_names_for_one_value_do_not_clash(tmp_path: Path) -> None:
    env = {"SALESLOFT_API_KEY": "a", "SLPROXY_AUTH__API_KEY": "a"}
    assert value(loaded(tmp_path, env=env), "auth.api_key") == "a"


def test_names_for_one_setting_in_two_layers_do_not_clash(tmp_path: Path) -> None:
    settings = loaded(tmp_path, dotenv="SALESLOFT_API_KEY=a", env={"SLPROXY_AUTH__API_KEY": "b"})
    assert value(settings, "auth.api_key") == "b"


def test_a_value_and_its_file_clash_within_the_file(tmp_path: Path) -> None:
    message = refusal(tmp_path, toml="[auth]\napi_key = 'a'\napi_key_file = 'b'")
    assert "either api_key or api_key_file" in message
    assert "slproxy.toml:3" in message


@pytest.mark.parametrize("key", ["host", "port"])
def test_a_socket_and_an_address_clash(key: str, tmp_path: Path) -> None:
    text = {"host": "'127.0.0.1'", "port": "8642"}[key]
    message = refusal(tmp_path, toml=f"[listen]\n{key} = {text}", flags={"listen.uds": "a.sock"})
    assert "listen.uds (flag --uds)" in message
    assert f"listen.{key} (file slproxy.toml:2)" in message


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "box.lan", "localhost.evil.test", "evillocalhost", "[::]", "127.1"]
)
def test_an_address_that_others_reach_needs_a_key(host: str, tmp_path: Path) -> None:
    toml = f"[listen]\nhost = '{host}'\n"
    message = refusal(tmp_path, toml=toml)
    assert "listen.host (file slproxy.toml:2)" in message
    assert "listen.key" in message
    assert loaded(tmp_path, toml=toml + "key = 'k'").listen.host == host.strip("[]")
    assert loaded(tmp_path, toml=toml + "allow_unauthenticated = true").listen.host == host.strip("[]")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"])
def test_a_loopback_address_needs_no_key(host: str, tmp_path: Path) -> None:
    assert is_loopback(host)
    assert loaded(tmp_path, toml=f"[listen]\nhost = '{host}'").listen.key is None


@pytest.mark.parametrize("key", ["api_url", "accounts_url"])
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://api.salesloft.com", id="http beyond this machine"),
        pytest.param("http://127.0.0.1.evil.test", id="a name that looks like loopback"),
        pytest.param("http://10.0.0.1", id="a private address"),
        pytest.param("https://a.test/v2", id="a path"),
        pytest.param("https://a.test//", id="two slashes"),
        pytest.param("https://a.test?x=1", id="a query"),
        pytest.param("https://a.test#x", id="a fragment"),
        pytest.param("https://me@a.test", id="a user name"),
        pytest.param("https://a.test\\@b.test", id="a backslash"),
        pytest.param("https://a.test:0", id="port 0"),
        pytest.param("https://a.test:65536", id="a port too high"),
        pytest.param("https://[::g]", id="an address that is none"),
        pytest.param("https://", id="no host"),
        pytest.param("ftp://a.test", id="another scheme"),
        pytest.param("a.test", id="no scheme"),
        pytest.param("https://é.test", id="a name to be written in punycode"),
    ],
)
def test_an_upstream_that_is_no_safe_origin_is_refused(key: str, url: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, toml=f"[upstream]\n{key} = '{url}'")
    assert f"upstream.{key} (file slproxy.toml:2)" in message
    assert "expected" in message


@pytest.mark.parametrize(
    ("key", "toml"),
    [
        ("auth.redirect_uri", "'/callback'"),
        ("auth.redirect_uri", "'http://a.test/callback'"),
        ("auth.redirect_uri", "'https://a.test/callback#x'"),
        ("auth.redirect_uri", "'https://a.test/call back'"),
        ("auth.redirect_uri", "'urn:ietf:wg:oauth:2.0:oob'"),
        ("auth.scope", "'a  b'"),
        ("auth.scope", "'a\"b'"),
        ("listen.host", "'127.0.0.1:8642'"),
        ("listen.host", "'http://localhost'"),
        ("listen.accept_hosts", "['a.test:8642']"),
        ("listen.accept_hosts", "['http://a.test']"),
        ("listen.accept_hosts", "['a.test/x']"),
        ("listen.accept_hosts", "['*.a.test']"),
        ("listen.accept_hosts", "['']"),
        ("listen.allow_origins", "['*']"),
        ("listen.allow_origins", "['null']"),
        ("listen.allow_origins", "['a.test']"),
        ("listen.allow_origins", "['https://a.test/']"),
        ("listen.allow_origins", "['https://*.a.test']"),
        ("policy.accept_paths", "[]"),
        ("policy.accept_paths", "['v2/']"),
        ("policy.accept_paths", "['//v2/']"),
        ("policy.accept_paths", "['/v2/?x']"),
        ("policy.accept_paths", "['^/v2/']"),
        ("policy.accept_paths", "['/v2/*']"),
        ("policy.accept_paths", "['/v2/../x']"),
        ("policy.reject_paths", "['users']"),
        ("policy.reject_paths", "['/oauth/']"),
        ("policy.reject_paths", "['/v2/']"),
        ("policy.reject_paths", "['']"),
        ("store.path", "'~no-such-user/token.json'"),
        ("upstream.ca_file", "'no-such.pem'"),
        ("upstream.ca_file", "'.'"),
    ],
)
def test_a_value_against_the_rule_of_its_setting_is_refused(key: str, toml: str, tmp_path: Path) -> None:
    section, name = key.split(".")
    assert f"{key} (file slproxy.toml:2): " in refusal(tmp_path, toml=f"[{section}]\n{name} = {toml}")


def test_a_client_secret_without_its_id_names_both(tmp_path: Path) -> None:
    message = refusal(tmp_path, env={"SALESLOFT_CLIENT_SECRET": SECRET})
    assert "auth.client_secret (env SALESLOFT_CLIENT_SECRET)" in message
    assert "auth.client_id" in message


@pytest.mark.parametrize("grant", ["api_key", "client_credentials", "authorization_code"])
def test_a_grant_without_its_credentials_still_starts(grant: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, env={"SLPROXY_AUTH__GRANT": grant}).auth.grant == grant


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("kind = 'redis'", "store.kind"),
        ("encryption = 'key'", "store.encryption"),
        (f"key = '{SECRET}'\nencryption = 'off'", "store.key"),
        (f"key = '{SECRET}'\nencryption = 'keyring'", "store.key"),
        (f"key = '{SECRET}'\nkind = 'memory'", "store.key"),
        (f"key = '{SECRET}'\nkind = 'keyring'", "store.key"),
        ("encryption = 'keyring'\nkind = 'memory'", "store.encryption"),
        (f"encryption = 'keyring'\nkind = 'redis'\nredis_url = 'redis://:{SECRET}@r.test'", "store.encryption"),
    ],
    ids=range(8),
)
def test_a_store_that_could_not_be_what_was_asked_for_stops_the_start(toml: str, key: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, toml=f"[store]\n{toml}")
    assert f"{key} (file slproxy.toml:" in message
    assert SECRET not in message


# What is shown


def test_effective_gives_every_setting_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.write_text(SECRET)
    settings = loaded(
        tmp_path,
        toml="[listen]\nuds_mode = '0660'\naccept_hosts = ['a.test']",
        dotenv=f"SALESLOFT_CLIENT_ID=abc\nSALESLOFT_CLIENT_SECRET={SECRET}",
        env={"SALESLOFT_API_KEY_FILE": str(mounted)},
        flags={"policy.read_only": True},
    )
    rows = {row.key: (row.value, row.origin) for row in effective(settings)}
    assert list(rows) == list(SCHEMA)
    assert SECRET not in repr(rows)
    assert rows["listen.port"] == ("8642", "default")
    assert rows["listen.uds_mode"] == ("0660", "file slproxy.toml:2")
    assert rows["listen.accept_hosts"] == ('["a.test"]', "file slproxy.toml:3")
    assert rows["listen.key"] == ("(none)", "default")
    assert rows["auth.client_id"] == ("abc", ".env:1")
    assert rows["auth.client_secret"] == ("***", ".env:2")
    assert rows["auth.api_key"] == ("***", f"env SALESLOFT_API_KEY_FILE ({mounted})")
    assert rows["policy.read_only"] == ("true", "flag --read-only")
    assert rows["retry.deadline"] == ("120", "default")


# The example


def literal(setting: Setting) -> str:
    """Return how the example writes a default, as a pattern: sizes with their unit, modes in octal."""
    match setting.default:
        case None:
            return '"[^"]*"'
        case int(number) if setting.kind == "mode":
            return f'"{number:04o}"'
        case int(number) if setting.kind == "size":
            return f'"{number >> 20} MiB"' if number % 2**20 == 0 else f'"{number >> 10} KiB"'
        case float(number):
            return re.escape(f"{number:g}")
        case other:
            return re.escape(json.dumps(other))


def test_the_example_tells_of_every_setting_what_the_program_knows() -> None:
    sections = [
        rf"\[{section}\]\n"
        + "".join(
            rf"# {re.escape(setting.doc)}\n# {setting.name} = {literal(setting)}\n"
            for setting in SCHEMA.values()
            if setting.section == section
        )
        for section in SECTIONS
    ]
    text = EXAMPLE.read_text()
    assert re.fullmatch("\n".join(sections), text[text.index("\n[listen]") + 1 :])


def test_the_example_as_it_is_changes_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path, config=EXAMPLE) == loaded(tmp_path)


def test_the_example_uncommented_equals_the_defaults(tmp_path: Path) -> None:
    lines, section, uncommented = [], "", 0
    for line in EXAMPLE.read_text().splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        match = re.fullmatch(r"# ((\w+) = .*)", line)
        given = match is not None and SCHEMA[f"{section}.{match[2]}"].default is not None
        # A socket and an address exclude each other; the socket has no default.
        lines.append(match[1] if match and given else line)
        uncommented += given
    settings = loaded(tmp_path, toml="\n".join(lines))
    assert uncommented == len([setting for setting in SCHEMA.values() if setting.default is not None])
    assert len([origin for origin in settings.origins.values() if origin.layer == "file"]) == uncommented
    assert settings == loaded(tmp_path, toml="")
