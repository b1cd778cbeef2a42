"""Terminals: real ones, of a size, and what was drawn on them."""

from __future__ import annotations

import codecs
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
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def shows(self, *texts: str) -> bool:
        """Read all that was drawn, of which the system gives 4 KiB at a time; tell whether these texts are in it."""
        with contextlib.suppress(OSError):
            while data := os.read(self.keys, 1 << 16):
                self.drawn += self._decoder.decode(data)
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
