"""Slots: the limit on connections, and which stalled ones lose theirs to requests that wait."""

from __future__ import annotations

import asyncio
import math

from slproxy.errors import Overloaded
from slproxy.upstream.faults import STALL_TIMEOUT
from slproxy.upstream.round_trip import RoundTrip

# How often those that wait look for a stalled client, in seconds.
EVICT_EVERY = 0.1


class Slot:
    """One of the connections that there may be at a time, whether or not it has been made; ``waited`` is in seconds."""

    def __init__(self, semaphore: asyncio.Semaphore, *, waited: float = 0.0) -> None:
        self._semaphore: asyncio.Semaphore | None = semaphore
        self.waited = waited

    def release(self) -> None:
        """Give the slot back; may be called again."""
        if self._semaphore is not None:
            self._semaphore.release()
            self._semaphore = None


def room_in(waiting: int, *, released: int, within: float) -> int:
    """Return the seconds after which one who comes behind so many gets a slot, as fast as they were released lately."""
    return max(1, math.ceil(min(within, within * (waiting + 1) / released) if released else within))


class Slots:
    """The slots of ``upstream.max_connections``; a wait for one takes ``timeout`` seconds at most.

    The pool has no limit: a wait for a connection is the proxy's, and must not look like a timeout of the upstream
    (docs/hazards.md, trap 13).
    """

    def __init__(self, limit: int, *, timeout: float) -> None:
        self._semaphore = asyncio.Semaphore(limit)
        self._timeout = timeout
        self._waiting = self._released = 0
        self._evicting: asyncio.TimerHandle | None = None
        # Those that hold a connection now.
        self.round_trips: set[RoundTrip] = set()

    @property
    def are_taken(self) -> bool:
        """Whether one has to be waited for."""
        return self._semaphore.locked()

    async def acquire(self) -> Slot:
        """Wait for one of ``upstream.max_connections``, no longer than for a reply.

        Raises:
            Overloaded: none came free in time.
        """
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            return Slot(self._semaphore)
        since = asyncio.get_running_loop().time()
        self._waiting, released = self._waiting + 1, self._released
        if self._evicting is None:
            self._evict_stalled()
        try:
            async with asyncio.timeout(self._timeout):
                await self._semaphore.acquire()
        except TimeoutError as error:
            room = room_in(self._waiting - 1, released=self._released - released, within=self._timeout)
            raise Overloaded(
                f"All of upstream.max_connections were in use for {self._timeout:g} s.",
                hint="Send fewer requests at a time, or raise the limit.",
                headers=(("Retry-After", str(room)),),
            ) from error
        finally:
            self._waiting -= 1
        self._released += 1
        return Slot(self._semaphore, waited=asyncio.get_running_loop().time() - since)

    def _evict_stalled(self) -> None:
        """Evict the round trips of stalled clients, the longest held first, as long as somebody waits for a slot.

        A few hundred clients that read nothing would otherwise keep everybody else out for as long as they like.
        """
        self._evicting = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        stalled = sorted(
            (each for each in self.round_trips if each.held_by_client_for(now) >= STALL_TIMEOUT),
            key=lambda each: -each.held_by_client_for(now),
        )
        for round_trip in stalled[: self._waiting]:
            round_trip.evict()
        self._evicting = loop.call_later(EVICT_EVERY, self._evict_stalled)
