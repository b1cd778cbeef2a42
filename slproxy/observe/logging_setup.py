"""Logging setup: the form and level of what is logged, and the access log beside it."""

from __future__ import annotations

import logging
import sys

from slproxy.observe.access_log import AccessLog
from slproxy.observe.lines import RED, YELLOW, json_line, painted, pretty_line
from slproxy.observe.observer import Listener


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
            return json_line(fields | ({"traceback": traceback} if traceback else {}), at=record.created, level=level)
        paint = RED if record.levelno >= logging.ERROR else YELLOW
        shown = "" if record.levelno == logging.INFO else painted(f"{level}: ", paint, colour=self._colour)
        line = pretty_line(shown + record.getMessage(), at=record.created, colour=self._colour)
        return f"{line}\n{traceback}" if traceback else line


def start_logging(*, level: str, form: str) -> list[Listener]:
    """Send the program's log to standard error, in the form that ``log.format`` asks for.

    Returns who is to listen to requests: the access log, or nobody where ``level`` is above it.
    """
    # Nothing here shows them, and each costs time on every line (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    colour = sys.stderr.isatty()
    pretty = form == "pretty" or (form == "auto" and colour)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(pretty=pretty, colour=colour))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("slproxy").setLevel(level.upper())
    quiet = logging.getLogger("slproxy").level > logging.INFO
    return [] if quiet else [AccessLog(sys.stderr, pretty=pretty, colour=colour)]
