"""Clock: where time and chance come from in a process that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from slproxy.access import TimeSource
from slproxy.pace import CallLater, Timer
from slproxy.upstream import suspended


def _call_later(delay: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay, callback)


@dataclass(frozen=True, kw_only=True)
class Clock(TimeSource):
    """Where time and chance come from; tests bring their own."""

    call_later: CallLater = _call_later
    # By how many seconds a clock that runs on while the machine sleeps is ahead of one that does not.
    suspended: Callable[[], float] = suspended


REAL_CLOCK = Clock()
