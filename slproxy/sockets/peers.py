"""Peers: whether another user of this machine is at the other end of a connection.

Everybody on this machine can connect to a loopback address, and can listen on any of its ports that is free. Linux
knows who owns each socket; elsewhere nobody is known, and ``why_unknown`` says why.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from slproxy.sockets import sock_diag

ROOT = 0
# In the place of a uid, where the other end has been closed: whose it was cannot be told. No user has this one.
GONE = 0xFFFFFFFF
# pid, uid, gid: unix(7), SO_PEERCRED.
_CREDENTIALS = struct.Struct("=iII")
# user_namespaces(7): users that a namespace does not know are shown as the overflow uid.
_UID_MAP, _OVERFLOW_UID = Path("/proc/self/uid_map"), Path("/proc/sys/kernel/overflowuid")
_ALL_UIDS = 2**32 - 1
_AF_UNIX = getattr(socket, "AF_UNIX", None)


class Connection(Protocol):
    """A connected socket, or asyncio's view of one."""

    @property
    def family(self) -> int: ...

    def getsockname(self) -> object: ...

    def getpeername(self) -> object: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class Peers:
    """The users at the other ends of connections, as the kernel tells; this user and root are at home."""

    def __init__(self) -> None:
        self._user = os.geteuid()
        self._kernel: socket.socket | None = None
        # Why the kernel does not say who owns a socket; `None` where it does.
        self.why_unknown: str | None = None
        try:
            self._kernel = sock_diag.opened()
            with socket.create_server(("127.0.0.1", 0)) as listener:
                if sock_diag.owner(self._kernel, _address(listener.getsockname()), None) != self._user:
                    self.why_unknown = "it does not say who owns a socket"
        except OSError as error:
            self.why_unknown = os.strerror(error.errno) if error.errno else str(error)
        if self.why_unknown is None and _is_overflow(self._user):
            self.why_unknown = "in this user namespace it shows other users as this one"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket to the kernel."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def foreign_client(self, connection: Connection) -> int | None:
        """Return the uid of a client on this machine that is neither this user nor root, or ``GONE``.

        ``None`` also where the client may be on another machine, or the kernel does not tell.
        """
        return self.client(connection)[0]

    def client(self, connection: Connection) -> tuple[int | None, bool]:
        """Return ``foreign_client``, and whether ``is_open`` is true: both by one question to the kernel."""
        is_loopback = True
        try:
            if connection.family == _AF_UNIX:
                return self._foreign(_unix_peer(connection)), True
            near, far = _address(connection.getsockname()), _address(connection.getpeername())
            if self.why_unknown is not None or self._kernel is None:
                return None, False
            # Either end: a client may have bound an address of this machine that is no loopback one.
            is_loopback = _is_loopback(near) or _is_loopback(far)
            uid = sock_diag.owner(self._kernel, far, near)
        except OSError:
            return GONE if is_loopback else None, False
        if not is_loopback:
            return None, uid is not None
        return GONE if uid is None else self._foreign(uid), uid is not None

    def foreign_listener(self, connection: Connection) -> int | None:
        """Return the uid of who listens where a connection leads, if it is neither this user nor root.

        To be asked once connected, and before anything secret is sent. ``None`` also where the listener may be on
        another machine, or the kernel does not tell.
        """
        with contextlib.suppress(OSError):
            if connection.family == _AF_UNIX:
                return self._foreign(_unix_peer(connection))
            near, far = _address(connection.getsockname()), _address(connection.getpeername())
            if self.why_unknown is not None or self._kernel is None or not _is_loopback(far):
                return None
            # In this order: a listener that is closed by now has accepted the connection before, or has lost it.
            owners = (sock_diag.owner(self._kernel, far, None), sock_diag.owner(self._kernel, far, near))
            return next((uid for uid in owners if uid is not None and self._foreign(uid) is not None), None)
        return None

    def is_open(self, connection: Connection) -> bool | None:
        """Return whether the kernel knows a process of this machine that has the other end of a connection open.

        It does not know one on another machine, nor behind a translation of addresses. Of a Unix socket poll(2) tells
        more: this says yes. ``None`` where the kernel does not tell.
        """
        if connection.family == _AF_UNIX:
            return True
        with contextlib.suppress(OSError):
            if self.why_unknown is None and self._kernel is not None:
                near, far = _address(connection.getsockname()), _address(connection.getpeername())
                return sock_diag.owner(self._kernel, far, near) is not None
        return None

    def _foreign(self, uid: int) -> int | None:
        return None if uid in (self._user, ROOT) else uid


def _is_overflow(uid: int) -> bool:
    """Return whether users that this namespace does not know would be shown as ``uid``."""
    try:
        known = sum(int(line.split()[2]) for line in _UID_MAP.read_text("ascii").splitlines())
        return known < _ALL_UIDS and int(_OVERFLOW_UID.read_text("ascii")) == uid
    except (OSError, ValueError):
        return False


def _unix_peer(connection: Connection) -> int:
    if not hasattr(socket, "SO_PEERCRED"):
        return ROOT  # not told: the mode of the socket's file is what keeps others out
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def _address(name: object) -> sock_diag.Address:
    if not isinstance(name, tuple) or len(name) < 2:
        raise OSError("no address")
    return str(name[0]).partition("%")[0], int(name[1])


def _is_loopback(address: sock_diag.Address) -> bool:
    # As the kernel spells them; ipaddress would take as long as the rest of the question.
    return address[0] == "::1" or address[0].startswith(("127.", "::ffff:127."))
