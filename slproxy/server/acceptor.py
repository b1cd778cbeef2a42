"""Acceptor: takes new connections from a listening socket, as long as there are file descriptors for them.

asyncio's own way tries a thousand times at once to accept what it has no descriptor for, and logs a traceback each time
(python/cpython#151615).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from slproxy.server.reading import READ_SIZE, BufferedReads

log = logging.getLogger("slproxy.server")

# Connections accepted in one go: others have their turn in between, and may close some.
AT_ONCE = 8
# How long nothing is accepted when there is no descriptor left, in seconds. New connections wait in the kernel.
PAUSE = 0.1
# How often that is logged, in seconds.
TELL_EVERY = 60.0


class Acceptor:
    """The connections that come in at one listening socket, each served by a protocol of ``make``'s."""

    def __init__(
        self, listener: socket.socket, make: Callable[[], asyncio.Protocol], run_out: Callable[[], object]
    ) -> None:
        """``run_out`` is called when there is no descriptor for a connection: it may close others."""
        self._listener = listener
        self._make, self._run_out = make, run_out
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._timers = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._told_at = -TELL_EVERY
        self._timers.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more connections; those that were accepted stay."""
        if self._listener.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._timers.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(AT_ONCE - len(self._connecting)):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait(error)
                return
            task = self._timers.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._timers.connect_accepted_socket(self._read_by_buffer, connection)
        except OSError as error:
            connection.close()
            log.debug("a connection was lost at once: %s", error)

    def _read_by_buffer(self) -> BufferedReads:
        return BufferedReads(self._make(), self._buffer)

    def _wait(self, error: OSError) -> None:
        """Accept nothing for a while: the listening socket would be reported as ready again and again."""
        self._timers.remove_reader(self._listener)
        self._pause = self._timers.call_later(PAUSE, self._go_on)
        self._run_out()
        if self._timers.time() - self._told_at >= TELL_EVERY:
            self._told_at = self._timers.time()
            log.warning("cannot accept connections: %s; they wait", error.strerror or error)

    def _go_on(self) -> None:
        self._pause = None
        self._timers.add_reader(self._listener, self._accept)
