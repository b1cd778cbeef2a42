"""Settings that exclude each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.config import Secret, Settings, check_listening, is_loopback
from slproxy.errors import ConfigError
from tests.support.settings import SECRET, loaded, refusal, value


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


def not_to_be_served(settings: Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        check_listening(settings)
    return f"{caught.value.detail} | {caught.value.hint}"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "box.lan", "localhost.evil.test", "evillocalhost", "[::]", "127.1"]
)
def test_to_listen_where_others_reach_needs_a_long_key(host: str, tmp_path: Path) -> None:
    toml = f"[listen]\nhost = '{host}'\n"
    # Whatever does not listen does not mind.
    settings = loaded(tmp_path, toml=toml)
    assert settings.listen.host == host.strip("[]")
    assert "listen.host (file slproxy.toml:2)" in not_to_be_served(settings)
    assert "listen.key" in not_to_be_served(settings)
    assert "listen.key (file slproxy.toml:3) has under 16" in not_to_be_served(
        loaded(tmp_path, toml=toml + f"key = '{'k' * 15}'")
    )
    check_listening(loaded(tmp_path, toml=toml + f"key = '{'k' * 16}'"))
    check_listening(loaded(tmp_path, toml=toml + "allow_unauthenticated = true"))


@pytest.mark.parametrize(("mode", "open_to_others"), [("0600", False), ("0644", False), ("0660", True), ("0602", True)])
def test_a_socket_that_other_users_may_connect_to_needs_a_key(mode: str, open_to_others: bool, tmp_path: Path) -> None:
    toml = f"[listen]\nuds = 's'\nuds_mode = '{mode}'\n"
    if open_to_others:
        message = not_to_be_served(loaded(tmp_path, toml=toml))
        assert "listen.uds_mode (file slproxy.toml:3)" in message
        assert "listen.allow_other_users" in message
    else:
        check_listening(loaded(tmp_path, toml=toml))
    check_listening(loaded(tmp_path, toml=toml + "key = 'k'"))
    check_listening(loaded(tmp_path, toml=toml + "allow_other_users = true"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"])
def test_a_loopback_address_needs_no_key(host: str, tmp_path: Path) -> None:
    assert is_loopback(host)
    settings = loaded(tmp_path, toml=f"[listen]\nhost = '{host}'")
    check_listening(settings)
    check_listening(replace(settings, listen=replace(settings.listen, key=Secret("k"))))


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
        ("listen.host", "'a..test'"),
        ("listen.host", f"'a.{'a' * 64}.test'"),
        ("metrics.host", f"'{'a' * 64}'"),
        ("metrics.host", "'http://localhost'"),
        ("upstream.api_url", f"'https://{'a' * 64}'"),
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
        ("store.path", "'.'"),
        ("log.audit", "'.'"),
        ("listen.uds", "'/'"),
        ("store.redis_url", "'http://localhost'"),
        ("store.redis_url", "'localhost:6379'"),
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
