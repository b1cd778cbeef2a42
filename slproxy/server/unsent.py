"""Unsent bytes: how much of what was written a client has not taken, the kernel's share included."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import struct
import termios


def unsent(transport: asyncio.Transport) -> int:
    """Return how many bytes the client has not acknowledged."""
    size = transport.get_write_buffer_size()
    with contextlib.suppress(OSError):
        held = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        size += struct.unpack("i", held)[0]
    return size
