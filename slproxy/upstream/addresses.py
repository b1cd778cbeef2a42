"""Addresses: what a name resolves to, and the first of them that answers."""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import re
import socket
from collections import deque
from collections.abc import Callable, Sequence

from slproxy.config import is_loopback

# Family, type, protocol, canonical name and address, as getaddrinfo(3) gives them.
Address = tuple[int, int, int, str, tuple[object, ...]]

# What a name resolves to is remembered for so long, in seconds: a burst of new connections asks once, and a name that
# moves is followed within the patience of a retry.
LOOKUP_TTL = 10.0
# The next address is tried after so long without an answer of the last, in seconds (RFC 8305 §5).
ATTEMPT_DELAY = 0.25

_ADDRESS = re.compile(r"[0-9.]+|.*:.*")
_UNROUTABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


class Names:
    """Looks names up, one thread a name at a time, however many wait for it.

    In the loop's executor, whatever the loop: uvloop's own lookups run in threads that the end of the process waits
    for, and a resolver may hang for minutes. A lookup outlives whoever gave up on it, so that the next one joins it.
    """

    def __init__(self, look_up: Callable[[str, int], list[Address]] | None = None) -> None:
        """``look_up`` blocks, and raises OSError; by default it is the system's."""
        self._look_up = look_up or _look_up
        self._known: dict[tuple[str, int], tuple[float, list[Address]]] = {}
        self._pending: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a host, in the system's order, families taking turns. Raises OSError."""
        key, loop = (host, port), asyncio.get_running_loop()
        until, known = self._known.get(key, (0.0, []))
        if loop.time() < until:
            return known
        pending = self._pending.get(key)
        if pending is None:
            pending = loop.run_in_executor(None, self._ask, host, port)
            self._pending[key] = pending
            pending.add_done_callback(functools.partial(self._found, key))
        return await asyncio.shield(pending)

    def _ask(self, host: str, port: int) -> list[Address]:
        found = self._look_up(host, port)
        if is_loopback(host):
            # A token goes there in the clear, and who answers for the name may be anyone (RFC 6761 §6.3).
            found = [each for each in found if is_loopback(str(each[4][0]))]
            if not found:
                raise OSError(errno.EADDRNOTAVAIL, f"{host} has the address of another machine")
        return found

    def forget(self, host: str, port: int) -> None:
        """Ask again next time: none of its addresses answered."""
        self._known.pop((host, port), None)

    def _found(self, key: tuple[str, int], pending: asyncio.Future[list[Address]]) -> None:
        del self._pending[key]
        # Whoever waits gets the error; that it was retrieved keeps asyncio from complaining where nobody does.
        if not pending.cancelled() and pending.exception() is None:
            self._known[key] = (asyncio.get_running_loop().time() + LOOKUP_TTL, pending.result())


def _look_up(host: str, port: int) -> list[Address]:
    # No IPv6 addresses where this machine has none. An address is what it is: glibc counts no loopback one, and would
    # know no ::1 on a machine that has nothing else of IPv6, such as a container.
    flags = 0 if _ADDRESS.fullmatch(host) else socket.AI_ADDRCONFIG
    return alternating(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def alternating(addresses: Sequence[Address]) -> list[Address]:
    """Return addresses with their families taking turns, the first one's first (RFC 8305 §4)."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*families.values()))
    return [address for address in turns if address is not None]


async def connect(addresses: Sequence[Address]) -> socket.socket:
    """Return a socket that is connected to the first of the addresses to answer (RFC 8305, Happy Eyeballs).

    Raises OSError, the most telling one: that an address has no route matters only where no other was tried.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0])
    left = deque(addresses)
    attempts: list[asyncio.Task[socket.socket]] = []
    pending: set[asyncio.Task[socket.socket]] = set()
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None and (left or pending):
            if left:
                attempts.append(asyncio.create_task(_connect(left.popleft()), name="slproxy: connect to an address"))
                pending.add(attempts[-1])
            done, pending = await asyncio.wait(
                pending, timeout=ATTEMPT_DELAY if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            winner = next((each for each in attempts if each in done and each.exception() is None), None)
    finally:
        for each in attempts:
            if each is not winner:
                each.cancel()
                each.add_done_callback(_discard)
    if winner is not None:
        return winner.result()
    errors = [error for each in attempts if (error := each.exception()) is not None]
    raise next((each for each in errors if isinstance(each, OSError) and each.errno not in _UNROUTABLE), errors[0])


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what came second."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(address: Address) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        # asyncio does the same, but not for a socket that it is given on every loop.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock
