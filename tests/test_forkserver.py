"""The fork server of the tests: a program that is forked off does what one does that is started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import forkserver
from tests.support.commands import pointed_at
from tests.support.programs import environment, program, spawn
from tests.support.waiting import PATIENCE

NOBODY = pointed_at("http://127.0.0.1:9", SALESLOFT_API_KEY="ak_" + "5a" * 32)

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="it is Linux's; elsewhere programs are started")


async def ended(arguments: Sequence[str], home: Path, *, fresh: bool) -> tuple[int, bytes, bytes]:
    process = await spawn(arguments, home, NOBODY, stdin=subprocess.PIPE, fresh=fresh)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(b"nothing of a code\n")
    assert process.returncode is not None
    return process.returncode, out, err


@pytest.mark.parametrize(
    "line",
    ["--version", "--help", "config", "config --wrong", "--wrong", "status", "token", "whoami", "logout", "login"],
)
async def test_exit_code_and_output_are_the_same(tmp_path: Path, line: str) -> None:
    forked, fresh = [await ended(line.split(), tmp_path, fresh=each) for each in (False, True)]
    assert forked == fresh


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_signal_ends_it_with_the_same_code(tmp_path: Path, number: int) -> None:
    codes = []
    for fresh in (False, True):
        async with program("serve", home=tmp_path, env=NOBODY, fresh=fresh) as server:
            codes.append(await server.stop(number))
    assert codes[0] == codes[1]


async def test_it_has_a_process_of_its_own_with_its_folder_and_no_file_of_another(tmp_path: Path) -> None:
    seen = []
    for fresh in (False, True):
        # Without credentials, which would be verified now, and without a spare: no connection comes and goes.
        env = pointed_at("http://127.0.0.1:9") | {"SLPROXY_UPSTREAM__WARM": "0"}
        async with program("serve", home=tmp_path, env=env, fresh=fresh) as server:
            here = f"/proc/{server.process.pid}"
            seen.append((os.readlink(f"{here}/cwd"), len(os.listdir(f"{here}/fd"))))  # noqa: PTH115, PTH208
    assert seen[0] == seen[1]
    assert seen[0][0] == str(tmp_path)


def test_what_the_interpreter_reads_at_its_start_makes_it_start(tmp_path: Path) -> None:
    assert forkserver.fits(environment(tmp_path))
    for name in ("PYTHONDEVMODE", "PYTHONPATH", "TZ", "LC_ALL"):
        assert not forkserver.fits(environment(tmp_path, **{name: "1"}))
