"""Clock of a test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from slproxy.clock import Clock


@dataclass
class FakeTime:
    """Time that passes only when somebody waits for it: ``sleep`` returns at once and moves every clock."""

    now: float = 1_795_000_010.0
    slept: list[float] = field(default_factory=list)
    die: float = 0.5

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep, jitter=lambda: self.die)
