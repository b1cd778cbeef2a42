"""The Node side of the tests: newman and two SalesLoft clients, at the versions that package-lock.json pins."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.programs import environment

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
# The oldest Node with the `fetch` that @opensdks/runtime calls.
OLDEST = 18
# npm's own names for "there was no registry to ask"; with any other error something here is wrong.
NO_REGISTRY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EIDLETIMEOUT")
# A first installation takes half a minute, a run a few seconds.
INSTALLING, RUNNING = 300.0, 60.0


def present() -> None:
    """Skip where there is no Node, or too old a one."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node here")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < OLDEST:
        pytest.skip(f"Node {version} is too old: {OLDEST} or later is needed")


def installed() -> Path:
    """Return the folder of programs, installed as pinned; skip where there is no Node, npm or registry."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here")
    present()
    # Two runs of the tests at a time would each remove what the other has just installed.
    with FileLock(HERE / ".lock", timeout=INSTALLING):
        if not _is_as_pinned():
            _install(npm)
    return MODULES / ".bin"


def _is_as_pinned() -> bool:
    """Tell whether npm has finished here, with the very packages of the lock file."""
    try:
        # npm writes it last, and in it what it has installed: https://docs.npmjs.com/cli/configuring-npm/package-lock-json
        there = json.loads((MODULES / ".package-lock.json").read_text())["packages"]
    except (OSError, ValueError, KeyError):
        return False
    wanted: dict[str, dict[str, object]] = json.loads((HERE / "package-lock.json").read_text())["packages"]
    return all(
        there.get(name, {}).get("version") == package.get("version")
        for name, package in wanted.items()
        if name and not package.get("optional")
    )


def _install(npm: str) -> None:
    done = subprocess.run([npm, "ci"], cwd=HERE, capture_output=True, text=True, timeout=INSTALLING, check=False)
    if done.returncode and any(code in done.stderr for code in NO_REGISTRY):
        pytest.skip("the npm registry cannot be reached, and the packages are not installed yet")
    assert done.returncode == 0, done.stderr


async def run(program: Path | str, *arguments: str, home: Path) -> tuple[int, str, str]:
    """Run a program in an environment of its own; return exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        str(program),
        *arguments,
        cwd=HERE,
        env=environment(home),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUNNING):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def script(name: str, *arguments: str, home: Path) -> dict[str, object]:
    """Run a script of this folder and return what it prints, which is one JSON object."""
    code, out, err = await run("node", str(HERE / name), *arguments, home=home)
    assert code == 0, err
    document = json.loads(out)
    assert isinstance(document, dict)
    return document
