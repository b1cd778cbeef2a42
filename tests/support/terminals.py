"""Terminals: real ones, of a size, and what was drawn on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager


class Terminal:
    """A real terminal, and what was drawn on it."""

    def __init__(self, keys: int, file: int) -> None:
        self.keys, self.file = keys, file
        self.drawn = ""

    def shows(self, *texts: str) -> bool:
        with contextlib.suppress(BlockingIOError, OSError):
            self.drawn += os.read(self.keys, 1 << 16).decode()
        return all(text in self.drawn for text in texts)


@contextmanager
def terminal(*, lines: int = 30, columns: int = 120) -> Iterator[Terminal]:
    keys, file = pty.openpty()
    try:
        os.set_blocking(keys, False)
        fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        yield Terminal(keys, file)
    finally:
        os.close(keys)
        os.close(file)
