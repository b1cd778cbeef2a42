"""Black hole: a connection of which the other side hears nothing more, not even a reset."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import sys
from pathlib import Path

import pytest

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the socket options")

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# BPF_RET | BPF_K of 0 bytes: no segment gets to the socket, and so none is acknowledged (socket(7)).
_DROP_ALL = struct.pack("HBBI", 6, 0, 0, 0)


def swallow(writer: asyncio.StreamWriter) -> None:
    """Let the kernel drop whatever arrives on a connection, as a NAT does that has forgotten it."""
    program = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def sockets_to(port: int) -> list[socket.socket]:
    """Return a duplicate of each socket of this process that is connected to ``port``."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            sock = socket.socket(fileno=os.dup(int(path.name)))
        except OSError:  # no socket, or the descriptor by which the folder was read
            continue
        try:
            connected = sock.family == socket.AF_INET and sock.getpeername()[1] == port
        except OSError:
            connected = False
        if connected:
            found.append(sock)
        else:
            sock.close()
    return found
