"""An agent that wants more than it was given: docs/agents.md, What this holds, and what it does not."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.commands import logged_in, oauth, sandboxed, token_file
from tests.support.programs import environment, program, run
from tests.support.users import ANOTHER_USER, needs_users
from tests.support.waiting import PATIENCE

KEY = "agent-key-1f9a3b7c"


async def as_another_user(script: str, **variables: str) -> str:
    """Run a script as a user of this machine who has nothing of ours but what is handed over; return what it says."""
    env = {**environment(Path("/nonexistent"), **variables), "HOME": "/", "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", script), cwd="/", env=env, user=ANOTHER_USER, group=ANOTHER_USER, extra_groups=[],
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        return (await process.communicate())[0].decode()


async def test_as_the_same_user_it_can_take_the_token(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        (tmp_path / "slproxy.toml").write_text(
            f"[upstream]\napi_url = '{sandbox.url}'\naccounts_url = '{sandbox.url}'\n"
            f"[auth]\nclient_id = '{sandbox.options.client_id}'\nclient_secret = '{sandbox.options.client_secret}'\n"
        )
        script = f"env -u SALESLOFT_API_KEY {sys.executable} -m slproxy token; cat {token_file(tmp_path)}"
        code, out, _ = await run("run", "--read-only", "--", "sh", "-c", script, home=tmp_path)
    assert code == 0
    token, _, stored = out.partition("\n")
    assert token
    assert token in stored


async def test_as_another_user_it_gets_neither_the_token_nor_past_its_rules(tmp_path: Path) -> None:
    needs_users()
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        env = oauth(sandbox, SLPROXY_CLIENT__AGENT__KEY=KEY, SLPROXY_CLIENT__AGENT__READ_ONLY="true")
        async with program("serve", home=tmp_path, env=env) as running:
            stolen = await as_another_user(f"cat {token_file(tmp_path)}")
            assert "ermission denied" in stolen
            environ = await as_another_user(f"cat /proc/{running.process.pid}/environ")
            assert "ermission denied" in environ
            ask = "curl -s -o /dev/null -w '%{http_code} '"
            own = f'-H "X-Slproxy-Key: $SLPROXY_KEY" {running.url}/v2/people'
            script = f"{ask} {running.url}/v2/me; {ask} {own}; {ask} -X POST -d '' {own}"
            assert await as_another_user(script, SLPROXY_KEY=KEY) == "401 200 405 "


@pytest.mark.parametrize("mode", ["0660", "0666"])
async def test_a_socket_lets_it_in_by_its_key_alone(tmp_path: Path, mode: str) -> None:
    needs_users()
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        env = oauth(sandbox, SLPROXY_CLIENT__AGENT__KEY=KEY, SLPROXY_LISTEN__UDS_MODE=mode)
        del env["SLPROXY_LISTEN__PORT"]
        # Where another user can get to it.
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)  # noqa: PTH101
            path = f"{folder}/s"
            async with program("serve", "--uds", path, home=tmp_path, env=env):
                ask = f"curl -s -o /dev/null -w '%{{http_code}} ' --unix-socket {path} http://localhost/v2/me"
                said = await as_another_user(f"{ask}; {ask} -H 'X-Slproxy-Key: {KEY}'")
    assert said == ("401 200 " if mode == "0666" else "000 000 ")


def test_the_page_names_the_commands_that_there_are() -> None:
    page = (ROOT / "docs" / "agents.md").read_text()
    assert "slproxy skill" in page
    assert "slproxy run --read-only --reject-path /v2/activities/emails --budget 60 --name agent -- my-agent" in page
