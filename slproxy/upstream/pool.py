"""Connection pool: which connection a request goes on."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Callable

from slproxy.errors import UpstreamFault
from slproxy.upstream.connection import READ_SIZE, Connection
from slproxy.upstream.dial import Dialer, Origin
from slproxy.upstream.reuse import MAX_SILENCE, Era, last_heard, may_carry, watch_peer

# An idle connection is given up before common servers give theirs up (nginx: 75 s), which spares most stale ones.
POOL_KEEPALIVE = 50.0
# The last one is to be replaced once it has lain idle for so long, in seconds.
RENEW_AFTER = 40.0
# A request waits for so long for a spare that is being made, and then makes a connection of its own, in seconds: twice
# what another address is waited for (addresses.ATTEMPT_DELAY).
JOIN_TIMEOUT = 0.5


class Pool:
    """The connections that lie idle, by origin. It has no limit: ``Slots`` has."""

    def __init__(
        self, dialer: Dialer, suspended: Callable[[], float], on_last_lost: Callable[[Origin, float | None], None]
    ) -> None:
        """``on_last_lost`` is told that no connection to an origin is open any more.

        It also gets for how many seconds the last one had lain idle when its peer closed it, ``None`` if it did not.
        """
        self._dialer = dialer
        self._timers = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(READ_SIZE))
        # The one that was used last is at the end, and used next: the others grow old, and are closed.
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        # Those that lie idle and those in use.
        self._open: defaultdict[Origin, set[Connection]] = defaultdict(set)
        # How many requests make one just now.
        self._dialing: defaultdict[Origin, int] = defaultdict(int)
        self._on_last_lost = on_last_lost
        # Where a spare is being made to, and the request that waits for it.
        self._preparing: Origin | None = None
        self._joined: asyncio.Future[UpstreamFault | None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.era = Era(suspended)

    @property
    def connections(self) -> int:
        """How many there are, those in use as well."""
        return sum(map(len, self._open.values()))

    def ready(self, origin: Origin, *, repeatable: bool) -> Connection | None:
        """Return the idle connection that was used last, if ``take`` would without a wait."""
        if idle := self._idle[origin]:
            connection = idle[-1]
            if not connection.is_readable and self._is_good(connection, repeatable=repeatable):
                return idle.pop()
        return None

    async def take(self, origin: Origin, *, repeatable: bool) -> Connection:
        """Return a connection to ``origin``: an idle one whose peer is there as far as can be known, or a new one.

        Raises:
            UpstreamFault: there is none.
        """
        idle = self._idle[origin]
        for may_join in (True, False):
            while idle:
                connection = idle.pop()
                if connection.is_readable and not await connection.outlives_reading():
                    continue
                if self._is_good(connection, repeatable=repeatable):
                    return connection
                connection.transport.abort()
            if may_join and origin == self._preparing and self._joined is None:
                await self._join()
        self._dialing[origin] += 1
        try:
            connection = await self._dial(origin)
        finally:
            self._dialing[origin] -= 1
        self._add(origin, connection)
        return connection

    async def _join(self) -> None:
        """Wait for the spare that is being made. Raises UpstreamFault: what would come of another attempt as well."""
        joined = self._joined = self._timers.create_future()
        try:
            await asyncio.wait({joined}, timeout=JOIN_TIMEOUT)
        finally:
            self._joined = None
        if joined.done() and (fault := joined.result()) is not None:
            raise fault

    async def _dial(self, origin: Origin) -> Connection:
        # Looked at before a connection is made: one that was made before a sleep is older than it.
        era = self.era.current()
        make = functools.partial(Connection, self._buffer, functools.partial(self._lost, origin))
        connection = await self._dialer.dial(origin, make)
        connection.made_in = era
        watch_peer(connection.socket)
        return connection

    def _add(self, origin: Origin, connection: Connection) -> None:
        if not connection.is_closing:  # else nobody might tell that it is lost
            self._open[origin].add(connection)

    def _lost(self, origin: Origin, connection: Connection) -> None:
        """Note that a connection is gone."""
        connections, idle = self._open[origin], self._idle[origin]
        if connection not in connections:
            return
        connections.remove(connection)
        was_idle = connection in idle
        if was_idle:
            idle.remove(connection)
        if not connections:
            self._on_last_lost(origin, self._timers.time() - connection.idle_since if was_idle else None)

    def _is_good(self, connection: Connection, *, repeatable: bool) -> bool:
        idle = self._timers.time() - connection.idle_since
        heard = last_heard(connection.socket) if idle >= MAX_SILENCE else 0.0
        era = self.era.current()
        return may_carry(made_in=connection.made_in, era=era, repeatable=repeatable, idle=idle, heard=heard)

    def is_open(self, origin: Origin) -> bool:
        """Tell whether there is a connection."""
        return bool(self._open[origin])

    def is_warm(self, origin: Origin) -> bool:
        """Tell whether a connection lies idle and needs no replacement yet, or a request has one, or makes one."""
        idle = self._idle[origin]
        if self._dialing[origin] or len(self._open[origin]) > len(idle):
            return True
        is_young = bool(idle) and self._timers.time() - idle[-1].idle_since < RENEW_AFTER
        return is_young and self._is_good(idle[-1], repeatable=True)

    async def prepare(self, origin: Origin) -> bool:
        """Make a spare: a connection that lies idle, in the place of those that do. Return whether it stands.

        The first request that comes meanwhile waits for it, and gets it.

        Raises:
            UpstreamFault: there is none.
        """
        self._preparing, lasting = origin, None
        try:
            connection = await self._dial(origin)
        except UpstreamFault as fault:
            lasting = fault if fault.is_lasting else None
            raise
        else:
            return self._lay(origin, connection)
        finally:
            self._preparing = None
            if self._joined is not None:
                self._joined.set_result(lasting)

    def _lay(self, origin: Origin, connection: Connection) -> bool:
        if connection.is_closing:
            return False
        is_warm = self.is_warm(origin)
        if is_warm and self._joined is None:
            connection.transport.abort()  # a request has made another one meanwhile
            return True
        if not is_warm:
            self._close_idle(origin)
        self._add(origin, connection)
        self.release(origin, connection, keep=True)
        return True

    def release(self, origin: Origin, connection: Connection, *, keep: bool) -> None:
        """Take a connection back, and ``keep`` it for another request or close it."""
        if not keep or self._is_closed or connection.is_closing:
            connection.transport.abort()
            return
        connection.idle_since = self._timers.time()
        self._idle[origin].append(connection)
        if self._sweep is None:
            self._sweep = self._timers.call_later(POOL_KEEPALIVE, self._close_old)

    def _close_old(self) -> None:
        """Close those that were not used for long, and look again when the next one has not been."""
        self._sweep = None
        longest = self._timers.time() - POOL_KEEPALIVE
        for idle in self._idle.values():
            while idle and (idle[0].idle_since <= longest or idle[0].is_closing):
                idle.pop(0).transport.abort()
        if oldest := [idle[0].idle_since for idle in self._idle.values() if idle]:
            self._sweep = self._timers.call_at(min(oldest) + POOL_KEEPALIVE, self._close_old)

    def close(self) -> None:
        """Close them all; those in use are closed when they come back."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for origin in self._idle:
            self._close_idle(origin)

    def _close_idle(self, origin: Origin) -> None:
        for connection in self._idle[origin]:
            connection.transport.abort()
        self._idle[origin].clear()
