"""The form of a log line: JSON for a collector, plain text for a person."""

from __future__ import annotations

import functools
import json
import math
import time

_GREY, RED, YELLOW, GREEN, _RESET = "\x1b[90m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


def json_line(fields: dict[str, object], *, at: float, level: str = "info") -> str:
    """Return one JSON object for a collector; ``at`` is Unix time."""
    second = int(at)
    start = f'{{"time": "{_utc(second)}.{int((at - second) * 1000):03d}Z", "level": "{level}"'
    return start + "".join([f', "{name}": {_value(value)}' for name, value in fields.items()]) + "}"


def _value(value: object) -> str:
    """Return what ``json.dumps`` does, and at once where nothing has to be escaped: each request has such a line."""
    if type(value) is str and value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)
    return json.dumps(value)


@functools.lru_cache(maxsize=1)  # the lines of a second share it
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def pretty_line(text: str, *, at: float, colour: bool) -> str:
    """Return one line for a person, in local time; ``at`` is Unix time."""
    return f"{painted(time.strftime('%H:%M:%S', time.localtime(at)), _GREY, colour=colour)} {text}"


def painted(text: str, paint: str, *, colour: bool) -> str:
    return f"{paint}{text}{_RESET}" if colour and text else text
