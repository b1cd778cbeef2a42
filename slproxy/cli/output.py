"""Output: exit codes, a command's result, and messages to a person apart from it.

All that a command prints goes through here: what came from outside is shown, never obeyed by the terminal, and output
that is lost is an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from slproxy.errors import OutputError, SlproxyError
from slproxy.untrusted import printable

DONE, FAILED = 0, 1

# ECMA-48 and xterm: another screen without cursor and without line wrap, and back; and what erases.
_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def open_standard_streams() -> None:
    """Open what was closed at the start (``slproxy login <&-``): the next file would take its place.

    What is written to standard output then is an error, as it would be on one that is closed; of standard error it is
    lost.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115


def print_result(text: str, *, paint: Callable[[str], str] = str) -> None:
    """Print a command's result, or a part of it; ``paint`` may add colours to what is shown.

    Raises:
        OutputError: it could not be written; nobody may take the command for done.
        BrokenPipeError: nobody reads it any more (``slproxy config | head``).
    """
    try:
        print(paint(_shown(text, sys.stdout)), flush=True)
    except BrokenPipeError:
        give_up(sys.stdout)
        raise
    except OSError as error:
        give_up(sys.stdout)
        raise _lost(error) from error


@contextlib.contextmanager
def full_screen() -> Iterator[Callable[[Sequence[str]], None]]:
    """Yield what draws lines on the terminal's other screen; afterwards the terminal is as it was.

    Raises OutputError where the terminal is gone.
    """
    _write(_OTHER_SCREEN)
    try:
        yield lambda lines: _write(_frame([_shown(line, sys.stdout) for line in lines]))
    finally:
        _write(_FIRST_SCREEN)


def _frame(lines: Sequence[str]) -> str:
    # Each is erased before it is written: after a full line the cursor is still on its last character.
    return _HOME + "\r\n".join([*(_REST_OF_LINE + line for line in lines[:-1]), _REST_OF_SCREEN + lines[-1]])


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        give_up(sys.stdout)
        raise _lost(error) from error


def print_note(text: str) -> None:
    """Tell a person something that is not the command's result."""
    try:
        print(_shown(text, sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)  # and there is no other place to say so


def print_error(error: SlproxyError) -> None:
    """Tell a person what went wrong, and what to do."""
    print_note(f"slproxy: {error.detail}" + (f"\n  {error.hint}" if error.hint else ""))


def flushed(code: int) -> int:
    """Write what is left in the buffers, such as a help; return the exit code, which is no 0 if that is lost."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        give_up(sys.stdout)
        code = code or FAILED
    except OSError as error:
        give_up(sys.stdout)
        print_error(_lost(error))
        code = code or FAILED
    try:
        sys.stderr.flush()
    except OSError:
        give_up(sys.stderr)
    return code


def give_up(stream: TextIO) -> None:
    """Drop what a stream still holds: Python would try once more as it ends, and complain, with exit code 120."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _shown(text: str, stream: TextIO) -> str:
    """Return text as this stream can show it: what its encoding lacks is escaped, as all that a terminal would obey."""
    encoding = stream.encoding or "utf-8"
    return printable(text, keep="\n").encode(encoding, "backslashreplace").decode(encoding)


def _lost(error: OSError) -> OutputError:
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return OutputError(
        f"Cannot write to standard output: {reason}.",
        hint="The result was lost: check the disk, or where the output goes.",
    )
