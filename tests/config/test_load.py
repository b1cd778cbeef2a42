"""Loading: precedence, the file in force, profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from slproxy.config import SCHEMA, Egress
from slproxy.config.setting import Setting
from tests.support.settings import SECRET, loaded, refusal, value


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
        "listen.allow_other_users": False,
        "upstream.api_url": "https://api.salesloft.com",
        "upstream.accounts_url": "https://accounts.salesloft.com",
        "upstream.ca_file": None,
        "upstream.connect_timeout": 5.0,
        "upstream.response_timeout": 60.0,
        "upstream.idle_timeout": 60.0,
        "upstream.max_connections": 100,
        "upstream.proxy": Egress(),
        "upstream.warm": 900.0,
        "upstream.trace_context": False,
        "upstream.via": "auto",
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
        "limits.replay_memory_total": 64 * 1024**2,
        "limits.max_connections": 1000,
        "limits.header_timeout": 15.0,
        "limits.body_timeout": 60.0,
        "limits.max_target": 32 * 1024,
        "limits.max_headers": 64 * 1024,
        "log.level": "info",
        "log.format": "auto",
        "log.audit": None,
        "log.audit_required": False,
        "metrics.host": "127.0.0.1",
        "metrics.port": None,
        "inspect.enabled": True,
        "inspect.bodies": "off",
        "inspect.entries": 1000,
        "inspect.memory": 16 * 2**20,
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
        "inspect.enabled": "false",
        "listen.host": "::1",
        "listen.uds": str(tmp_path / "a.sock"),
        "listen.accept_hosts": "a.test",
        "listen.allow_origins": "https://a.test",
        "upstream.api_url": "https://a.test",
        "upstream.accounts_url": "https://b.test",
        "auth.redirect_uri": "https://a.test/cb",
        "store.kind": "memory",
        "store.redis_url": "rediss://redis.test",
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
        "proxy": "http://proxy.test:3128",
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
        dotenv="export SALESLOFT_CLIENT_ID='abc'\nSALESLOFT_CLIENT_SECRET=\"x$HOME$y\"\n",
        env={"HOME": "/home/jane"},
    )
    assert value(settings, "auth.client_id") == "abc"
    assert value(settings, "auth.client_secret") == "x$HOME$y"


def test_a_broken_line_of_dotenv_is_told_only_if_it_is_ours(tmp_path: Path) -> None:
    assert loaded(tmp_path, dotenv="OTHER='open\nSLPROXY_LISTEN__PORT=9\n").listen.port == 9
    assert ".env:2" in refusal(tmp_path, dotenv=f'A=b\nSALESLOFT_API_KEY="{SECRET}\n')


@pytest.mark.parametrize(
    "line", ["SLPROXY_POLICY__READ_ONLY true", f"export SALESLOFT_API_KEY {SECRET}", f"SALESLOFT_API_KEY: {SECRET}"]
)
def test_a_line_of_dotenv_that_sets_nothing_is_an_error_and_not_repeated(line: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, dotenv=f"A=b\n\n  {line}\nSLPROXY_LISTEN__PORT=9\n")
    assert ".env:3: expected NAME=value |" in message


@pytest.mark.parametrize("line", ["SLPROXY_POLICY__READ_ONLY", "export SALESLOFT_API_KEY_FILE", "SLPROXY_PROFILE # x"])
def test_a_setting_alone_in_a_line_of_dotenv_is_an_error_that_names_it(line: str, tmp_path: Path) -> None:
    name = line.removeprefix("export ").split()[0]
    assert f".env:2: expected NAME=value, got {name} alone" in refusal(tmp_path, dotenv=f"# x\n{line}\n")
    assert ".env:1: expected NAME=value |" in refusal(tmp_path, dotenv=f"{name}_{SECRET}\n")


def test_a_setting_alone_in_a_line_of_dotenv_may_be_set_elsewhere(tmp_path: Path) -> None:
    assert loaded(tmp_path, dotenv="SLPROXY_LISTEN__PORT=9\nexport SLPROXY_LISTEN__PORT\n").listen.port == 9
    given = loaded(tmp_path, env={"SLPROXY_LISTEN__PORT": "8"}, dotenv="SLPROXY_LISTEN__PORT\n")
    assert given.listen.port == 8
    assert loaded(tmp_path, dotenv="SALESLOFT_WEBHOOK_SECRET\n").listen.port == 8642


def test_what_other_programs_have_in_dotenv_is_theirs(tmp_path: Path) -> None:
    theirs = "THEIRS\nexport THEIRS_TOO\n-----BEGIN CERTIFICATE-----\nMIIE+a/b==\nnonsense line\nother.name='open\n"
    dotenv = f"\n  # a comment\n{theirs}export SLPROXY_LISTEN__PORT=9 # nine\n\n\t\n"
    assert loaded(tmp_path, dotenv=dotenv).listen.port == 9
    assert loaded(tmp_path, dotenv="").listen.port == 8642


def test_a_virtual_environment_called_dotenv_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert loaded(tmp_path).listen.port == 8642


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
