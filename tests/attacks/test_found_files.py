"""A folder that brings its own settings: no command run in it takes the user's credentials to the folder's address."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest

from tests.support.commands import KEY, SECRET, run_here
from tests.support.programs import Program, program
from tests.support.raw_http import get, raw
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until

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
            for found, why in ((0o644, "comes from elsewhere"), (0o666, "others can write to")):
                (tmp_path / ".env").write_text(FOUND[".env"].format(url=stranger.url))
                (tmp_path / ".env").chmod(found)
                it.process.send_signal(signal.SIGHUP)
                await until(functools.partial(was_refused, it, why))
                assert (await raw(it.url, get("/v2/me.json"))).head.status == 200
        assert stranger.connections == 0
        assert upstream.seen
