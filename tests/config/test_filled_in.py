"""Credentials that nobody filled in are mistakes, and names that are nearly ours are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from slproxy.config import SCHEMA
from tests.support.settings import SECRET, loaded, refusal, value

KEY = "ak_" + "0f" * 32

PLACEHOLDERS = """
your-api-key your_client_id YOUR_API_KEY yourapikey your.key ak_your_key <your-api-key> <api_key> ak_<64_hex>
v2_ak_<team>_<hex> {api_key} [API_KEY] changeme CHANGE_ME change-this changeme! replace-me REPLACE_ME
replace_with_api_key todo TODO TODO:key tbd FIXME xxx xxxxxxxx XXXX-XXXX ak_xxxxxxxxxxxx ak_... ... ak_12ab... *****
insert_key_here insert-api-key paste-key-here API_KEY_HERE enter_your_key placeholder null None undefined
SALESLOFT_API_KEY salesloft-client-secret my-api-key the_client_id __API_KEY__ @@KEY@@ FILL_ME_IN fill-in n/a
""".split()  # noqa: SIM905
OTHER_MISTAKES = {
    f'"{SECRET}"': "quotes",
    f"'{SECRET}'": "quotes",
    '""': "quotes",
    '"a b"': "quotes",
    "${API_KEY}": "reference",
    "$API_KEY": "reference",
    "$(API_KEY)": "reference",
    "$(cat /run/secrets/key)": "reference",
    "{{ api_key }}": "reference",
    "%API_KEY%": "reference",
    "#{API_KEY}#": "reference",
    f"{SECRET}${{SUFFIX}}": "reference",
    f"Bearer {SECRET}": "Bearer",
    f"bearer {SECRET}": "Bearer",
    f"SALESLOFT_API_KEY={SECRET}": "name of a variable",
    f"export SALESLOFT_API_KEY={SECRET}": "name of a variable",
}
NAMES = ["SALESLOFT_API_KEY", "SALESLOFT_CLIENT_ID", "SALESLOFT_CLIENT_SECRET"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_a_mistake(text: str, name: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, env={name: text})
    assert f"(env {name}): is a placeholder" in message
    message = refusal(tmp_path, dotenv=f"\n{name}='{text}'")
    assert "(.env:2): is a placeholder" in message
    assert name in message


@pytest.mark.parametrize("text", OTHER_MISTAKES)
def test_what_is_more_than_the_value_is_told(text: str, tmp_path: Path) -> None:
    for name in NAMES:
        message = refusal(tmp_path, env={name: text})
        assert f"(env {name}): " in message
        assert OTHER_MISTAKES[text] in message
    (tmp_path / "mounted").write_text(text + "\n")
    assert OTHER_MISTAKES[text] in refusal(tmp_path, env={"SALESLOFT_API_KEY_FILE": "mounted"})


@pytest.mark.parametrize("key", ["listen.key", "store.key", "store.redis_url"])
@pytest.mark.parametrize("text", ["changeme", "<key>", "your-key", '"quoted"', "redis://:${PASSWORD}@redis", "xxxx"])
def test_a_key_of_the_proxys_own_is_held_to_it_too(key: str, text: str, tmp_path: Path) -> None:
    variable = SCHEMA[key].variables[-1]
    assert f"{key} (env {variable}): " in refusal(tmp_path, env={variable: text})


API_KEYS = [KEY, KEY.upper().replace("AK_", "ak_"), "v2_ak_12345_" + "0f" * 32]
GOOD = [
    "0123456789abcdef" * 4,
    "f" * 64,
    "0" * 64,
    "sandbox-client",
    "sandbox-secret",
    "test-key",
    "client-id",
    "secret",
    "a",
    "dQw4w9WgXcQ_here-it-goes-on",
    "changeling",
    "todos-and-donts",
    "nullable",
    "cs+=&%~<>",
]


@pytest.mark.parametrize("text", API_KEYS + GOOD)
def test_what_may_be_a_credential_passes(text: str, tmp_path: Path) -> None:
    for name in NAMES:
        if text in API_KEYS and name == "SALESLOFT_CLIENT_ID":
            continue
        env = {"SALESLOFT_CLIENT_ID": "id", name: text}
        assert value(loaded(tmp_path, env=env), SCHEMA["auth." + name.removeprefix("SALESLOFT_").lower()].key) == text


@pytest.mark.parametrize(
    "text", ["p$ssw0rd-of-16-chars", "$dollar", "{braces}", "a<b>c", "yourself", "three...", "100%"]
)
def test_a_key_that_its_user_made_up_passes(text: str, tmp_path: Path) -> None:
    assert value(loaded(tmp_path, env={"SLPROXY_LISTEN__KEY": text}), "listen.key") == text


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (KEY, True),
        ("v2_ak_12345_" + "0f" * 32, True),
        (KEY[:-1], False),
        (KEY.removeprefix("ak_"), False),
        ("sk-" + SECRET, False),
    ],
)
def test_an_api_key_of_an_unknown_form_is_used_with_a_warning(text: str, known: bool, tmp_path: Path) -> None:
    settings = loaded(tmp_path, env={"SALESLOFT_API_KEY": text})
    assert value(settings, "auth.api_key") == text
    assert bool(settings.warnings) != known
    assert all("env SALESLOFT_API_KEY" in each and text not in each for each in settings.warnings)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SALESLOFT_APIKEY", "SALESLOFT_API_KEY"),
        ("SALESLOFT_API__KEY", "SALESLOFT_API_KEY"),
        ("SALESLOFT_API_KEYS", "SALESLOFT_API_KEY"),
        ("SALESLOFT_KEY", "SALESLOFT_API_KEY"),
        ("salesloft_api_key", "SALESLOFT_API_KEY"),
        ("SALES_LOFT_API_KEY", "SALESLOFT_API_KEY"),
        ("SALELOFT_API_KEY", "SALESLOFT_API_KEY"),
        ("SALESLOFT_CLIENTID", "SALESLOFT_CLIENT_ID"),
        ("SALESLOFT_CLIENTSECRET", "SALESLOFT_CLIENT_SECRET"),
        ("SALESLOFT_CLIENT_SECERT", "SALESLOFT_CLIENT_SECRET"),
        ("SALESLOFT_REDIRECT_URL", "SALESLOFT_REDIRECT_URI"),
        ("SALESLOFT_API_KEYFILE", "SALESLOFT_API_KEY_FILE"),
        ("SALESLOFT_SCOPES", "SALESLOFT_SCOPE"),
        ("SL_PROXY_LISTEN__PORT", "SLPROXY_LISTEN__PORT"),
        ("slproxy_listen__port", "SLPROXY_LISTEN__PORT"),
    ],
)
def test_a_name_that_is_nearly_ours_is_told(name: str, nearest: str, tmp_path: Path) -> None:
    for settings in (loaded(tmp_path, env={name: SECRET}), loaded(tmp_path, dotenv=f"{name}={SECRET}")):
        (warning,) = settings.warnings
        assert warning.startswith(name)
        assert f"did you mean {nearest}?" in warning
        assert SECRET not in warning


def test_a_name_that_is_nearly_ours_says_why_its_pair_is_not_whole(tmp_path: Path) -> None:
    message = refusal(tmp_path, env={"SALESLOFT_CLIENTID": "0a1b", "SALESLOFT_CLIENT_SECRET": SECRET})
    assert "SALESLOFT_CLIENTID" in message


def test_what_others_call_theirs_is_nobodys_typo(tmp_path: Path) -> None:
    """Nor is what is nearly ours, where ours is set as well."""
    theirs = (
        "BASE_URL TEAM TEAM_ID API_URL API_VERSION API_TOKEN TOKEN WEBHOOK_SECRET USER_ID ENV LOG_LEVEL TIMEOUT PORT"
    )
    env = {f"SALESLOFT_{name}": "x" for name in theirs.split()}
    env |= {
        "SALESFORCE_API_KEY": "x",
        "SLURM_JOB_ID": "1",
        "SALT": "x",
        "SALESLOFT_API_KEYS": "x",
        "SALESLOFT_APIKEY": "",
    }
    assert loaded(tmp_path, env={**env, "SALESLOFT_API_KEY": KEY}).warnings == ()


def test_the_sandbox_takes_no_credentials_right_or_wrong(tmp_path: Path) -> None:
    env = {"SALESLOFT_API_KEY": "your-api-key", "SALESLOFT_CLIENT_SECRET": SECRET, "SLPROXY_STORE__KIND": "redis"}
    settings = loaded(tmp_path, env=env, sandbox=True)
    assert settings.auth.api_key is None
    assert settings.store.kind == "file"
