"""The services of one user: a systemd unit and a launchd agent, hardened, and what they leave the program is enough."""

from __future__ import annotations

import asyncio
import contextlib
import os
import plistlib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slproxy.errors import ConfigError, LoginRequired
from tests.support import ROOT
from tests.support.commands import KEY, free_port, pointed_at
from tests.support.programs import environment, program
from tests.support.raw_http import get, raw
from tests.support.waiting import PATIENCE, until

UNIT = ROOT / "deploy" / "systemd" / "slproxy.service"
AGENT = ROOT / "deploy" / "launchd" / "slproxy.plist"
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze (systemd) is not installed")
NOBODY = "http://127.0.0.1:9"


def installed(home: Path) -> Path:
    """Put the program where pipx and uv put it; return its path."""
    path = home / ".local" / "bin" / "slproxy"
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m slproxy "$@"\n')
    path.chmod(0o755)
    return path


def set_in_unit(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


def analyze(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    env = environment(home, XDG_RUNTIME_DIR=str(home), TERM="dumb")
    return subprocess.run(
        [ANALYZE, "--no-pager", *arguments], env=env, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


# docs/service.md, systemd


@needs_analyze
def test_systemd_takes_every_line_of_the_unit(tmp_path: Path) -> None:
    installed(tmp_path)
    verified = analyze(tmp_path, "--user", "--man=no", "verify", str(UNIT))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_analyze
def test_its_exposure_is_at_most_2(tmp_path: Path) -> None:
    rated = analyze(tmp_path, "--user", "security", "--offline=true", "--threshold=20", str(UNIT))
    if "unrecognized option" in rated.stderr:
        pytest.skip("this systemd-analyze rates no file")
    assert rated.returncode == 0, rated.stdout + rated.stderr
    assert "Overall exposure level for slproxy.service: " in rated.stdout


def group(home: Path, name: str) -> set[str]:
    """Return the system calls of a group of systemd's, and of those in it."""
    words = [line.strip() for line in analyze(home, "syscall-filter", name).stdout.splitlines()[1:]]
    calls = {word for word in words if re.fullmatch(r"[a-z0-9_]+", word)}
    return calls.union(*(group(home, word) for word in words if word.startswith("@")))


@needs_analyze
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
async def test_what_the_unit_lets_through_is_all_that_the_program_asks_the_kernel_for(tmp_path: Path) -> None:
    traced = tmp_path / "trace"
    before = ["strace", "-D", "-f", "-qq", "-o", str(traced)]
    env = {"SLPROXY_LIMITS__REPLAY_MEMORY": "1000"}
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path, env=env, before=before) as server:
        assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
        body = b"x" * 10_000
        head = f"PUT /v2/people/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await raw(server.url, head + body)
        server.process.send_signal(signal.SIGHUP)
        await until(lambda: any("eload" in line for line in server.errors))
        assert await server.stop() == 0
    lines = traced.read_text("utf-8", "replace").splitlines()
    calls = {found[1] for line in lines if (found := re.match(r"\d+ +(?:<\.\.\. )?([a-z0-9_]+)[( ]", line))}
    allowed, *denied = (each for line in set_in_unit("SystemCallFilter") for each in line.removeprefix("~").split())
    refused = set().union(*(group(tmp_path, each) for each in denied))
    assert {"openat", "accept4", "epoll_wait", "epoll_pwait"} & calls > {"openat"}
    assert calls - (group(tmp_path, allowed) - refused) == set()
    (families,) = set_in_unit("RestrictAddressFamilies")
    assert set(re.findall(r"socket(?:pair)?\((AF_\w+)", "\n".join(lines))) <= set(families.split())
    # MemoryDenyWriteExecute.
    assert [line for line in lines if re.search(r"mprotect\(.*PROT_EXEC|PROT_WRITE\|PROT_EXEC", line)] == []


def test_the_unit_knows_the_ends_of_the_program_and_waits_for_requests_in_flight() -> None:
    assert set_in_unit("ExecStart") == ["%h/.local/bin/slproxy serve"]
    assert set_in_unit("RestartPreventExitStatus") == [f"{ConfigError.exit_code} {LoginRequired.exit_code}"]
    assert int(set_in_unit("TimeoutStopSec")[0]) > 30  # docs/contract.md, Shutdown


# docs/service.md, launchd


def test_the_agent_knows_the_ends_of_the_program_and_keeps_its_files_private() -> None:
    agent = plistlib.loads(AGENT.read_bytes())
    assert agent["RunAtLoad"] is True
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["ExitTimeOut"] > 30  # docs/contract.md, Shutdown
    assert (agent["Umask"], agent["HardResourceLimits"]) == (0o077, {"Core": 0})


async def test_what_the_agent_runs_serves_and_logs_and_ends_at_sigterm(tmp_path: Path) -> None:
    """On this system, whatever it is: launchd only adds the limits."""
    agent = plistlib.loads(AGENT.read_bytes())
    installed(tmp_path)
    log = tmp_path / "Library" / "Logs" / "slproxy.log"
    log.parent.mkdir(parents=True)
    port = free_port()
    env = environment(tmp_path, **pointed_at(NOBODY, SALESLOFT_API_KEY=KEY, SLPROXY_LISTEN__PORT=str(port)))
    process = await asyncio.create_subprocess_exec(*agent["ProgramArguments"], cwd="/", env=env, umask=agent["Umask"])
    try:
        await until(lambda: log.exists() and "Listening on " in log.read_text())
        assert (await raw(f"http://127.0.0.1:{port}", get("/_slproxy/healthz"))).head.status == 200
        assert log.stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
