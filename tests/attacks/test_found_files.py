"""A folder that brings its own settings: no command run in it takes the user's credentials to the folder's address."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest

from tests.support.commands import KEY, SECRET, log_in, logged_in, oauth, pointed_at, run_here, sandboxed, token_file
from tests.support.programs import Program, program, run
from tests.support.raw_http import get, raw
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until

pytestmark = pytest.mark.heavy

COMMANDS = (
    "serve --port 0",
    "login --no-browser",
    "logout",
    "logout --all",
    "whoami",
    "status",
    "token",
    "doctor",
    "config",
    "profiles",
    "store move --to keyring",
)
GIVEN = {
    "an API key": {"SALESLOFT_API_KEY": KEY},
    "a client": {"SALESLOFT_CLIENT_ID": "0a1b2c3d", "SALESLOFT_CLIENT_SECRET": SECRET},
}
FOUND = {
    "slproxy.toml": "[upstream]\napi_url = '{url}'\naccounts_url = '{url}'\n",
    ".env": "SLPROXY_UPSTREAM__API_URL={url}\nSLPROXY_UPSTREAM__ACCOUNTS_URL={url}\n",
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", FOUND)
async def test_a_cloned_repository_gets_no_credentials(name: str, given: str, tmp_path: Path) -> None:
    async with ScriptedUpstream() as stranger:
        (tmp_path / name).write_text(FOUND[name].format(url=stranger.url))
        for line in COMMANDS:
            code, out, err = await run_here(*line.split(), home=tmp_path, env=GIVEN[given])
            said = out + err
            assert code == 2, (line, said)
            assert f"{name}:" in said, line
            assert "upstream.api_url" in said, line
            assert "SLPROXY_UPSTREAM__API_URL" in said, line
            assert not any(secret in said for secret in (KEY, SECRET)), line
        assert stranger.connections == 0
        # Who names the file, has said yes.
        if name == "slproxy.toml" and given == "an API key":
            assert (await run_here("token", "--config", name, home=tmp_path, env=GIVEN[given])).out.strip() == KEY


def open_to_all(folder: Path) -> None:
    folder.chmod(0o1777)


async def test_a_folder_that_others_may_write_to_decides_nothing(tmp_path: Path) -> None:
    async with ScriptedUpstream() as stranger:
        (tmp_path / "slproxy.toml").write_text(FOUND["slproxy.toml"].format(url=stranger.url))
        open_to_all(tmp_path)
        for line in COMMANDS:
            code, out, err = await run_here(*line.split(), home=tmp_path)
            assert code == 2, (line, out, err)
            assert f"others can write to {tmp_path} (mode 1777)" in out + err, line
        assert stranger.connections == 0


def was_refused(running: Program, why: str) -> bool:
    return any("reload failed, settings unchanged" in line and why in line for line in running.errors)


async def test_a_reload_is_held_to_it_as_the_start_is(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, ScriptedUpstream() as stranger:
        named = tmp_path / "named.toml"
        named.write_text(FOUND["slproxy.toml"].format(url=upstream.url))
        async with program(
            "serve", "--port", "0", "--config", str(named), home=tmp_path, env=GIVEN["an API key"]
        ) as it:
            for found, why in ((0o644, "from elsewhere"), (0o666, "others can write to")):
                (tmp_path / ".env").write_text(FOUND[".env"].format(url=stranger.url))
                (tmp_path / ".env").chmod(found)
                it.process.send_signal(signal.SIGHUP)
                await until(functools.partial(was_refused, it, why))
                assert (await raw(it.url, get("/v2/me.json"))).head.status == 200
        assert stranger.connections == 0
        assert upstream.seen


CLIENT = "[auth]\nclient_id = 'sandbox-client'\nclient_secret = 'strangers'\n"
WITH_A_LOGIN = ("serve --port 0", "whoami", "token", "status", "logout", "store move --to keyring")


@pytest.mark.parametrize("name", ["api_url", "accounts_url", "ca_file", "proxy"])
async def test_a_stored_login_goes_nowhere_that_a_found_file_says(name: str, tmp_path: Path) -> None:
    """Not even with a client of the file's own, which is the very one that has logged in."""
    async with ScriptedUpstream() as stranger, sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        (tmp_path / "ca.pem").write_text("")
        value = "ca.pem" if name == "ca_file" else stranger.url
        (tmp_path / "slproxy.toml").write_text(f"[upstream]\n{name} = '{value}'\n{CLIENT}")
        named = pointed_at(sandbox.url)
        named.pop(f"SLPROXY_UPSTREAM__{name.upper()}", None)
        for line in WITH_A_LOGIN:
            run_it = run if line.startswith("serve") else run_here
            code, out, err = await run_it(*line.split(), home=tmp_path, env=named)
            assert (code, out) == (2, ""), (line, err)
            assert f"upstream.{name} (file slproxy.toml:2)" in err, line
            assert "a stored login from elsewhere" in err, line
        code, out, _ = await run_here("doctor", home=tmp_path, env=named)
        assert code == 1
        assert "a stored login from elsewhere" in out
        # Doctor asks each host whether it answers, and shows it nothing.
        assert all(message.head.get("Authorization") is None and not message.body for message in stranger.seen)
        if name in ("ca_file", "proxy"):
            code, _, err = await run_here("login", "--no-browser", home=tmp_path, env=named)
            assert code == 2, err
        else:
            # Who names the file, has said yes; then the login is another API's.
            assert (await run_here("whoami", "--config", "slproxy.toml", home=tmp_path, env=named)).code == 3
        assert token_file(tmp_path).exists()


async def test_a_login_made_in_a_folder_with_its_own_client_and_addresses_works_there(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        port = {"SLPROXY_LISTEN__PORT": env.pop("SLPROXY_LISTEN__PORT")}
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
        await log_in(tmp_path, port)
        assert (await run_here("whoami", home=tmp_path, env=port)).code == 0
