"""slproxy as a process of its own, as a user runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT, forkserver
from tests.support.waiting import PATIENCE, until


@dataclass
class Program:
    """``python -m slproxy`` as a process of its own, as a user runs it."""

    process: asyncio.subprocess.Process
    url: str
    lines: list[str]
    errors: list[str]

    @property
    def output(self) -> str:
        return "\n".join([*self.lines, *self.errors])

    async def stop(self, number: int = 15) -> int:
        """Send a signal and wait for the end; return the exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which nothing of the person who runs the tests is left."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
    root = str(ROOT)
    return {
        **kept,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "PYTHONPATH": root,
        "PYTHONWARNINGS": "error",
        **variables,
    }


async def spawn(
    arguments: Sequence[str],
    home: Path,
    env: Mapping[str, str] | None,
    *,
    stdin: int,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    fresh: bool = False,
    before: Sequence[str] = (),
) -> asyncio.subprocess.Process:
    """Start slproxy as a user does, in ``home`` and with nothing of the person who runs the tests.

    It is forked off where nothing tells that from a start, which takes 40 times as long; ``fresh`` starts it, and so
    does a command ``before``, which is given the program's.
    """
    variables = environment(home, **(env or {}))
    if not fresh and not before and forkserver.fits(variables):
        return await forkserver.fork(arguments, home, variables, stdin=stdin, stdout=stdout, stderr=stderr)
    return await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "slproxy", *arguments),
        cwd=home,
        env=variables,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


async def run(
    *arguments: str, home: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> tuple[int, str, str]:
    """Run a command of slproxy to its end; return exit code, standard output and standard error."""
    process = await spawn(arguments, home, env, stdin=asyncio.subprocess.PIPE)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def verified(running: Program) -> str:
    """Wait until ``serve`` has found out whom requests act as, or that it cannot; return the line that says so."""
    about = ("Authenticated as: ", "not verified ")
    await until(lambda: any(words in line for words in about for line in running.errors))
    return next(line for line in running.errors if any(words in line for words in about))


@asynccontextmanager
async def program(
    *arguments: str,
    home: Path,
    env: Mapping[str, str] | None = None,
    fresh: bool = False,
    before: Sequence[str] = (),
) -> AsyncIterator[Program]:
    """Run ``serve`` or ``sandbox`` until the block ends; its address is read from the line that it prints."""
    process = await spawn(arguments, home, env, stdin=asyncio.subprocess.DEVNULL, fresh=fresh, before=before)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    errors: list[str] = []

    async def collect(stream: asyncio.StreamReader, into: list[str]) -> None:
        while line := await stream.readline():
            into.append(line.decode().rstrip("\n"))

    collecting = [
        asyncio.create_task(collect(process.stdout, lines)),
        asyncio.create_task(collect(process.stderr, errors)),
    ]
    try:
        await until(lambda: any(line.startswith("Listening on ") for line in lines) or process.returncode is not None)
        said = next((line for line in lines if line.startswith("Listening on ")), "")
        assert said, "the program did not start:\n" + "\n".join(errors)
        yield Program(process, said.split()[2].rstrip("."), lines, errors)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(*collecting)
