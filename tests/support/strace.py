"""strace: makes the system calls of a process slow, fail or deadly."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.waiting import PATIENCE, until


@asynccontextmanager
async def under_strace(pid: int, arguments: Sequence[str]) -> AsyncIterator[None]:
    """Have strace do something to a process, until that ends."""
    strace = await asyncio.create_subprocess_exec("strace", "-qq", *arguments, "-p", str(pid), stderr=PIPE)

    def is_traced() -> bool:
        assert strace.returncode is None, "strace could not attach"
        return f"TracerPid:\t{strace.pid}\n" in Path(f"/proc/{pid}/status").read_text()

    try:
        await until(is_traced)
        yield
    finally:
        async with asyncio.timeout(PATIENCE):
            await strace.communicate()


def injected(call: str, what: str, nth: int) -> list[str]:
    """Return strace's arguments for something to happen at the nth time of a call, before it is done."""
    # Only what is traced can be made to fail.
    return ["-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={nth}"]
