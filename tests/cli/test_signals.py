"""A signal at any moment, from the program's first line to the interpreter's last: a clean end, and no traceback.

A moment is a system call: strace sends the signal as the nth of its kind begins, so that it does not depend on how
fast the machine is. As PID 1 of a container the kernel drops a signal that nothing handles (pid_namespaces(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from slproxy.cli.process import DaemonThreads, in_daemon_thread
from tests.support.commands import interactive, pointed_at
from tests.support.programs import environment
from tests.support.proxies import API_KEY
from tests.support.waiting import PATIENCE, until

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace sends the signals"),
]

NOBODY = pointed_at("http://127.0.0.1:9", SALESLOFT_API_KEY=API_KEY)
LOGIN = pointed_at("http://127.0.0.1:9", SALESLOFT_CLIENT_ID="marker-id", SALESLOFT_CLIENT_SECRET="marker-secret")
SLPROXY = (sys.executable, "-m", "slproxy")
# What makes a process the first of a container.
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc")
# The handlers change hands at the last two, and of the first there is one a file that is imported or read.
CALLS = ("openat", "rt_sigaction", "rt_sigprocmask")


@cache
def is_container_allowed() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*CONTAINER, "true"], check=False).returncode


@dataclass
class Ended:
    code: int
    said: str


async def ended(home: Path, env: dict[str, str], command: Sequence[str], *, number: int = 0) -> Ended:
    """Run a command to its end, without input; what listens or asks for input gets ``number`` then, if that is given.

    A signal makes it end within ``PATIENCE``, or at once: what hangs fails here.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=home,
        env=environment(home, **env),
        stdin=asyncio.subprocess.PIPE,  # and it stays open: a person types nothing
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(PATIENCE):
            while line := (await process.stdout.readline()).decode():
                said += line
                if number and re.match(r"Listening on |Then paste ", line):
                    with contextlib.suppress(ProcessLookupError):  # the other signal has ended it
                        os.killpg(process.pid, number)
            return Ended(await process.wait(), said)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@dataclass(frozen=True)
class Moment:
    """The ``when``th of a kind of system call; of opened files, the ``when``th of one path."""

    call: str
    when: int
    path: str = ""

    def tracing(self, number: int) -> list[str]:
        """Return how strace sends the signal at it.

        Files by their paths: how many are opened before ours differs, such as while another package is installed.
        """
        inject = f"inject={self.call}:signal={signal.Signals(number).name}:when={self.when}"
        of = ["-P", self.path] if self.path else []
        return ["strace", "-f", "-o", os.devnull, *of, "-e", f"trace={self.call}", "-e", inject]


