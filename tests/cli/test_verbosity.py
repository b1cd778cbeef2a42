"""How much is logged: ``-v``, ``-q`` and ``--log-level``, of every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from slproxy import __version__
from tests.support.commands import run_here
from tests.support.programs import program, run
from tests.support.raw_http import get, raw

CALL = 'curl -s -o body -H "X-Slproxy-Key: $SLPROXY_KEY" "$SLPROXY_URL/v2/me.json"'


@pytest.mark.parametrize(
    ("line", "level", "origin"),
    [
        ("config", "info", "default"),
        ("config -v", "debug", "flag --log-level"),
        ("--verbose config", "debug", "flag --log-level"),
        ("config -q", "error", "flag --log-level"),
        ("config --log-level WARNING", "warning", "flag --log-level"),
        ("config -q -v", "debug", "flag --log-level"),
    ],
)
async def test_a_flag_is_the_level_that_log_level_would_be(tmp_path: Path, line: str, level: str, origin: str) -> None:
    code, out, err = await run_here(*line.split(), "--json", home=tmp_path)
    assert (code, err) == (0, "")
    assert json.loads(out)["log.level"] == {"value": level, "origin": origin}


@pytest.mark.parametrize(("command", "flag"), [("serve", "-q"), ("sandbox", "-q"), ("serve", "-v")])
async def test_what_serves_logs_little_or_much(tmp_path: Path, command: str, flag: str) -> None:
    arguments = ["--sandbox"] if command == "serve" else []
    async with program(command, *arguments, flag, "--port", "0", home=tmp_path) as server:
        await raw(server.url, get("/_slproxy/healthz"))
        await raw(server.url, get("/v2/me.json"))
        assert await server.stop() == 0
    logged = {json.loads(line).get("path") for line in server.errors if line.startswith("{")} - {None}
    assert logged == ({"/_slproxy/healthz", "/v2/me.json"} if flag == "-v" else set())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_run_logs_requests_only_if_asked_to(tmp_path: Path) -> None:
    code, out, err = await run("run", "--sandbox", "--", "sh", "-c", CALL, home=tmp_path)
    assert (code, out, err) == (0, "", "")
    code, out, err = await run("run", "-v", "--sandbox", "--", "sh", "-c", CALL, home=tmp_path)
    (line,) = [line for line in map(json.loads, err.splitlines()) if line.get("kind") == "request"]
    assert (code, out, line["path"], line["status"]) == (0, "", "/v2/me.json", 200)


async def test_a_help_is_plain_where_python_would_paint_it(tmp_path: Path) -> None:
    """From 3.14 on."""
    code, out, _ = await run_here("--help", home=tmp_path, env={"FORCE_COLOR": "1"})
    assert (code, "x1b" in out, "\x1b" in out) == (0, False, False)


async def test_the_version_has_a_short_flag(tmp_path: Path) -> None:
    assert await run_here("-V", home=tmp_path) == (0, f"slproxy {__version__}\n", "")
