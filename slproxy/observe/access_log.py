"""Access log: one line for each request that has ended, with nothing in it that is secret."""

from __future__ import annotations

import time
from typing import TextIO

from slproxy.observe.exchange import Exchange
from slproxy.observe.lines import GREEN, RED, YELLOW, json_line, painted, pretty_line
from slproxy.observe.observer import Listener


def fields(exchange: Exchange) -> dict[str, object]:
    """Return what the JSON line of an exchange that has ended holds."""
    told: dict[str, object] = {
        "method": exchange.method,
        "path": exchange.path,
        "status": exchange.status,
        "attempts": len(exchange.attempts),
        "ms": round((exchange.ended - exchange.began) * 1000, 1),
    }
    if exchange.waited >= 0.001:
        told["waited_ms"] = round(exchange.waited * 1000, 1)
    if exchange.error:
        told["error"] = exchange.error
    if exchange.aborted:
        told["ended"] = exchange.aborted
    return told


def pretty(exchange: Exchange, *, colour: bool) -> str:
    """Return what a person reads of an exchange that has ended."""
    told = fields(exchange)
    paint = GREEN if exchange.status < 400 else YELLOW if exchange.status < 500 else RED
    status = painted(str(exchange.status), paint, colour=colour)
    line = f"{exchange.method:<6} {exchange.path} {status} {told['ms']} ms"
    if len(exchange.attempts) > 1:
        line += f", {len(exchange.attempts)} attempts"
    if "waited_ms" in told:
        line += f", waited {exchange.waited:.1f} s"
    return line + "".join(f", {told[key]}" for key in ("error", "ended") if key in told)


class AccessLog(Listener):
    """Writes a line for each request that has ended.

    It does not flush: a BackgroundStream writes the lines of a moment in one go.
    """

    def __init__(self, stream: TextIO, *, pretty: bool, colour: bool) -> None:
        self._stream = stream
        self._pretty, self._colour = pretty, colour

    def request_ended(self, exchange: Exchange) -> None:
        """Write the line of an exchange."""
        at = time.time()
        if self._pretty:
            line = pretty_line(pretty(exchange, colour=self._colour), at=at, colour=self._colour)
        else:
            line = json_line(fields(exchange), at=at)
        self._stream.write(line + "\n")
