"""The terminal: whether there is one, and what a person types."""

from __future__ import annotations

import os

STDIN = 0


def has_terminal() -> bool:
    """Tell whether the process has a terminal, be its streams where they may."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def read_line() -> str:
    """Read a line from standard input, past Python's buffer: its lock would be held when Ctrl-C ends the program."""
    line = b""
    while not line.endswith(b"\n") and (character := os.read(STDIN, 1)):
        line += character
    return line.decode("utf-8", "replace")
