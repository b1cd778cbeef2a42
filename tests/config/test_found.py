"""Files that nobody named: whose they are, and what they may decide."""

from __future__ import annotations

import grp
import os
import pwd
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from slproxy.config.schema import SCHEMA
from tests.support.settings import SECRET, loaded, refusal, value
from tests.support.users import another_user

READ_ONLY = {"slproxy.toml": "[policy]\nread_only = true\n", ".env": "SLPROXY_POLICY__READ_ONLY=true\n"}
STRANGER = 65534
# Of an entry that names nobody.
NOBODY = 0xFFFFFFFF
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def plain(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(READ_ONLY[name])
    path.chmod(0o644)
    return path


def of_mode(mode: int) -> Callable[[Path, str], Path]:
    def make(folder: Path, name: str) -> Path:
        plain(folder, name).chmod(mode)
        return folder / name

    return make


def in_a_folder_of_mode(mode: int) -> Callable[[Path, str], Path]:
    def make(folder: Path, name: str) -> Path:
        plain(folder, name)
        folder.chmod(mode)
        return folder

    return make


def linked_to(*, folder_mode: int = 0o755, mode: int = 0o644) -> Callable[[Path, str], Path]:
    """A symbolic link to a file in another folder; what others may write to of the two is at fault."""

    def make(folder: Path, name: str) -> Path:
        other = folder.parent / "other"
        other.mkdir()
        target = plain(other, name).rename(other / "target")
        (folder / name).symlink_to("../other/target")
        target.chmod(mode)
        other.chmod(folder_mode)
        return other if folder_mode & 0o022 else target

    return make


def linked_through_an_open_folder(folder: Path, name: str) -> Path:
    between, last = folder.parent / "between", folder.parent / "last"
    between.mkdir()
    last.mkdir()
    plain(last, name)
    (between / "link").symlink_to(last / name)
    (folder / name).symlink_to(between / "link")
    between.chmod(0o777)
    return between


def a_fifo_in_an_open_folder(folder: Path, name: str) -> Path:
    os.mkfifo(folder / name)
    folder.chmod(0o777)
    return folder


def given_away(folder: Path, name: str) -> Path:
    os.chown(plain(folder, name), STRANGER, STRANGER)
    return folder / name


def in_a_folder_given_away(folder: Path, name: str) -> Path:
    plain(folder, name)
    os.chown(folder, STRANGER, STRANGER)
    return folder


def by_a_link_given_away(folder: Path, name: str) -> Path:
    linked_to()(folder, name)
    os.lchown(folder / name, STRANGER, STRANGER)
    return folder / name


@pytest.mark.parametrize("name", READ_ONLY)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(of_mode(0o666), id="a file that all may write"),
        pytest.param(of_mode(0o664), id="a file that its group may write"),
        pytest.param(in_a_folder_of_mode(0o777), id="a folder that all may write"),
        pytest.param(in_a_folder_of_mode(0o775), id="a folder that its group may write"),
        pytest.param(in_a_folder_of_mode(0o1777), id="a sticky folder, as /tmp"),
        pytest.param(linked_to(folder_mode=0o777), id="a link into a folder that all may write"),
        pytest.param(linked_to(mode=0o666), id="a link to a file that all may write"),
        pytest.param(linked_through_an_open_folder, id="a link by way of a link that all may change"),
        pytest.param(a_fifo_in_an_open_folder, id="a FIFO that would be waited for"),
        pytest.param(given_away, id="a file of another user", marks=as_root),
        pytest.param(in_a_folder_given_away, id="a folder of another user", marks=as_root),
        pytest.param(by_a_link_given_away, id="a link of another user", marks=as_root),
    ],
)
def test_a_file_that_others_could_have_put_there_stops_the_start(
    make: Callable[[Path, str], Path], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    at_fault = make(folder, name)
    message = refusal(folder)
    assert str(folder / name) in message
    assert f"{at_fault} belongs to another user" in message or f"others can write to {at_fault} " in message
    assert ("--config" if name == "slproxy.toml" else "in the environment") in message
    if name == "slproxy.toml" and make is not a_fifo_in_an_open_folder:
        # Who names it, has said yes.
        assert loaded(folder, config=Path(name)).policy.read_only
        assert loaded(folder, env={"SLPROXY_CONFIG": name}).policy.read_only


@pytest.mark.parametrize("name", READ_ONLY)
@pytest.mark.parametrize("make", [plain, of_mode(0o600), of_mode(0o444), linked_to(), in_a_folder_of_mode(0o755)])
def test_a_file_of_this_user_alone_counts(make: Callable[[Path, str], Path], name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder, name)
    assert loaded(folder).policy.read_only


@as_root
@pytest.mark.parametrize(("group", "counts"), [("www-data", True), ("root", False), ("daemon", False)])
def test_a_group_that_has_this_user_alone_in_it_may_write(group: str, counts: bool) -> None:
    """As Debian and Ubuntu make files: each user has a group, and the umask is 002."""
    try:
        user, gid = pwd.getpwnam("www-data"), grp.getgrnam(group).gr_gid
    except KeyError:
        pytest.skip("no user here has a group alone")
    # Root's own temporary folders let no other user in.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = plain(folder, "slproxy.toml")
        for each in (path, folder):
            os.chown(each, user.pw_uid, gid)
            each.chmod(0o775)
        with another_user(user.pw_uid):
            if counts:
                assert loaded(folder).policy.read_only
            else:
                assert f"others can write to {folder} " in refusal(folder)


@as_root
def test_an_access_control_list_is_no_group() -> None:
    """The mode shows as the group's what a list gives to another user: acl(5)."""
    acl = b"".join(
        struct.pack("<HHI", tag, rights, uid)
        for tag, rights, uid in ((1, 6, NOBODY), (2, 6, STRANGER), (4, 4, NOBODY), (16, 6, NOBODY), (32, 4, NOBODY))
    )
    try:
        user = pwd.getpwnam("www-data")
    except KeyError:
        pytest.skip("no user here has a group alone")
    with tempfile.TemporaryDirectory() as name:
        path = plain(Path(name), "slproxy.toml")
        for each in (path, path.parent):
            os.chown(each, user.pw_uid, user.pw_gid)
        try:
            os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + acl)
        except (OSError, AttributeError):
            pytest.skip("no access control lists here")
        with another_user(user.pw_uid):
            assert f"others can write to {path} " in refusal(path.parent)
            path.chmod(0o644)  # which takes it from all of them
            assert loaded(path.parent).policy.read_only


