"""What is told of each request: one line, with nothing in it that is secret.

The query is left out: it holds names and addresses of people. What is recorded is what is shown; there is no masking
later on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

_GREY, _RED, _YELLOW, _GREEN, _RESET = "\x1b[90m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


@dataclass(kw_only=True, eq=False)
class Exchange:
    """A request and its response, as they go by. Times are in seconds; ``started`` is monotonic."""

    method: str
    path: str
    started: float
    status: int = 0
    attempts: int = 0
    # Whether its body is sent once, since it is not kept.
    once: bool = False
    upstream: float = 0.0
    # All waiting between sends, and what of it pacing has held it.
    wait: float = 0.0
    held: float = 0.0
    # Whether it was refused (429) and waits at its place among the others; and then for how long it may.
    queued: bool = False
    cure: float | None = None
    # Its place among those who wait for the budget, which a repeat keeps.
    place: int | None = None
    # The type of the proxy's own answer, such as "login-required"; empty when the reply is SalesLoft's.
    error: str = ""
    # What the proxy's own answer says besides, as headers.
    remarks: Sequence[tuple[str, str]] = ()
    # How the answer ended, when it did not end well: "client left", "upstream broke off".
    ended: str = ""

    @property
    def told_attempts(self) -> list[tuple[str, str]]:
        """The header that tells the client how often its request was sent, where there is something to tell."""
        if self.once and self.attempts:
            return [("X-Slproxy-Attempts", f"{self.attempts}; not-replayable")]
        return [("X-Slproxy-Attempts", str(self.attempts))] if self.attempts > 1 else []

    def fields(self, now: float) -> dict[str, object]:
        """Return what the JSON line holds; ``now`` is monotonic."""
        fields: dict[str, object] = {
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "attempts": self.attempts,
            "ms": round((now - self.started) * 1000, 1),
        }
        if self.wait >= 0.001:
            fields["waited_ms"] = round(self.wait * 1000, 1)
        if self.error:
            fields["error"] = self.error
        if self.ended:
            fields["ended"] = self.ended
        return fields


def path_of(target: str) -> str:
    """Return what may be logged of a request target: its path, with nothing that a terminal would obey.

    Of an absolute target, the authority is left out as well: it may hold a password.
    """
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/") and "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return "".join(character if character.isprintable() else "?" for character in path)[:500]


def json_line(fields: dict[str, object], *, at: float, level: str = "info") -> str:
    """Return one JSON object for a collector; ``at`` is Unix time."""
    second = int(at)
    stamp = f"{_utc(second)}.{int((at - second) * 1000):03d}Z"
    return json.dumps({"time": stamp, "level": level, **fields})


@functools.lru_cache(maxsize=1)  # the lines of a second share it
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def pretty_line(text: str, *, at: float, colour: bool) -> str:
    """Return one line for a person, who lives in local time; ``at`` is Unix time."""
    return f"{_painted(time.strftime('%H:%M:%S', time.localtime(at)), _GREY, colour=colour)} {text}"


def pretty_exchange(exchange: Exchange, now: float, *, colour: bool) -> str:
    """Return what a person reads of an exchange; ``now`` is monotonic."""
    fields = exchange.fields(now)
    paint = _GREEN if exchange.status < 400 else _YELLOW if exchange.status < 500 else _RED
    status = _painted(str(exchange.status), paint, colour=colour)
    line = f"{exchange.method:<6} {exchange.path} {status} {fields['ms']} ms"
    if exchange.attempts > 1:
        line += f", {exchange.attempts} attempts"
    if "waited_ms" in fields:
        line += f", waited {exchange.wait:.1f} s"
    return line + "".join(f", {fields[key]}" for key in ("error", "ended") if key in fields)


def _painted(text: str, paint: str, *, colour: bool) -> str:
    return f"{paint}{text}{_RESET}" if colour and text else text


class Formatter(logging.Formatter):
    """The form of everything else that is logged."""

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
        paint = _RED if record.levelno >= logging.ERROR else _YELLOW
        shown = "" if record.levelno == logging.INFO else _painted(f"{level}: ", paint, colour=self._colour)
        line = pretty_line(shown + record.getMessage(), at=record.created, colour=self._colour)
        return f"{line}\n{traceback}" if traceback else line


class Journal:
    """Writes the access log: a line an exchange, and those of a moment in one write.

    A system call for each line cost a quarter of the proxy's throughput (benchmarks/README.md), and ``logging`` makes
    one for each.
    """

    # How long a line may wait for others, in seconds.
    PATIENCE = 0.05

    def __init__(self, stream: TextIO, *, pretty: bool, colour: bool) -> None:
        self._stream = stream
        self._pretty, self._colour = pretty, colour
        self._lines: list[str] = []

    def record(self, exchange: Exchange, *, now: float) -> None:
        """Write the line of an exchange that has ended, soon; ``now`` is monotonic."""
        at = time.time()
        if self._pretty:
            line = pretty_line(pretty_exchange(exchange, now, colour=self._colour), at=at, colour=self._colour)
        else:
            line = json_line(exchange.fields(now), at=at)
        if not self._lines:
            asyncio.get_running_loop().call_later(self.PATIENCE, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what waits."""
        if self._lines:
            text = "\n".join(self._lines) + "\n"
            self._lines.clear()
            # Whoever read the log may have gone (`slproxy serve 2>&1 | head`): that is no reason to stop serving.
            with contextlib.suppress(OSError):
                self._stream.write(text)
                self._stream.flush()


def start(*, level: str, form: str) -> Journal | None:
    """Send the program's log to standard error, in the form that ``log.format`` asks for.

    Returns the access log, or ``None`` where ``level`` is above it.
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
    return None if quiet else Journal(sys.stderr, pretty=pretty, colour=colour)
