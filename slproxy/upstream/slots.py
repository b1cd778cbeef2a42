"""Slots: the limit on connections, and which stalled ones lose theirs to requests that wait."""

from __future__ import annotations

import asyncio
import math
from collections import deque

from slproxy.errors import Overloaded
from slproxy.upstream.faults import STALL_TIMEOUT
from slproxy.upstream.round_trip import RoundTrip

# How often those that wait look for a stalled client, in seconds.
EVICT_EVERY = 0.1


class Slot:
    """One of the connections that there may be at a time, whether or not it has been made; ``waited`` is in seconds."""

    __slots__ = ("_slots", "waited")

    def __init__(self, slots: Slots, *, waited: float = 0.0) -> None:
        self._slots: Slots | None = slots
        self.waited = waited

    def release(self) -> None:
        """Give the slot back; may be called again."""
        if self._slots is not None:
            slots, self._slots = self._slots, None
            slots.put_back()


def room_in(waiting: int, *, released: int, within: float) -> int:
    """Return the seconds after which one who comes behind so many gets a slot, as fast as they were released lately."""
    return max(1, math.ceil(min(within, within * (waiting + 1) / released) if released else within))


class Slots:
    """The slots of ``upstream.max_connections``; a wait for one takes ``timeout`` seconds at most.

    The pool has no limit: a wait for a connection is the proxy's, and must not look like a timeout of the upstream
    (docs/hazards.md, trap 13).
    """

    def __init__(self, limit: int, *, timeout: float) -> None:
        # None is free as long as somebody waits. (asyncio's semaphore takes twelve calls where nobody does.)
        self._free = limit
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timeout = timeout
        self._waiting = self._released = 0
        self._evicting: asyncio.TimerHandle | None = None
        # Those that hold a connection now.
        self.round_trips: set[RoundTrip] = set()

    def take(self) -> Slot | None:
        """Return one, unless it has to be waited for."""
        if not self._free:
            return None
        self._free -= 1
        return Slot(self)

    async def acquire(self) -> Slot:
        """Wait for one of ``upstream.max_connections``, no longer than for a reply.

        Raises:
            Overloaded: none came free in time.
        """
        if (slot := self.take()) is not None:
            return slot
        since = asyncio.get_running_loop().time()
        self._waiting, released = self._waiting + 1, self._released
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if self._evicting is None:
            self._evict_stalled()  # which may release one at once, for this waiter
        try:
            async with asyncio.timeout(self._timeout):
                await waiter
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        except TimeoutError as error:
            self._leave(waiter)
            room = room_in(self._waiting - 1, released=self._released - released, within=self._timeout)
            raise Overloaded(
                f"All of upstream.max_connections were in use for {self._timeout:g} s.",
                hint="Send fewer requests at a time, or raise the limit.",
                headers=(("Retry-After", str(room)),),
            ) from error
        finally:
            self._waiting -= 1
        self._released += 1
        return Slot(self, waited=asyncio.get_running_loop().time() - since)

    def put_back(self) -> None:
        """Take back a slot, for the first of those that wait."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    def _leave(self, waiter: asyncio.Future[None]) -> None:
        """Wait no more; a slot that came in this very moment is for the next."""
        if waiter.done() and not waiter.cancelled():
            self.put_back()

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
