"""Refresher: the background task that renews the token before it matters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("slproxy.auth")


class Refresher:
    """Runs a step again and again, after so many seconds each time, or at once when it is woken."""

    def __init__(
        self,
        step: Callable[[], Awaitable[None]],
        *,
        interval: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._step, self._interval, self._sleep = step, interval, sleep
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    @property
    def was_started(self) -> bool:
        """Whether this process goes on running, as a command does not."""
        return self._task is not None

    def start(self) -> None:
        """Start, until ``stop``."""
        self._task = asyncio.create_task(self._run(), name="slproxy: keep the token fresh")

    def wake(self) -> None:
        """Take the next step now."""
        self._woken.set()

    async def stop(self) -> None:
        """Cancel the task, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Exception:
                # The outermost frame of this task: without it a defect would end the renewals, and say nothing.
                log.exception("a defect in slproxy, while keeping the token fresh")
            await self._pause(self._interval())

    async def _pause(self, seconds: float) -> None:
        self._woken.clear()
        waits = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._woken.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
