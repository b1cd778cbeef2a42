"""Waiting in tests: how long, and until what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Longer than anything on loopback takes, even on a machine that is busy: what waits this long has failed.
PATIENCE = 60.0
# Longer than what happens at once takes there, and less than what would be wrong: a timeout of the program's own.
SOON = 20.0
# What may come on top of a timeout there, where what would be wrong takes longer still.
SLACK = 10.0


async def until(true: Callable[[], bool], *, timeout: float = PATIENCE) -> None:
    """Wait until something has come true, and fail when it does not."""
    async with asyncio.timeout(timeout):
        while not true():
            await asyncio.sleep(0.005)
