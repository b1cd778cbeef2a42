"""Secrets: from mounted files, and never shown."""

from __future__ import annotations

import copy
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest

from slproxy.config import SCHEMA, Secret
from slproxy.config.load import secret_in
from slproxy.config.setting import Setting
from slproxy.errors import ConfigError
from tests.support.settings import SECRET, loaded, refusal, value


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
    refused = refusal(tmp_path, env={"SALESLOFT_API_KEY_FILE": str(tmp_path)})
    assert "cannot be read" in refused
    assert f"uid {os.geteuid()}" in refused, "in a container it is not the user who mounted it"


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


API_KEYS = {
    "a user's": "ak_" + "5a" * 32,
    "a team's": "v2_ak_team-7_" + "5a" * 32,
    "cut off": "ak_" + "5a" * 20,
    "with more around it": "https://ak_" + "5a" * 32 + ".test",
    "in capitals": "AK_" + "5A" * 32,
}
OPEN = [setting for setting in SCHEMA.values() if not setting.secret]


@pytest.mark.parametrize("api_key", API_KEYS.values(), ids=API_KEYS)
@pytest.mark.parametrize("setting", OPEN, ids=lambda setting: str(setting.key))
def test_an_api_key_in_another_setting_is_a_mistake_that_says_where_it_belongs(
    setting: Setting, api_key: str, tmp_path: Path
) -> None:
    mounted = tmp_path / "mounted"
    mounted.write_text(f"{api_key}\n")
    ways = [(setting.variables[-1], api_key)]
    ways += [(f"{setting.variables[-1]}_FILE", str(mounted))] if setting.from_file else []
    for variable, given in ways:
        message = refusal(tmp_path, env={variable: given})
        assert f"{setting.key} (env {variable}" in message
        assert "which belongs in auth.api_key" in message
        assert "5a" not in message.lower()
    message = refusal(tmp_path, toml=f"[{setting.section}]\n{setting.name} = ['{api_key}']")
    assert "slproxy.toml:2" in message
    assert "5a" not in message.lower()


@pytest.mark.parametrize("api_key", API_KEYS.values(), ids=API_KEYS)
def test_a_secret_in_the_place_of_a_path_or_a_name_is_not_repeated(api_key: str, tmp_path: Path) -> None:
    client_secret = "5a" * 32
    messages = [
        refusal(tmp_path, env={"SLPROXY_CONFIG": api_key}),
        refusal(tmp_path, config=Path(api_key)),
        refusal(tmp_path, env={"HTTPS_PROXY": f"http://{api_key.removeprefix('https://')}:80"}),
        refusal(tmp_path, env={"SALESLOFT_CLIENT_SECRET_FILE": client_secret}),
        refusal(tmp_path, env={"SALESLOFT_REDIRECT_URI": client_secret}),
        refusal(tmp_path, env={"SLPROXY_UPSTREAM__API_URL": client_secret}),
        refusal(tmp_path, env={"SLPROXY_LISTEN__PORT": client_secret}),
    ]
    if "/" not in api_key:
        messages.append(refusal(tmp_path, env={"SALESLOFT_API_KEY_FILE": api_key}))
    for message in messages:
        assert "5a5a" not in message.lower()


@pytest.mark.parametrize("key", ["q2Xw-8Zt_Kp4vN7bR-s9Yc_3Fh6Lm1Jd-5Ga0Ue_TiB", "0123456789abcdef" * 4])
def test_a_local_key_in_the_place_of_its_file_is_not_repeated(key: str, tmp_path: Path) -> None:
    assert key not in refusal(tmp_path, env={"SLPROXY_LISTEN__KEY_FILE": key})
    with pytest.raises(ConfigError, match="what may be the key itself") as caught:
        secret_in(Path(key))
    assert key not in f"{caught.value.detail}{caught.value.hint}"
    # A name as long, of a file that there is.
    (tmp_path / key).write_text("a-key-that-is-long-enough")
    assert key not in str(loaded(tmp_path, env={"SLPROXY_LISTEN__KEY_FILE": f"./{key}"}).listen.key)


def test_the_password_of_an_egress_proxy_may_look_like_anything(tmp_path: Path) -> None:
    assert loaded(tmp_path, env={"SLPROXY_UPSTREAM__PROXY": "http://u:ak_0123456789abcdef0@h:8080"})


def test_what_a_mounted_file_holds_is_not_repeated(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    for setting in (each for each in SCHEMA.values() if each.from_file):
        mounted.write_text(f"{SECRET} \n{SECRET}")
        message = refusal(tmp_path, env={setting.variables[-1] + "_FILE": str(mounted)})
        assert f"{setting.key} (env {setting.variables[-1]}_FILE ({mounted}))" in message
    for text, told in ((SECRET, "expected an absolute"), (f"http://{SECRET}.test", "expected https")):
        mounted.write_text(text)
        assert told in refusal(tmp_path, env={"SALESLOFT_REDIRECT_URI_FILE": str(mounted)})
