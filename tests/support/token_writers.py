"""Token writers: processes that write a token, each of which may be made to die or to fail on the way.

``python -m tests.support.token_writers`` forks one for each line that it reads; it writes ``NEW`` once it is told to by
a signal, and its exit code is told. Loading Python and our modules once makes a death cost milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from slproxy.config import Secret
from slproxy.errors import StoreError
from slproxy.store import FileStore, Record, Token, TokenCipher, file, private_file
from tests.support import ROOT
from tests.support.strace import under_strace
from tests.support.waiting import PATIENCE

PHRASE = "a-phrase-of-the-test"


def cipher(*, encrypted: bool) -> TokenCipher:
    return TokenCipher("key" if encrypted else "off", key=Secret(PHRASE) if encrypted else None, keyring=lambda: None)


OLD = Record(
    client_id="client-1",
    accounts_url="https://accounts.salesloft.com",
    token=Token(access_token="hidden-old", refresh_token="hidden-old-refresh", obtained_at=1.0, expires_at=7201.0),
    generation=7,
)
NEW = OLD.renewed(replace(OLD.token, access_token="hidden-new", refresh_token="hidden-new-refresh"))
NEWER = NEW.renewed(replace(NEW.token, access_token="hidden-newer"))


# The tests' side.


class Writers:
    """Processes that write a token, each of which may be made to die or to fail on the way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write(self, path: Path, *, encrypted: bool, line: int = 0, strace: Sequence[str] = ()) -> int:
        """Write NEW, and return the exit code; die at that line of Python, or under strace with these arguments."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path} {'encrypted' if encrypted else 'plain'} {line}\n".encode())
        pid = await self._number()
        async with under_strace(pid, strace) if strace else contextlib.nullcontext():
            os.kill(pid, signal.SIGUSR1)
            return await self._number()

    async def _number(self) -> int:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return int(await self._process.stdout.readline())


@asynccontextmanager
async def token_writers() -> AsyncIterator[Writers]:
    """Run the process that forks the writers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.token_writers"), cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    yield Writers(process)
    process.stdin.close()
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0


# The process' side.


def die_at(step: int) -> None:
    """Kill this process at its so manieth line of the file store."""
    left = step

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (file.__file__, private_file.__file__):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def write(store: FileStore, step: int) -> None:
    """Write the token when the signal comes, and end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    print(os.getpid(), flush=True)
    signal.sigwait({signal.SIGUSR1})
    if step:
        die_at(step)
    try:
        # Not by `write`, which does the same in a thread: strace counts the calls of each thread by itself.
        store.write_blocking(NEW)
    except StoreError:
        os._exit(3)
    os._exit(0)


def main() -> None:
    ciphers = {"encrypted": cipher(encrypted=True), "plain": cipher(encrypted=False)}
    ciphers["encrypted"].encrypt(b"derives the key")
    for line in iter(sys.stdin.readline, ""):
        path, how, step = line.split()
        with contextlib.suppress(FileNotFoundError):
            # Here, so that the key is derived once, and not in each writer.
            ciphers[how].decrypt(Path(path).read_bytes())
        pid = os.fork()
        if pid == 0:
            write(FileStore(Path(path), ciphers[how]), int(step))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
