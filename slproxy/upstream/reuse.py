"""Reuse: whether a connection that lay in the pool may carry another request.

A machine that slept, a NAT that forgot, or a network that changed leaves connections on which nothing comes back, not
even a reset. What is written to one is lost, and nobody knows whether it was: so a POST is never repeated.

1. No connection is used again that is older than the machine's last sleep, or than the last timeout of any of them.
2. The kernel asks an idle peer every few seconds whether it is there, and ends the connection when it is not.
3. A peer that did not answer gets no request; where the kernel does not tell, none that may not be repeated.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable

# After so long without a sign of the peer it is asked for one, and again, in seconds. A connection lies idle for less
# than a minute (pool.POOL_KEEPALIVE), and only the spare is made anew: 450 segments in 900 s, of some 50 bytes.
KEEPALIVE_IDLE = 2
KEEPALIVE_INTERVAL = 1
# A peer that was asked has had time to answer, in seconds.
MAX_SILENCE = KEEPALIVE_IDLE + KEEPALIVE_INTERVAL
# What was sent is acknowledged by then, whatever the peer does with it, or the connection is dead, in seconds.
UNACKNOWLEDGED_TIMEOUT = 10.0
# The clocks of a machine that did not sleep stay together; a wall clock, where there is no better one, nearly.
SHORTEST_SLEEP = 1.0

# A clock that runs on in sleep and one that does not, on Linux and on macOS (clock_gettime(2) and (3) there).
_CLOCKS = next(
    (
        (getattr(time, runs_on), getattr(time, stands))
        for runs_on, stands in (("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"), ("CLOCK_MONOTONIC", "CLOCK_UPTIME_RAW"))
        if hasattr(time, runs_on) and hasattr(time, stands)
    ),
    None,
)
# In struct tcp_info (linux/tcp.h): how long ago the last data and the last acknowledgement came, in ms.
_LAST_HEARD = struct.Struct("52xII")


def suspended() -> float:
    """Return by how many seconds the clock that runs on in sleep is ahead of the one that does not."""
    if _CLOCKS is None:
        return time.time() - time.monotonic()
    runs_on, stands = _CLOCKS
    return time.clock_gettime(runs_on) - time.clock_gettime(stands)


class Era:
    """Counts what no connection outlives: a sleep of the machine, and a timeout of another connection."""

    def __init__(self, suspended: Callable[[], float]) -> None:
        self._suspended = suspended
        self._slept = suspended()
        self._number = 0

    def current(self) -> int:
        """Return the number of the era, a new one after a sleep."""
        before, self._slept = self._slept, self._suspended()
        if abs(self._slept - before) >= SHORTEST_SLEEP:
            self._number += 1
        return self._number

    def end(self) -> None:
        """Begin a new era: no connection of this one is used again."""
        self._number += 1


def may_carry(*, made_in: int, era: int, repeatable: bool, idle: float, heard: float | None) -> bool:
    """Tell whether a pooled connection may carry a request.

    It was ``idle`` for so many seconds, and its peer was ``heard`` of so many seconds ago, where the kernel tells.
    """
    if made_in != era:
        return False
    if heard is not None:
        return idle < MAX_SILENCE or heard < MAX_SILENCE
    return repeatable or idle < MAX_SILENCE


def watch_peer(sock: socket.socket) -> None:
    """Let the kernel find out that the peer has gone, as far as this system can."""
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)  # the second is macOS's name
    interval = getattr(socket, "TCP_KEEPINTVL", None)
    with contextlib.suppress(OSError):  # macOS sets nothing once the peer has gone, which shows by itself
        set_unacknowledged_timeout(sock, UNACKNOWLEDGED_TIMEOUT)
        if idle is not None and interval is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, idle, KEEPALIVE_IDLE)
            sock.setsockopt(socket.IPPROTO_TCP, interval, KEEPALIVE_INTERVAL)


def set_unacknowledged_timeout(sock: socket.socket, seconds: float) -> None:
    """Set after how long unacknowledged bytes end the connection, 0 for the system's own patience (tcp(7))."""
    if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, int(seconds * 1000))


def last_heard(sock: socket.socket) -> float | None:
    """Return how many seconds ago the kernel last heard of the peer, where it tells."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        data, acknowledgement = _LAST_HEARD.unpack(sock.getsockopt(socket.IPPROTO_TCP, option, _LAST_HEARD.size))
    except (OSError, struct.error):
        return None
    return float(min(data, acknowledgement)) / 1000
