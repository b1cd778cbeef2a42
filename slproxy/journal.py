"""What is told of each request: one line, with nothing in it that is secret.

The query is left out: it holds names and addresses of people. What is recorded is what is shown; there is no masking
later on.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass

# The fields of an exchange in a log record, by which the formatters know it.
EXCHANGE = "exchange"

_GREY, _RED, _YELLOW, _GREEN, _RESET = "\x1b[90m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


@dataclass(kw_only=True, eq=False)
class Exchange:
    """A request and its response, as they go by. Times are in seconds; ``started`` is monotonic."""

    method: str
    path: str
    started: float
    status: int = 0
    attempts: int = 0
    upstream: float = 0.0
    wait: float = 0.0
    # The type of the proxy's own answer, such as "login-required"; empty when the reply is SalesLoft's.
    error: str = ""
    # How the answer ended, when it did not end well: "client left", "upstream broke off".
    ended: str = ""

    def fields(self, now: float) -> dict[str, object]:
        """Return what the JSON line holds; ``now`` is monotonic."""
        fields: dict[str, object] = {
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "attempts": self.attempts,
            "ms": round((now - self.started) * 1000, 1),
        }
        if self.error:
            fields["error"] = self.error
        if self.ended:
            fields["ended"] = self.ended
        return fields


def path_of(target: str) -> str:
    """Return what may be logged of a request target: its path, with nothing that a terminal would obey."""
    path = target.partition("?")[0]
    return "".join(character if character.isprintable() else "?" for character in path)[:500]


class JsonLines(logging.Formatter):
    """One JSON object a line, for collectors."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        exchange = getattr(record, EXCHANGE, None)
        if isinstance(exchange, dict):
            document |= exchange
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


class Pretty(logging.Formatter):
    """One line a person reads, coloured on a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        exchange = getattr(record, EXCHANGE, None)
        if isinstance(exchange, dict):
            text = self._exchange(exchange)
        else:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            text = self._painted(level, _RED if record.levelno >= logging.ERROR else _YELLOW) + record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{self._painted(clock, _GREY)} {text}"

    def _exchange(self, fields: dict[str, object]) -> str:
        status = fields["status"]
        paint = _GREEN if isinstance(status, int) and status < 400 else _YELLOW
        if isinstance(status, int) and status >= 500:
            paint = _RED
        line = f"{fields['method']:<6} {fields['path']} {self._painted(str(status), paint)} {fields['ms']} ms"
        if isinstance(attempts := fields["attempts"], int) and attempts > 1:
            line += f", {attempts} attempts"
        return line + "".join(f", {fields[key]}" for key in ("error", "ended") if key in fields)

    def _painted(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour and text else text


def start_logging(*, level: str, form: str) -> None:
    """Send the program's log to standard error, as lines of the form that ``log.format`` asks for."""
    # Nothing here shows them, and each costs time on every line (Python's logging HOWTO, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    terminal = sys.stderr.isatty()
    pretty = form == "pretty" or (form == "auto" and terminal)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Pretty(colour=terminal) if pretty else JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("slproxy").setLevel(level.upper())
