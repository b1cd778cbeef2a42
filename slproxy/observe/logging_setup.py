"""Logging setup: the form and level of what is logged, and the access log beside it."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from slproxy.observe.access_log import AccessLog
from slproxy.observe.background_writer import BackgroundStream, BackgroundWriter
from slproxy.observe.lines import RED, YELLOW, json_line, painted, pretty_line, wants_colour
from slproxy.observe.observer import Listener
from slproxy.untrusted import printable

# How long the end of the program waits for the log to be written, in seconds: its reader may have stalled.
FLUSH_TIMEOUT = 0.5


class Formatter(logging.Formatter):
    """The form of a line: JSON, or plain text with the level where it is not ``info``."""

    def __init__(self, *, pretty: bool, colour: bool) -> None:
        super().__init__()
        self._pretty, self._colour = pretty, colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, of a record."""
        level = record.levelname.lower()
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        if not self._pretty:
            fields: dict[str, object] = {"logger": record.name, "message": record.getMessage()}
            # What ``extra`` of a call brings: the request that it is about.
            more = {"id": getattr(record, "request_id", ""), "traceback": traceback}
            fields |= {name: value for name, value in more.items() if value}
            return json_line(fields, at=record.created, level=level)
        paint = RED if record.levelno >= logging.ERROR else YELLOW
        shown = "" if record.levelno == logging.INFO else painted(f"{level}: ", paint, colour=self._colour)
        line = pretty_line(shown + printable(record.getMessage(), keep="\n"), at=record.created, colour=self._colour)
        return f"{line}\n{traceback}" if traceback else line


def start_logging(*, level: str, form: str, background: bool) -> list[Listener]:
    """Send the program's log to standard error, in the form that ``log.format`` asks for.

    In the ``background``, whatever the process prints from now on keeps nobody waiting. Returns who is to listen to
    requests: the access log, or nobody where the process serves none.
    """
    # Nothing here shows them, and each costs time on every line (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    is_terminal = sys.stderr.isatty()
    colour = wants_colour(os.environ, is_terminal=is_terminal)
    pretty = form == "pretty" or (form == "auto" and is_terminal)
    formatter = Formatter(pretty=pretty, colour=colour)
    if background:
        _print_in_background(functools.partial(_note, formatter))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("slproxy").setLevel(level.upper())
    lowest = logging.getLogger("slproxy").level
    return [AccessLog(sys.stderr, pretty=pretty, colour=colour, lowest=lowest)] if background else []


def _note(formatter: Formatter, dropped: int) -> str:
    """Return the line that says how many were dropped."""
    record = logging.LogRecord(
        name=__name__,
        level=logging.WARNING,
        pathname=__file__,
        lineno=0,
        msg="%d %s dropped: whoever reads the log was too slow, or it could not be written",
        args=(dropped, "log line was" if dropped == 1 else "log lines were"),
        exc_info=None,
    )
    return formatter.format(record) + "\n"


def _print_in_background(note: Callable[[int], str]) -> None:
    """Let a thread write what goes to the standard streams, until the process ends."""
    # Where both are the same file, as after 2>&1, what is written keeps its order.
    writers: dict[tuple[int, int], BackgroundWriter] = {}
    before: dict[str, TextIO] = {}
    for name in ("stdout", "stderr"):
        stream: TextIO = getattr(sys, name)
        try:
            file = os.fstat(stream.fileno())
        except (OSError, ValueError):  # a stream that is no file
            continue
        key = (file.st_dev, file.st_ino)
        if key not in writers:
            writers[key] = BackgroundWriter(stream.fileno(), encoding=stream.encoding, note=note)
        before[name] = stream
        setattr(sys, name, BackgroundStream(writers[key], stream))
    atexit.register(_end, tuple(writers.values()), before)


def _end(writers: Sequence[BackgroundWriter], before: Mapping[str, TextIO]) -> None:
    """Write what is left; where that can be done, what the interpreter may still say is written as usual."""
    deadline = time.monotonic() + FLUSH_TIMEOUT
    ended = [writer.close(max(0.0, deadline - time.monotonic())) for writer in writers]
    if all(ended):
        for name, stream in before.items():
            setattr(sys, name, stream)