def test_a_file_that_a_found_env_file_names_is_found_as_well(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[policy]\nread_only = true\n")
    dotenv = "SLPROXY_CONFIG=other.toml"
    assert loaded(tmp_path, dotenv=dotenv).policy.read_only
    (tmp_path / "other.toml").chmod(0o666)
    assert str(tmp_path / "other.toml") in refusal(tmp_path, dotenv=dotenv)
    assert loaded(tmp_path, dotenv=dotenv, env={"SLPROXY_CONFIG": "other.toml"}).policy.read_only


def test_the_users_own_folder_is_held_to_it_too(tmp_path: Path) -> None:
    own = tmp_path / "config-home" / "slproxy"
    own.mkdir(parents=True)
    (own / "config.toml").write_text("[policy]\nread_only = true\n")
    assert loaded(tmp_path).policy.read_only
    own.chmod(0o777)
    assert f"others can write to {own} " in refusal(tmp_path)


def test_an_env_file_of_others_that_sets_nothing_of_ours_is_none_of_our_business(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# SALESLOFT_API_KEY=x\nDATABASE_URL=postgres://localhost\n")
    (tmp_path / ".env").chmod(0o666)
    assert value(loaded(tmp_path), "auth.api_key") is None
    (tmp_path / ".env").write_text("A=1\nexport SALESLOFT_API_KEY=x\n")
    assert ".env" in refusal(tmp_path)


@pytest.mark.parametrize("name", READ_ONLY)
def test_the_null_device_hides_a_file(name: str, tmp_path: Path) -> None:
    """As `--volume /dev/null:/app/.env` does, for a container that has the project mounted."""
    (tmp_path / name).symlink_to(os.devnull)
    assert not loaded(tmp_path).policy.read_only


def test_an_env_file_of_others_is_overridden_by_setting_its_variables_as_its_hint_says(tmp_path: Path) -> None:
    """As `env_file: .env` does in a container that has the folder mounted with the owner outside."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"SALESLOFT_API_KEY={SECRET}\nSLPROXY_POLICY__READ_ONLY=true\n")
    dotenv.chmod(0o666)
    environ = {"SALESLOFT_API_KEY": f"{SECRET}2", "SLPROXY_POLICY__READ_ONLY": "false"}
    assert value(loaded(tmp_path, env=environ), "auth.api_key") == f"{SECRET}2"
    for name in environ:
        # Compose passes on an unset variable as an empty one, which counts for nothing.
        assert "set its variables in the environment" in refusal(tmp_path, env={**environ, name: ""})


# What a found file decides.

ELSEWHERE = "https://api.stranger.test"
REDIRECTS = {
    "api_url": ("upstream", ELSEWHERE),
    "accounts_url": ("upstream", "http://127.0.0.1:9"),
    "ca_file": ("upstream", "ca.pem"),
    "proxy": ("upstream", "http://stranger.test:3128"),
    "redis_url": ("store", "redis://stranger.test"),
}
GIVEN = {
    "an API key": {"SALESLOFT_API_KEY": SECRET},
    "a mounted API key": {"SALESLOFT_API_KEY_FILE": "mounted"},
    "a client": {"SALESLOFT_CLIENT_ID": "0a1b2c", "SALESLOFT_CLIENT_SECRET": SECRET},
    "a client's id": {"SALESLOFT_CLIENT_ID": "0a1b2c"},
    "a key of the store": {"SLPROXY_STORE__KEY": SECRET},
}


def line(name: str, layer: str, profile: str = "") -> str:
    section, text = REDIRECTS[name]
    if layer == ".env":
        return f"SLPROXY_{section}__{name}={text}\n".replace(f"{section}__{name}", f"{section}__{name}".upper())
    return f"[{profile}{section}]\n{name} = '{text}'\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mounted").write_text(SECRET)
    (tmp_path / "ca.pem").write_text("")
    return tmp_path


@pytest.mark.parametrize("name", REDIRECTS)
@pytest.mark.parametrize("layer", ["slproxy.toml", ".env"])
@pytest.mark.parametrize("given", GIVEN)
def test_what_a_found_file_redirects_never_meets_credentials_from_elsewhere(
    name: str, layer: str, given: str, folder: Path
) -> None:
    (folder / layer).write_text(line(name, layer))
    section, text = REDIRECTS[name]
    message = refusal(folder, env=GIVEN[given])
    variable = f"SLPROXY_{section.upper()}__{name.upper()}"
    for part in (f"{section}.{name}", f"{layer}:", next(reversed(GIVEN[given])).removesuffix("_FILE"), variable):
        assert part in message
    assert ("--config" in message) == (layer == "slproxy.toml")
    # Each way to say yes.
    said_so = loaded(folder, env={**GIVEN[given], variable: text})
    assert str(value(said_so, f"{section}.{name}")).endswith(text)
    if layer == "slproxy.toml":
        assert loaded(folder, env=GIVEN[given], config=Path(layer))
        assert loaded(folder, env={**GIVEN[given], "SLPROXY_CONFIG": layer})


CREDENTIALS_FROM_ELSEWHERE = {
    "a file that the found file names": (
        f"[upstream]\napi_url = '{ELSEWHERE}'\n[auth]\napi_key_file = 'mounted'\n",
        "",
    ),
    "the other found file": (f"[upstream]\napi_url = '{ELSEWHERE}'\n", "SALESLOFT_API_KEY=0a1b2c\n"),
    "a file that .env names, and the address in .env": (
        "",
        f"SLPROXY_UPSTREAM__API_URL={ELSEWHERE}\nSALESLOFT_API_KEY_FILE=mounted\n",
    ),
    "a settings file that .env names": (
        "[auth]\napi_key = '0a1b2c'\n",
        f"SLPROXY_CONFIG=slproxy.toml\nSLPROXY_UPSTREAM__API_URL={ELSEWHERE}\n",
    ),
}


@pytest.mark.parametrize("name", ["scope", "redirect_uri"])
def test_no_file_is_read_to_be_sent_where_a_found_file_says(name: str, folder: Path) -> None:
    toml = f"[upstream]\naccounts_url = '{ELSEWHERE}'\n[auth]\nclient_id = '0a1b2c'\nclient_secret = '{SECRET}'\n"
    plain = {"scope": "people:read", "redirect_uri": "http://localhost:1/callback"}[name]
    assert loaded(folder, toml=f"{toml}{name} = '{plain}'")
    (folder / "any").write_text(plain)
    assert f"auth.{name} (" in refusal(folder, toml=f"{toml}{name}_file = 'any'")


@pytest.mark.parametrize("which", CREDENTIALS_FROM_ELSEWHERE)
def test_credentials_that_a_found_file_fetches_from_elsewhere_are_not_its_own(which: str, folder: Path) -> None:
    toml, dotenv = CREDENTIALS_FROM_ELSEWHERE[which]
    message = refusal(folder, toml=toml, dotenv=dotenv)
    assert "upstream.api_url" in message
    assert "auth.api_key" in message


def test_a_profile_of_a_found_file_is_no_way_around_it(folder: Path) -> None:
    toml = line("api_url", "slproxy.toml", "profile.work.")
    assert loaded(folder, toml=toml, env=GIVEN["an API key"])
    assert "slproxy.toml:2" in refusal(folder, env=GIVEN["an API key"], profile="work")
    assert "slproxy.toml:2" in refusal(folder, env=GIVEN["an API key"], dotenv="SLPROXY_PROFILE=work")


def test_credentials_in_the_very_same_file_go_where_it_says(folder: Path) -> None:
    toml = f"[upstream]\napi_url = '{ELSEWHERE}'\n[auth]\nclient_id = '0a1b2c'\nclient_secret = '{SECRET}'\n"
    assert loaded(folder, toml=toml).upstream.api_url == ELSEWHERE
    (folder / "slproxy.toml").unlink()
    dotenv = f"SLPROXY_UPSTREAM__API_URL={ELSEWHERE}\nSALESLOFT_API_KEY={SECRET}\n"
    assert loaded(folder, dotenv=dotenv).upstream.api_url == ELSEWHERE


HARMLESS = """
[upstream]
api_url = "https://api.salesloft.com"
response_timeout = 5
max_connections = 7
via = "on"
[listen]
port = 9000
[policy]
read_only = true
"""


def test_what_redirects_nothing_may_stand_in_a_found_file(folder: Path) -> None:
    assert loaded(folder, toml=HARMLESS, env=GIVEN["an API key"]).upstream.max_connections == 7


def test_the_users_own_settings_are_not_found(folder: Path) -> None:
    own = folder / "config-home" / "slproxy"
    own.mkdir(parents=True)
    (own / "config.toml").write_text(line("api_url", "slproxy.toml"))
    assert loaded(folder, env=GIVEN["an API key"]).upstream.api_url == ELSEWHERE


@pytest.mark.parametrize("name", ["toml", "dotenv"])
@pytest.mark.parametrize("key", ["log.audit", "store.path"])
@pytest.mark.parametrize("given", ["../state/token.json", "link/token.json", "{folder}/../other"])
def test_a_found_file_has_nothing_written_outside_of_its_folder(
    name: str, key: str, given: str, tmp_path: Path
) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    path, variable, (section, setting) = given.format(folder=folder), SCHEMA[key].variables[-1], key.split(".")
    written = f"[{section}]\n{setting} = '{path}'\n" if name == "toml" else f"{variable}={path}\n"
    refused = refusal(folder, **{name: written})  # type: ignore[arg-type]
    assert "does not decide what is written outside of its folder" in refused
    assert variable in refused
    settings = loaded(folder, **{name: written.replace(path, "below/a.json")})  # type: ignore[arg-type]
    assert settings.value(SCHEMA[key]) == folder / "below/a.json"
    assert loaded(folder, env={variable: path}).is_set(key)


def test_the_audit_is_not_written_into_the_login(tmp_path: Path) -> None:
    path = str(tmp_path / "token.json")
    env = {"SLPROXY_LOG__AUDIT": path, "SLPROXY_STORE__PATH": path}
    assert "its lines would destroy the login" in refusal(tmp_path, env=env)
