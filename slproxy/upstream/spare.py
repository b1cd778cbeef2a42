"""The spare: one connection to the API that stands ready, its TLS done, as long as the proxy is used.

1. There is never more than one: none is made while a request has a connection, or makes one, which will be idle soon.
2. It is replaced before the pool gives it up, when it is older than a sleep of the machine, and when its peer is gone.
3. What fails is tried again ever later, and so is what the upstream closes soon: no storm comes of either.
4. Nothing that goes wrong with it is a request's failure, or counts as one. It is told: in the log once, and as a
   warning until a connection comes about.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

from slproxy.errors import UpstreamFault
from slproxy.upstream.dial import Origin
from slproxy.upstream.pool import Pool

log = logging.getLogger("slproxy")

# How often the spare is looked at, in seconds: a machine that sleeps wakes nobody.
POLL_INTERVAL = 5.0
# One that the upstream closes sooner counts as a failure, in seconds: were it replaced at once, an upstream that closes
# idle connections after a second would be connected to all the time. Load balancers have a minute or more.
LASTING = 10.0
# Between failures: doubling from the first to the last, in seconds, of which at least half is waited.
FIRST_PAUSE, LAST_PAUSE = 0.5, 60.0


class Warmth:
    """When a spare is made: for ``seconds`` after the last use; times are passed in, in seconds of any one clock."""

    def __init__(self, seconds: float, *, now: float) -> None:
        self._seconds = seconds
        # When a client has used the proxy last.
        self.used_at = now
        self._due = now
        self._made_at = -math.inf
        self._failures = 0

    def made(self, now: float) -> None:
        """Note that a spare was made."""
        self._made_at = now

    def reached(self, now: float) -> None:
        """Note that there is a connection."""
        self._due = min(self._due, now + LAST_PAUSE)

    def failed(self, now: float, *, jitter: float, is_lasting: bool = False) -> None:
        """Note that none could be made; ``jitter`` is uniform in [0, 1).

        What is lasting, such as a password that a proxy refuses, is not tried again: that would lock an account.
        """
        pause = min(FIRST_PAUSE * 2.0 ** min(self._failures, 10), LAST_PAUSE)
        self._failures += 1
        self._due = math.inf if is_lasting else now + pause * (1 + jitter) / 2

    def lost(self, now: float, *, idle: float, jitter: float) -> None:
        """Note that the upstream has closed the last connection, which had lain ``idle`` for so many seconds."""
        if idle >= LASTING or self.used_at > self._made_at:
            self._failures = 0
        self.failed(now, jitter=jitter)

    def wait(self, now: float, *, is_warm: bool) -> float:
        """Return the seconds until the next look, 0 to make a spare now."""
        if is_warm or now - self.used_at >= self._seconds:
            return POLL_INTERVAL
        return min(max(self._due - now, 0.0), POLL_INTERVAL)


class Spare:
    """Keeps the spare of one origin; ``warning`` is why there is none."""

    def __init__(self, pool: Pool, origin: Origin, *, seconds: float, jitter: Callable[[], float]) -> None:
        self._pool, self._origin, self._jitter = pool, origin, jitter
        self._time = asyncio.get_running_loop().time
        self._warmth = Warmth(seconds, now=self._time())
        self._news = asyncio.Event()
        # Why none could be made last, and what to do. Not the fault: a request that shares it would be kept with it.
        self._why: str | None = None
        self._keeping = asyncio.create_task(self._keep(), name="slproxy: keep a connection ready")

    def used(self) -> None:
        """Note that a client has used the proxy."""
        self._warmth.used_at = self._time()

    def lost(self, idle: float | None) -> None:
        """Note that no connection is open any more: the last one was lost in use (``None``), or after so long."""
        if idle is not None:
            self._warmth.lost(self._time(), idle=idle, jitter=self._jitter())
        self._news.set()

    @property
    def warning(self) -> str | None:
        """Why there was no connection when one was last tried, and what to do."""
        return None if self._pool.is_open(self._origin) else self._why

    def stop(self) -> None:
        """Make none any more; the one that stands is the pool's."""
        self._keeping.cancel()

    async def close(self) -> None:
        """Stop, and wait until nothing is under way."""
        self.stop()
        await asyncio.wait({self._keeping})

    async def _keep(self) -> None:
        while True:
            self._news.clear()
            if self._pool.is_open(self._origin):
                self._reached()
            if wait := self._warmth.wait(self._time(), is_warm=self._pool.is_warm(self._origin)):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._news.wait()
            else:
                await self._make()

    async def _make(self) -> None:
        try:
            stands = await self._pool.prepare(self._origin)
        except UpstreamFault as fault:
            self._failed(fault)
            return
        except Exception:
            # The outermost frame of this task: without it a defect would end it, and say nothing.
            log.exception("a defect in slproxy, while connecting")
            stands = False
        if stands:
            self._warmth.made(self._time())
            self._reached()
        else:
            self._warmth.failed(self._time(), jitter=self._jitter())

    def _failed(self, fault: UpstreamFault) -> None:
        why = f"{fault.detail} {fault.hint}"
        if self._why != why:
            # The system's own words help; another library's may quote what it was given.
            cause = f" ({fault.__cause__})" if isinstance(fault.__cause__, OSError) else ""
            log.warning("no connection to %s: %s%s", self._origin.authority, why, cause)
        self._why = why
        self._warmth.failed(self._time(), jitter=self._jitter(), is_lasting=fault.is_lasting)

    def _reached(self) -> None:
        self._warmth.reached(self._time())
        if self._why is not None:
            log.info("%s can be reached again", self._origin.authority)
            self._why = None
