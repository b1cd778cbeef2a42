"""The terminal: whether there is one, and what a person types or pastes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import termios
import threading
from collections.abc import Iterator

STDIN = 0
# What comes this soon after a line was pasted with it, in seconds.
PASTE_GAP = 0.2
_CHUNK = 64 * 1024


def has_terminal() -> bool:
    """Tell whether the process has a terminal, be its streams where they may."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def is_in_background() -> bool:
    """Tell whether standard input is a terminal that another job has: to read it would stop this one."""
    try:
        return os.tcgetpgrp(STDIN) != os.getpgrp()
    except OSError:  # no terminal, or not the one that controls this process
        return False


class Keyboard:
    """Standard input, line by line, read by one thread past Python's buffer: its lock would be held at a Ctrl-C.

    While the block lasts, a terminal hands over each character as it is typed: by lines, the kernel cuts one at 4,095
    bytes (termios(3), canonical mode), and says nothing.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str] = asyncio.Queue()
        self._reading = self._ended = False
        self._before: list[object] | None = None

    def __enter__(self) -> Keyboard:
        if sys.stdin is not None and os.isatty(STDIN) and not is_in_background():
            with contextlib.suppress(termios.error):
                mode = termios.tcgetattr(STDIN)
                self._before = [*mode[:6], [*mode[6]]]
                mode[3] &= ~termios.ICANON
                mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
                termios.tcsetattr(STDIN, termios.TCSANOW, mode)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None and not is_in_background():
            with contextlib.suppress(termios.error):
                termios.tcsetattr(STDIN, termios.TCSANOW, self._before)  # type: ignore[arg-type]

    @property
    def is_terminal(self) -> bool:
        """Whether a person types here."""
        return os.isatty(STDIN)

    async def line(self) -> str:
        """Wait for a line; return it with its end, or nothing where there will be none."""
        if self._ended or is_in_background():
            return ""
        if not self._reading:
            self._reading = True
            threading.Thread(target=self._read, name="slproxy: keyboard", daemon=True).start()
        line = await self._lines.get()
        self._ended = not line
        return line

    async def paste(self) -> str:
        """Wait for a line and what was pasted with it; return nothing where there will be none."""
        lines = [await self.line()]
        while lines[-1]:
            try:
                async with asyncio.timeout(PASTE_GAP):
                    lines.append(await self.line())
            except TimeoutError:
                break
        return "".join(lines)

    def _read(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            for line in _lines(self._before):
                self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
            self._loop.call_soon_threadsafe(self._lines.put_nowait, "")


def _lines(mode: list[object] | None) -> Iterator[str]:
    """Read lines; of a terminal with ``mode``, do what the kernel does when it reads by lines."""
    keys: list[bytes] = mode[6] if mode is not None else []  # type: ignore[assignment]
    end, kill = (keys[termios.VEOF], keys[termios.VKILL]) if keys else (b"", b"")
    erase = (keys[termios.VERASE], b"\x08", b"\x7f") if keys else ()
    line = bytearray()
    while chunk := _chunk():
        for number in chunk:
            character = bytes([number])
            if character == end:
                if not line:
                    return
            elif character in erase:
                _show(b"\b\b  \b\b" + (b"\b \b" if line else b""))  # the kernel has shown ^? for the key
                del line[-1:]
            elif character == kill:
                _show(b"\n")
                line.clear()
            else:
                line += character
            if character == b"\n":
                yield line.decode("utf-8", "replace")
                line.clear()
    if line:
        yield line.decode("utf-8", "replace")


def _chunk() -> bytes:
    while True:
        try:
            return os.read(STDIN, _CHUNK)
        except BlockingIOError:  # somebody who shares the terminal or pipe has made it non-blocking
            select.select([STDIN], [], [])
        except OSError:  # the terminal has gone
            return b""


def _show(text: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(STDIN, text)
