"""Access log: one line for each request that has ended, with nothing in it that is secret."""

from __future__ import annotations

import logging
import time
from typing import TextIO

from slproxy.observe.exchange import Exchange
from slproxy.observe.lines import pretty_line
from slproxy.observe.observer import Listener
from slproxy.observe.request_line import json_of, level_of, text_of


class AccessLog(Listener):
    """Writes a line for each request that has ended, from ``lowest`` level on.

    It does not flush: a BackgroundStream writes the lines of a moment in one go.
    """

    def __init__(self, stream: TextIO, *, pretty: bool, colour: bool, lowest: int = logging.INFO) -> None:
        self._stream = stream
        self._pretty, self._colour = pretty, colour
        self._lowest = lowest

    def request_ended(self, exchange: Exchange) -> None:
        """Write the line of an exchange."""
        level = level_of(exchange)
        if level < self._lowest:
            return
        if self._pretty:
            text = text_of(exchange, colour=self._colour)
            line = pretty_line(text, at=time.time(), colour=self._colour)
        else:
            line = exchange.line or json_of(exchange, level=level, at=time.time())
        self._stream.write(line + "\n")
