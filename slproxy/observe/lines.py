"""The form of a log line: JSON for a collector, plain text for a person."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping

GREY, RED, YELLOW, GREEN, _RESET = "\x1b[90m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


def json_line(fields: dict[str, object], *, at: float, level: str = "info") -> str:
    """Return one JSON object for a collector; ``at`` is Unix time."""
    return json.dumps({"time": stamp(at), "level": level, **fields})


def quoted(text: str) -> str:
    """Return a text as JSON has it, at once where nothing has to be escaped."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return json.dumps(text)


def stamp(at: float) -> str:
    """Return Unix time as RFC 3339 has it, in UTC, with milliseconds."""
    return _stamp(int(at * 1000))


@functools.lru_cache(maxsize=1)  # at full load, the lines of a millisecond share it
def _stamp(milliseconds: int) -> str:
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@functools.lru_cache(maxsize=1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def pretty_line(text: str, *, at: float, colour: bool) -> str:
    """Return one line for a person, in local time; ``at`` is Unix time."""
    return f"{painted(time.strftime('%H:%M:%S', time.localtime(at)), GREY, colour=colour)} {text}"


def wants_colour(environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Tell whether a stream is to have colours: as Python and many programs have it, in this order.

    https://no-color.org, https://force-color.org: a variable that is empty is none.
    """
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return environ["FORCE_COLOR"] != "0"  # which is how Node's programs turn them off
    return is_terminal and environ.get("TERM") != "dumb"


def painted(text: str, paint: str, *, colour: bool) -> str:
    return f"{paint}{text}{_RESET}" if colour and text else text
