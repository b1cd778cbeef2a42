"""Starting: a command loads what it needs, and nothing heavy besides."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slproxy.sandbox import Sandbox
from tests.support import ROOT
from tests.support.commands import logged_in, pointed_at
from tests.support.programs import environment, program
from tests.support.proxies import API_KEY

# What takes long to load: what a whole library stands on, or a tenth of a start and more.
HEAVY = (
    *("aiohttp", "asyncio", "cryptography", "dataclasses", "dotenv", "email", "filelock", "http.client", "httptools"),
    *("importlib.metadata", "keyring", "multidict", "opentelemetry", "platformdirs", "prometheus_client", "redis"),
    *("ssl", "tenacity", "tomllib", "uvloop"),
    *("slproxy.app", "slproxy.forward", "slproxy.pace", "slproxy.sandbox", "slproxy.server", "slproxy.upstream"),
)
# `python -m slproxy`, and afterwards the names of what it has loaded, where the next line of standard error is.
LOADED = """
import json, runpy, sys
try:
    runpy.run_module("slproxy", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
sys.stderr.write("\\n" + json.dumps(sorted(sys.modules)))
"""
OF_A_HEALTH_CHECK = {
    *("slproxy", "slproxy.cli", "slproxy.cli.commands", "slproxy.cli.commands.healthcheck"),
    *("slproxy.cli.held_signals", "slproxy.cli.listening", "slproxy.cli.main"),
}
# Any command that does something has an event loop, and asyncio loads ssl.
LOOP = {"asyncio", "dataclasses", "ssl"}
ASKS_PROXY = LOOP | {"http.client", "email"}
# The user's folders are those of the environment in these tests, as in a container.
COMMANDS = {
    "--help": set(),
    "--version": set(),
    "status --help": set(),
    "--wrong": set(),
    "healthcheck": set(),
    "config": LOOP,
    "profiles": LOOP,
    "token": LOOP,
    "status": ASKS_PROXY,
    # Without credentials of its own it asks the proxy.
    "whoami": ASKS_PROXY
    | {"httptools", "slproxy.app", "slproxy.forward", "slproxy.pace", "slproxy.server", "slproxy.upstream"},
}


def loaded(arguments: Sequence[str], home: Path, env: Mapping[str, str]) -> set[str]:
    """Return all modules that a command has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        cwd=home,
        env=environment(home, **env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )
    return set(json.loads(done.stderr.decode().splitlines()[-1]))


@pytest.mark.parametrize("line", COMMANDS)
async def test_a_command_loads_nothing_heavy_that_it_does_not_need(tmp_path: Path, sandbox: Sandbox, line: str) -> None:
    """With a valid login in its file, and with nobody on the port."""
    await logged_in(tmp_path, sandbox)
    env = pointed_at(
        sandbox.url,
        SALESLOFT_CLIENT_ID=sandbox.options.client_id,
        SALESLOFT_CLIENT_SECRET=sandbox.options.client_secret,
        SLPROXY_LISTEN__PORT="9",
    )
    assert set(HEAVY) & await asyncio.to_thread(loaded, line.split(), tmp_path, env) <= COMMANDS[line]


@pytest.mark.parametrize("file", [[], ["--config", "named.toml"]], ids=["environment", "file"])
def test_a_health_check_that_finds_a_proxy_loads_neither_the_schema_nor_the_parser(
    tmp_path: Path, file: list[str]
) -> None:
    (tmp_path / "named.toml").touch()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        env = {"SLPROXY_LISTEN__PORT": str(server.getsockname()[1])}
        loading = threads.submit(loaded, ["healthcheck", *file], tmp_path, env)
        with server.accept()[0] as connection:
            assert connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nProxy-Status: slproxy\r\n\r\n")
        modules = loading.result()
    assert {name for name in modules if name.startswith("slproxy")} == OF_A_HEALTH_CHECK
    assert not modules & {*HEAVY, "argparse", "logging"} - ({"tomllib"} if file else set())


def test_to_read_the_settings_and_ask_the_proxy_takes_no_event_loop(tmp_path: Path) -> None:
    code = "import slproxy.config, slproxy.cli.own_request, sys; sys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"],
        env=environment(tmp_path),
        capture_output=True,
        check=True,
    )
    needs = {"dataclasses", "email", "http.client", "ssl"}
    assert set(HEAVY) & set(json.loads(done.stderr)) <= needs


def test_what_serves_loads_prometheus_client_at_the_first_scrape() -> None:
    code = """
import slproxy.app, sys
from slproxy.observe import Metrics, Tally
from slproxy.server import Server, serve_openly
assert "prometheus_client" not in sys.modules
Metrics(Tally(), read=dict)
assert "prometheus_client" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def mapped_by(pid: int) -> str:
    maps = Path(f"/proc/{pid}/maps")
    if not maps.exists():
        pytest.skip("only Linux tells what a process has mapped")
    return maps.read_text()


async def test_a_proxy_loads_nothing_that_its_settings_do_not_ask_for(tmp_path: Path) -> None:
    """No keyring for an API key, no Redis without one, no OpenTelemetry, and no sandbox beside SalesLoft."""
    env = pointed_at("http://127.0.0.1:9", SALESLOFT_API_KEY=API_KEY)
    async with program("serve", home=tmp_path, env=env, fresh=True) as running:
        libraries = mapped_by(running.process.pid)
    assert "httptools" in libraries
    assert not [name for name in ("cryptography", "/redis", "/google/_upb", "_cffi_backend") if name in libraries]


def processor_time(command: Sequence[str], home: Path) -> float:
    """Return the least processor time of some runs, in seconds."""
    times = []
    for _ in range(5):
        process = subprocess.Popen(
            command, cwd=home, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        times.append(usage.ru_utime + usage.ru_stime)
    return min(times)


@pytest.mark.parametrize(
    "command",
    [["-m", "slproxy"], [str(ROOT / "proxy.py")], ["-c", "import sys; from slproxy.cli import main; sys.exit(main())"]],
    ids=["module", "checkout", "console script"],
)
def test_a_help_takes_few_times_what_an_empty_program_takes(tmp_path: Path, command: list[str]) -> None:
    """It was 9 times as much when all was imported at once, and is 3 now."""
    empty = processor_time([sys.executable, "-c", "pass"], tmp_path)
    assert processor_time([sys.executable, *command, "--help"], tmp_path) < 6 * empty


def test_a_health_check_takes_few_times_what_an_empty_program_takes(tmp_path: Path) -> None:
    """It is 3 times as much where it finds nobody, for whom it has more to load."""
    empty = processor_time([sys.executable, "-c", "pass"], tmp_path)
    assert processor_time([sys.executable, "-m", "slproxy", "healthcheck"], tmp_path) < 5 * empty


# Windows, as far as it can be had here: its name, and none of the modules and functions that only POSIX has.
WINDOWS = """
import signal, sys
sys.platform = "win32"
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK", "SIGHUP"):
    delattr(signal, name)
from slproxy.cli import main
main()
"""


@pytest.mark.parametrize("command", ["serve", "--help", "healthcheck"])
def test_on_windows_it_says_in_a_line_that_it_does_not_run_there(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, command],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("slproxy: Windows is not supported. Run it under WSL: ")
    assert done.stderr.count("\n") == 1
