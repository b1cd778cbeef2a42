"""What is told of each request: one line, with nothing in it that is secret.

The query is left out: it holds names and addresses of people. What is recorded is what is shown; there is no masking
later on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TextIO

from slproxy.observe.exchange import Exchange
from slproxy.observe.lines import GREEN, RED, YELLOW, json_line, painted, pretty_line


def pretty_exchange(exchange: Exchange, now: float, *, colour: bool) -> str:
    """Return what a person reads of an exchange; ``now`` is monotonic."""
    fields = exchange.fields(now)
    paint = GREEN if exchange.status < 400 else YELLOW if exchange.status < 500 else RED
    status = painted(str(exchange.status), paint, colour=colour)
    line = f"{exchange.method:<6} {exchange.path} {status} {fields['ms']} ms"
    if exchange.attempts > 1:
        line += f", {exchange.attempts} attempts"
    if "waited_ms" in fields:
        line += f", waited {exchange.wait:.1f} s"
    return line + "".join(f", {fields[key]}" for key in ("error", "ended") if key in fields)


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
