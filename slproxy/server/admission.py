"""Admission: which connections are kept, and which give way when there are too many.

1. An idle connection is kept for longer than any client keeps its own, or a client would send into one that is closing.
2. Whoever asks goes before whoever waits: past the limit, a connection that has been idle for a while is closed for a
   new one, the longest idle first; where none has been yet, a request waits for it.
3. Past the limit, connections are held in small number until they have been told so. Descriptors do not run out.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import replace

from slproxy.server.connection import EVICT_AFTER, ClientConnection
from slproxy.server.open_files import Room

log = logging.getLogger("slproxy.server")

# How long an idle connection is kept, in seconds. Go's client keeps its own for 90 s, browsers for 300, Google's load
# balancers for 600, Java's for 1,200, and Envoy, the longest, for an hour.
KEEPALIVE = 3700.0
# How often those that have been idle for so long are looked for, in seconds.
SWEEP_EVERY = 30.0
# A search for an idle connection that found none holds for so long, in seconds: it is too slow for each of a flood.
NO_ROOM_FOR = 0.1
# How often it is logged that connections had to give way, in seconds.
TELL_EVERY = 60.0


# How long fewer connections are admitted once the process could not open another file, in seconds.
RECOVER_AFTER = 30.0


class Admission:
    """The connections that there are; ``room`` limits them."""

    def __init__(self, room: Room) -> None:
        self._given = self._room = room
        self._recovering: asyncio.TimerHandle | None = None
        self.keepalive = KEEPALIVE
        self._loop_time = asyncio.get_running_loop().time
        self._admitted: set[ClientConnection] = set()
        # Past the limit, or closed for another and not gone yet; the oldest first.
        self._leaving: dict[ClientConnection, None] = {}
        self._no_room_until = -math.inf
        # What had to give way since it was logged; while some do, it is logged every so often.
        self._evicted = self._turned_away = 0
        self._telling: asyncio.TimerHandle | None = None
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep_on)

    @property
    def room(self) -> Room:
        """How many there may be now."""
        return self._room

    def resize(self, room: Room) -> None:
        """Set how many there may be."""
        self._given = self._room = room

    def run_out(self) -> None:
        """Make do with less room for a while: the process could not open a file for another connection."""
        total = len(self._admitted) + len(self._leaving)
        clients = max(min(self._room.clients, total * 2 // 3), 1)
        self._room = replace(self._room, clients=clients, past_limit=max(min(self._room.past_limit, clients // 4), 1))
        while len(self._admitted) > clients and self.make_room() == 0:
            pass
        if self._recovering is not None:
            self._recovering.cancel()
        self._recovering = asyncio.get_running_loop().call_later(RECOVER_AFTER, self._recover)

    def _recover(self) -> None:
        self._room = self._given

    @property
    def connections(self) -> set[ClientConnection]:
        """All of them."""
        return self._admitted | self._leaving.keys()

    def register(self, connection: ClientConnection) -> bool:
        """Count a new connection; return whether there is room for it, if need be after closing an idle one."""
        if len(self._admitted) < self._room.clients or self.make_room() == 0:
            self._admitted.add(connection)
            return True
        self._leave(connection)
        return False

    def unregister(self, connection: ClientConnection) -> None:
        """Stop counting a connection."""
        self._admitted.discard(connection)
        self._leaving.pop(connection, None)

    async def admit(self, connection: ClientConnection) -> bool:
        """Let in a connection past the limit that has sent a request, once an idle one may be closed for it."""
        deadline = self._loop_time() + EVICT_AFTER
        while len(self._admitted) >= self._room.clients and (wait := self.make_room()) > 0:
            if self._loop_time() + wait > deadline:
                return False
            await asyncio.sleep(wait)
        self._leaving.pop(connection, None)
        self._admitted.add(connection)
        return True

    def make_room(self) -> float:
        """Close the connection that has been idle for longest; return in how many seconds one may be, 0 if it was."""
        now = self._loop_time()
        if now < self._no_room_until:
            return self._no_room_until - now
        longest = max(self._admitted, key=lambda connection: connection.evictable_for(now), default=None)
        wait = math.inf if longest is None else -longest.evictable_for(now)
        if longest is None or wait > 0:
            self._no_room_until = now + NO_ROOM_FOR
            return max(wait, NO_ROOM_FOR)
        self._admitted.discard(longest)
        self._evicted += 1
        self._tell()
        longest.linger()
        self._leave(longest)
        return 0

    def turned_away(self) -> None:
        """Count a connection that was told that it is one too many before it had asked for anything."""
        self._turned_away += 1
        self._tell()

    def sweep(self) -> None:
        """Close the connections that have been idle for too long."""
        now = self._loop_time()
        for connection in list(self._admitted):
            if connection.evictable_for(now) >= self.keepalive:
                connection.linger()

    def close(self) -> None:
        """Watch them no more."""
        self._sweep.cancel()
        for timer in (self._recovering, self._telling):
            if timer is not None:
                timer.cancel()

    def _sweep_on(self) -> None:
        self.sweep()
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep_on)

    def _leave(self, connection: ClientConnection) -> None:
        """Hold a connection past the limit for a while, in the place of the oldest such one if need be."""
        self._leaving[connection] = None
        while len(self._leaving) > self._room.past_limit:
            oldest = next((each for each in self._leaving if not each.is_busy), connection)
            if self._leaving.pop(oldest, self) is self:
                return  # all of them are asking
            oldest.turn_away()

    def _tell(self) -> None:
        if self._telling is None:
            log.warning(
                "more connections than %s (%d): idle ones are closed for those that ask, others are turned away",
                self._room.limit,
                self._room.clients,
            )
            self._telling = asyncio.get_running_loop().call_later(TELL_EVERY, self._tell_how_many)

    def _tell_how_many(self) -> None:
        self._telling = None
        if self._evicted or self._turned_away:
            log.warning("%d connections closed for others, %d turned away", self._evicted, self._turned_away)
            self._evicted = self._turned_away = 0
            self._telling = asyncio.get_running_loop().call_later(TELL_EVERY, self._tell_how_many)