async def seen(home: Path, env: dict[str, str], line: str, number: int) -> dict[str, list[Moment]]:
    """Return, for each of ``CALLS``, the moments of a command from where it imports itself.

    By then its signals are held. What the interpreter does before that is not ours.
    """
    trace = home / "trace"
    tracing = ("strace", "-f", "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    await ended(home, env, [*tracing, *SLPROXY, *line.split()], number=number)
    # Of its main thread, whose number stands first.
    lines = [line.split(maxsplit=1) for line in trace.read_text().splitlines()]
    calls = [call for thread, call in lines if thread == lines[0][0]]
    itself = re.compile(r"slproxy/cli/(commands/)?(__pycache__/)?(program|healthcheck)")
    ours = next(i for i, call in enumerate(calls) if itself.search(call))
    moments: dict[str, list[Moment]] = {name: [] for name in CALLS}
    counted: Counter[tuple[str, str]] = Counter()
    for i, call in enumerate(calls):
        name = call.partition("(")[0]
        # No source, which is read when nothing is compiled yet, and no file that is written: those have other names.
        opened = re.match(r'openat\(AT_FDCWD, "(.+?)(?<!\.py)", O_RDONLY', call)
        if name in CALLS and (opened or name != "openat"):
            path = opened[1] if opened else ""
            counted[name, path] += 1
            if i >= ours:
                moments[name].append(Moment(name, counted[name, path], path))
    return moments


# With ``--long`` at every moment, else at some; the second list only then.
CASES = {
    "serve": (NOBODY, signal.SIGTERM, {0}, True),
    "login --no-browser": (LOGIN, signal.SIGINT, {130}, False),
    "--version": (NOBODY, signal.SIGINT, {130, 0}, False),
}
MORE = {
    "sandbox --port 0": ({}, signal.SIGINT, {0}, False),
    "status": (NOBODY, signal.SIGINT, {130, 0}, False),
    "doctor": (NOBODY, signal.SIGTERM, {143, 1}, True),
    "config": (NOBODY, signal.SIGINT, {130, 0}, False),
    "healthcheck": (NOBODY, signal.SIGTERM, {143, 1}, True),
    "--wrong": (NOBODY, signal.SIGTERM, {143, 2}, True),
}


def some(moments: list[Moment]) -> list[Moment]:
    """Return while modules are imported, or as the last handlers change hands, which is as the loop ends."""
    if moments[0].call == "openat":
        return [moments[0], moments[len(moments) // 2]]
    return moments[-3:-2] or moments[:1]


@pytest.mark.parametrize("line", [*CASES, *MORE])
async def test_a_signal_at_any_moment_ends_a_command_without_a_traceback(
    tmp_path: Path, line: str, pytestconfig: pytest.Config
) -> None:
    is_long = bool(pytestconfig.getoption("--long"))
    if line in MORE and not is_long:
        pytest.skip("with --long")
    env, number, codes, is_first = (CASES | MORE)[line]
    before = CONTAINER if is_first and is_container_allowed() else ()
    for call, moments in (await seen(tmp_path, env, line, number)).items():
        for moment in moments if is_long else some(moments):
            # The program is beneath strace, and in the container its first process.
            command = [*moment.tracing(number), *before, *SLPROXY, *line.split()]
            # One that is lost while it starts would be made good by another: then there is none, and it hangs.
            starts = call == "openat" and moments.index(moment) <= len(moments) // 2
            end = await ended(tmp_path, env, command, number=0 if starts else number)
            assert end.code in codes, (moment, end)
            assert "Traceback" not in end.said, (moment, end)
            assert "KeyboardInterrupt" not in end.said, (moment, end)


# What is in the module is freed when Python has given up its own handlers already.
LATE = """
import os, threading, time
from slproxy.cli.program import run_as_process
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

class Late:
    def __del__(self, kill=os.kill, process=os.getpid(), sleep=time.sleep):
        kill(process, {number})
        sleep(0.2)

late = Late()
raise SystemExit(run_as_process(["--version"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_at_the_end_changes_no_exit_code_whichever_thread_hears_it(tmp_path: Path, number: int) -> None:
    """One that a library has started blocks no signal, as uvloop's for names do not."""
    end = await ended(tmp_path, NOBODY, [sys.executable, "-c", LATE.format(number=int(number))])
    assert (end.code, end.said.split()[0]) == (0, "slproxy")


async def test_a_thread_of_ours_hears_no_signal() -> None:
    """One that did would have it handled by Python's own handler, once asyncio has taken back the command's."""

    def blocked() -> set[signal.Signals]:
        return {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])}

    before = blocked()
    asyncio.get_running_loop().set_default_executor(DaemonThreads())
    for heard in (await in_daemon_thread(blocked), await asyncio.to_thread(blocked)):
        assert heard >= {signal.SIGTERM, signal.SIGINT}
    assert blocked() == before


async def test_a_browser_that_is_started_hears_signals(tmp_path: Path) -> None:
    """What blocks them blocks them in all that is started meanwhile (sigprocmask(2))."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\ngrep SigBlk /proc/self/status > {opened}.new && mv {opened}.new {opened}\n")
    browser.chmod(0o755)
    async with interactive("login", home=tmp_path, env={**LOGIN, "BROWSER": f"{browser} %s"}) as login:
        await login.url()
        await until(opened.exists)
        login.process.send_signal(signal.SIGINT)
        assert await login.end() == 130
    assert opened.read_text().split() == ["SigBlk:", "0" * 16]
