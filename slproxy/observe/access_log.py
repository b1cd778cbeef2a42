"""Access log: one line for each request that has ended, with nothing in it that is secret."""

from __future__ import annotations

import asyncio
import contextlib
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
    """Writes the lines of a moment in one go.

    A system call for each line cost a quarter of the proxy's throughput (benchmarks/README.md), and ``logging`` makes
    one for each.
    """

    # How long a line may wait for others, in seconds.
    DELAY = 0.05

    def __init__(self, stream: TextIO, *, pretty: bool, colour: bool) -> None:
        self._stream = stream
        self._pretty, self._colour = pretty, colour
        self._lines: list[str] = []

    def request_ended(self, exchange: Exchange) -> None:
        """Write the line of an exchange, soon."""
        at = time.time()
        if self._pretty:
            line = pretty_line(pretty(exchange, colour=self._colour), at=at, colour=self._colour)
        else:
            line = json_line(fields(exchange), at=at)
        if not self._lines:
            asyncio.get_running_loop().call_later(self.DELAY, self.close)
        self._lines.append(line)

    def close(self) -> None:
        """Write the lines that wait."""
        if self._lines:
            text = "\n".join(self._lines) + "\n"
            self._lines.clear()
            # Whoever read the log may have gone (`slproxy serve 2>&1 | head`): that is no reason to stop serving.
            with contextlib.suppress(OSError):
                self._stream.write(text)
                self._stream.flush()
