"""Fork server: starts slproxy as a process of its own in 10 ms, in place of the 400 ms that its imports take.

``python -m tests.support.forkserver FD`` imports the program and waits on a socket; for each request it forks, and the
child goes on as ``python -m slproxy`` would: with its own arguments, environment, folder and standard streams, its own
process id, signals and exit code. What depends on the interpreter's start is not for it: ``fits`` says so.
"""

from __future__ import annotations

import asyncio
import asyncio.base_subprocess
import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from tests.support import ROOT

# The environment of the server, beside what every program of a test has.
START = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
LARGEST = 2**17


# The server's side.


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; return what was asked for in the child, and nothing once the tests have ended."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    children: dict[int, tuple[int, int]] = {}  # by the descriptor that tells of the end: process, and whom to tell
    while True:
        for ready, _ in poll.poll():
            if ready in children:
                pid, status = children.pop(ready)
                poll.unregister(ready)
                _, code, usage = os.wait4(pid, 0)
                worked = usage.ru_utime + usage.ru_stime
                os.write(status, f"{os.waitstatus_to_exitcode(code)} {worked}\n".encode())
                os.close(status)
                os.close(ready)
                continue
            asked, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 4)
            if not asked:
                return None
            pid = os.fork()
            if pid == 0:
                requests.detach()
                for number, descriptor in enumerate(descriptors[:3]):
                    os.dup2(descriptor, number)
                os.closerange(3, max(2**10, max(descriptors) + 1, *children, 0))
                request: dict[str, Any] = json.loads(asked)
                return request
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            os.write(descriptors[3], b"%d\n" % pid)
            end = os.pidfd_open(pid)
            children[end] = (pid, descriptors[3])
            poll.register(end, select.POLLIN)


def main() -> None:
    # Ctrl-C is for those who wait for the programs, and ends this one by closing its socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import slproxy  # noqa: PLC0415 - the tests import this module as well, and not this for it

    # And what the program imports late, or by its name.
    modules = [module.name for module in pkgutil.walk_packages(slproxy.__path__, "slproxy.")]
    modules.remove("slproxy.__main__")
    for name in (*modules, "encodings.idna", "keyring.backends.fail", "redis.asyncio", "uvloop"):
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        request = serve(requests)
    if request is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["slproxy", *request["arguments"]]
    try:
        runpy.run_module("slproxy", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, int):
            finish(end.code)
        raise


def finish(code: int) -> None:
    """End as the interpreter does, but for taking its modules apart: that takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # what was left open complains
    with contextlib.suppress(OSError):  # the interpreter tells of it, in its own words
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# The tests' side.


def fits(environment: Mapping[str, str]) -> bool:
    """Tell whether a program may be forked: what the interpreter reads as it starts must be what the server had."""
    early = {name: value for name, value in environment.items() if name.startswith(("PYTHON", "LC_", "TZ", "COV"))}
    late = {name for name in early if name.startswith("PYTHON_KEYRING")}  # keyring's own, which is loaded late
    return hasattr(os, "pidfd_open") and {name: early[name] for name in early.keys() - late} == START


class ForkServer:
    """The server of this process, which ends with it."""

    def __init__(self) -> None:
        # The seconds that programs which have ended have worked.
        self.worked = 0.0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            wanted = ("PATH", "LANG", "VIRTUAL_ENV", "COVERAGE_PROCESS_CONFIG")
            kept = {name: os.environ[name] for name in wanted if name in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno())],
                cwd=ROOT,
                env={**kept, **START},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def ask(self, request: bytes, descriptors: Sequence[int]) -> None:
        socket.send_fds(self._socket, [request], descriptors)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def server() -> ForkServer:
    """Return the server of this process of tests, started when it is first asked for."""
    return ForkServer()


class Forked:
    """A process as ``subprocess.Popen`` shows it to asyncio."""

    def __init__(self, request: bytes, streams: Sequence[int]) -> None:
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None
        theirs: list[int] = []
        for number, (name, given) in enumerate(zip(("stdin", "stdout", "stderr"), streams, strict=True)):
            if given == subprocess.PIPE:
                read, write = os.pipe()
                theirs.append(write if number else read)
                setattr(self, name, os.fdopen(read if number else write, "rb" if number else "wb", buffering=0))
            else:
                theirs.append(os.open(os.devnull, os.O_RDWR) if given == subprocess.DEVNULL else os.dup(given))
        self.status, told = socket.socketpair()
        with told:
            server().ask(request, [*theirs, told.fileno()])
        for descriptor in theirs:
            os.close(descriptor)
        self._told = self.status.makefile("rb")
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        return self.returncode

    def ended(self) -> int:
        """Return the exit code, once the server has told it."""
        code, worked = self._told.readline().split()
        self._told.close()
        self.status.close()
        server().worked += float(worked)
        self.returncode = int(code)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Transport(asyncio.base_subprocess.BaseSubprocessTransport):
    """asyncio's own transport for a process, around one that was forked; ``loop.subprocess_exec`` makes such."""

    def _start(self, *, args: bytes, stdin: int, stdout: int, stderr: int, **_: object) -> None:  # type: ignore[override]
        self._proc = forked = Forked(args, (stdin, stdout, stderr))  # type: ignore[assignment]
        loop: asyncio.AbstractEventLoop = self._loop

        def ended() -> None:
            loop.remove_reader(forked.status)
            self._process_exited(forked.ended())

        loop.add_reader(forked.status, ended)


async def fork(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], *, stdin: int, stdout: int, stderr: int
) -> asyncio.subprocess.Process:
    """Start ``slproxy`` with these arguments, as ``asyncio.create_subprocess_exec`` starts a program."""
    loop = asyncio.get_running_loop()
    request = json.dumps({"arguments": [*arguments], "cwd": str(cwd), "env": {**environment}}).encode()
    protocol = asyncio.subprocess.SubprocessStreamProtocol(limit=2**16, loop=loop)
    connected = loop.create_future()
    transport = Transport(loop, protocol, request, False, stdin, stdout, stderr, 0, waiter=connected)
    await connected
    return asyncio.subprocess.Process(transport, protocol, loop)


if __name__ == "__main__":
    main()
