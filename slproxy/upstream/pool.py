"""Connection pool: which connection a request goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from slproxy.upstream.connection import READ_SIZE, Connection
from slproxy.upstream.dial import Dialer, Origin
from slproxy.upstream.reuse import MAX_SILENCE, Era, last_heard, may_carry, watch_peer

# An idle connection is given up before common servers give theirs up (nginx: 75 s), which spares most stale ones.
POOL_KEEPALIVE = 50.0


class Pool:
    """The connections that lie idle, by origin. It has no limit: ``Slots`` has."""

    def __init__(self, dialer: Dialer, suspended: Callable[[], float]) -> None:
        self._dialer = dialer
        self._timers = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(READ_SIZE))
        # The one that was used last is at the end, and used next: the others grow old, and are closed.
        self._idle: dict[Origin, list[Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.era = Era(suspended)

    async def take(self, origin: Origin, *, repeatable: bool) -> Connection:
        """Return a connection to ``origin``: an idle one whose peer is there as far as can be known, or a new one.

        Raises:
            UpstreamFault: there is none.
        """
        # Looked at before a connection is made: one that was made before a sleep is older than it.
        era = self.era.current()
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if self._is_good(connection, era, repeatable=repeatable):
                return connection
            connection.transport.abort()
        connection = await self._dialer.dial(origin, self._make)
        connection.made_in = era
        watch_peer(connection.socket)
        return connection

    def _make(self) -> Connection:
        return Connection(self._buffer)

    def _is_good(self, connection: Connection, era: int, *, repeatable: bool) -> bool:
        if connection.is_readable:
            return False
        idle = self._timers.time() - connection.idle_since
        heard = last_heard(connection.socket) if idle >= MAX_SILENCE else 0.0
        return may_carry(made_in=connection.made_in, era=era, repeatable=repeatable, idle=idle, heard=heard)

    def release(self, origin: Origin, connection: Connection, *, keep: bool) -> None:
        """Take a connection back, and ``keep`` it for another request or close it."""
        if not keep or self._is_closed or connection.is_closing:
            connection.transport.abort()
            return
        connection.idle_since = self._timers.time()
        self._idle.setdefault(origin, []).append(connection)
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
        for idle in self._idle.values():
            for connection in idle:
                connection.transport.abort()
        self._idle.clear()
