"""The end of ``serve``, whatever hangs: a second signal ends it within a second (docs/hazards.md, D1)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slproxy.sandbox import Sandbox
from tests.support import ROOT
from tests.support.programs import environment, program, spawn
from tests.support.proxies import API_KEY
from tests.support.raw_http import Message, get, raw
from tests.support.sandboxes import running_sandbox
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE, SLACK, SOON, until

pytestmark = pytest.mark.heavy


def env_of(url: str, **more: str) -> dict[str, str]:
    return {
        "SLPROXY_UPSTREAM__API_URL": url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": url,
        "SLPROXY_LOG__FORMAT": "json",
        **more,
    }


def of_the_sandbox(sandbox: Sandbox, **more: str) -> dict[str, str]:
    return env_of(
        sandbox.url,
        SALESLOFT_CLIENT_ID=sandbox.options.client_id,
        SALESLOFT_CLIENT_SECRET=sandbox.options.client_secret,
        **more,
    )


@asynccontextmanager
async def started(
    home: Path, env: dict[str, str], *command: str, stderr: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``serve`` until the block ends, without reading what it says."""
    process = await asyncio.create_subprocess_exec(
        *command,
        *(sys.executable, "-m", "slproxy", "serve", "--uds", str(home / "s")),
        cwd=home,
        env=environment(home, **env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def connected(path: Path) -> socket.socket:
    """Connect to a socket file as soon as somebody listens."""
    async with asyncio.timeout(PATIENCE):
        while True:
            client = socket.socket(socket.AF_UNIX)
            try:
                client.connect(str(path))
            except OSError:
                client.close()
                await asyncio.sleep(0.02)
            else:
                return client


async def taken(process: asyncio.subprocess.Process) -> None:
    """Wait until no signal is on its way to a program, since two of a kind that wait are one; and a moment longer."""
    if sys.platform == "linux":
        status = Path(f"/proc/{process.pid}/status")
        await until(lambda: not re.search(r"^S(ig|hd)Pnd:\s+0*[1-9a-f]", status.read_text(), re.MULTILINE))
    await asyncio.sleep(0.2)


async def ends(process: asyncio.subprocess.Process, *, signals: int) -> float:
    """Send so many signals; return for how long it went on after the last."""
    for turn in range(signals):
        if turn:
            await taken(process)
        assert process.returncode is None, "it ended before"
        process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    async with asyncio.timeout(SOON):
        assert await process.wait() == 0
    return time.monotonic() - began


# In a network namespace of its own: a server of names on loopback that never answers, and the program in its place.
SILENT_NAMES = """
import fcntl, os, socket, struct, subprocess, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
names.set_inheritable(True)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def is_asked_for_a_name(pid: int) -> bool:
    """Tell whether a question lies in the socket of the server of names, which stands at port 53 and reads none."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]]
    return any(row[1].endswith(":0035") and int(row[4].partition(":")[2], 16) for row in rows)


def with_silent_names(home: Path) -> list[str]:
    """Return the command before a command that has no name resolved."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "-n", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody have a network of their own")
    (home / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:2\n")
    return [unshare, "-m", "-n", sys.executable, "-c", SILENT_NAMES, str(home / "resolv.conf")]


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_resolver_that_hangs_holds_nothing_up(tmp_path: Path, signals: int) -> None:
    """An API key has nothing that must be finished; a renewal that waits for a name has, until the second signal."""
    auth = {"SALESLOFT_API_KEY": API_KEY}
    if signals == 2:
        auth = {"SALESLOFT_CLIENT_ID": "marker-id", "SALESLOFT_CLIENT_SECRET": "marker-secret"}
    env = env_of("https://api.salesloft.test", SLPROXY_STORE__KIND="memory", **auth)
    async with started(tmp_path, env, *with_silent_names(tmp_path)) as process:
        client = await connected(tmp_path / "s")
        client.send(get("/v2/me"))
        await until(lambda: is_asked_for_a_name(process.pid))
        client.close()
        assert await ends(process, signals=signals) < 1.0 + SLACK


async def test_a_second_signal_ends_it_while_the_token_endpoint_hangs_and_the_first_says_what_it_may_cost(
    tmp_path: Path,
) -> None:
    async def hang(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with ScriptedUpstream(hang) as upstream, running_sandbox() as sandbox:
        env = of_the_sandbox(sandbox, SLPROXY_STORE__KIND="memory") | {"SLPROXY_UPSTREAM__ACCOUNTS_URL": upstream.url}
        async with program("serve", "--port", "0", home=tmp_path, env=env) as running:
            await until(lambda: len(upstream.seen) == 1)
            assert await ends(running.process, signals=2) < 1.0 + SLACK
    assert "waiting for the token to be renewed; SIGTERM again stops now, and may lose it" in running.output


async def test_a_third_signal_ends_a_command_that_waits_for_a_renewal(tmp_path: Path) -> None:
    async def hang(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with ScriptedUpstream(hang) as upstream, running_sandbox() as sandbox:
        env = of_the_sandbox(sandbox, SLPROXY_STORE__KIND="memory") | {"SLPROXY_UPSTREAM__ACCOUNTS_URL": upstream.url}
        process = await spawn(["token"], tmp_path, env, stdin=asyncio.subprocess.DEVNULL)
        await until(lambda: len(upstream.seen) == 1)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            await taken(process)
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SLACK):
            _, err = await process.communicate()
    assert (process.returncode, err) == (128 + signal.SIGINT, b"")


HANGING_KEYRING = """
import time
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        open("asked", "w").close()
        time.sleep(60)
    set_password = delete_password = get_password
"""


async def test_a_second_signal_ends_it_while_the_keyring_hangs(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING_KEYRING)
    env = env_of(
        "http://127.0.0.1:9",
        PYTHON_KEYRING_BACKEND="hanging.Keyring",
        SLPROXY_STORE__KIND="keyring",
        PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}",
    )
    async with started(tmp_path, env) as process:
        await until((tmp_path / "asked").exists)
        assert await ends(process, signals=2) < 1.0 + SLACK


async def test_a_second_signal_ends_it_while_its_log_is_stuck(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        env = env_of("http://127.0.0.1:9", SALESLOFT_API_KEY=API_KEY, SLPROXY_STORE__KIND="memory")
        async with started(tmp_path, env, stderr=writing) as process:
            (await connected(tmp_path / "s")).close()
            assert await ends(process, signals=2) < 1.0 + SLACK
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(("number", "again"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
async def test_the_first_signal_says_what_it_waits_for_and_how_to_stop_now(
    tmp_path: Path, number: signal.Signals, again: str
) -> None:
    async def hang(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with ScriptedUpstream(hang) as upstream:
        env = env_of(
            upstream.url, SALESLOFT_API_KEY=API_KEY, SLPROXY_STORE__KIND="memory", SLPROXY_LOG__FORMAT="pretty"
        )
        async with program("serve", "--port", "0", home=tmp_path, env=env) as running:
            asking = asyncio.create_task(raw(running.url, get("/v2/a")))
            await until(lambda: any(message.head.target == "/v2/a" for message in upstream.seen))
            running.process.send_signal(number)
            said = f"shutting down: 1 request in flight, waiting up to 30 s, {again} again to stop now"
            await until(lambda: said in running.output, timeout=SOON)
            assert await running.stop(number) == 0
            await asyncio.gather(asking, return_exceptions=True)
