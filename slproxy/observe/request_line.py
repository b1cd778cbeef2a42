"""Request line: what a log says of a request, for a collector and for a person, and how loud.

Each request has one, so the JSON is written by hand: an encoder would take three times as long. What comes from outside
is quoted; all else is the proxy's own, and holds nothing to escape.
"""

from __future__ import annotations

import functools
import json
import logging

from slproxy.config import PROBES
from slproxy.observe.exchange import Exchange
from slproxy.observe.lines import GREEN, RED, YELLOW, painted, quoted, stamp

# Why an answer did not end well, where it was the client's doing.
LEFT, LEFT_WAITING = "client left", "client left while waiting"
# What helps against a client that leaves too early (RFC 7240 §4.3).
LEFT_WAITING_HINT = "raise the client's timeout, or send Prefer: wait=5 to be answered within 5 s"

_LEVELS = {getattr(logging, name.upper()): name for name in ("debug", "info", "warning", "error")}

# The client's label and the method are the same again and again.
_label = functools.lru_cache(maxsize=256)(json.dumps)
_path = functools.lru_cache(maxsize=1024)(quoted)


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds, with one decimal."""
    return _tenths(int(seconds * 10_000 + 0.5)) if seconds else "0.0"


@functools.lru_cache(maxsize=2048)  # formatting a float takes three times as long
def _tenths(number: int) -> str:
    return f"{number / 10:.1f}"


def level_of(exchange: Exchange) -> int:
    """Return how loud the line of a request is: an error for any 5xx, a warning where somebody should look."""
    if exchange.path in PROBES:
        return logging.DEBUG
    if exchange.status >= 500:
        return logging.ERROR
    if exchange.status in (401, 429) or exchange.aborted not in ("", LEFT, LEFT_WAITING):
        return logging.WARNING
    return logging.INFO


def json_of(exchange: Exchange, *, level: int, at: float) -> str:
    """Return the JSON line of a request that has ended; ``at`` is Unix time."""
    upstream, waited, attempts = exchange.upstream, exchange.waited, exchange.attempts
    seconds = exchange.ended - exchange.began
    own = seconds - upstream - waited if seconds > upstream + waited else 0.0
    cost = attempts[0].cost if len(attempts) == 1 else exchange.cost
    line = (
        f'{{"time": "{stamp(at)}", "level": "{_LEVELS[level]}", "kind": "request", "id": "{exchange.id}"'
        f', "client": {_label(exchange.client)}, "method": {_label(exchange.method)}, "path": {_path(exchange.path)}'
        f', "operation": "{exchange.operation}", "status": {exchange.status}, "attempts": {len(attempts)}'
        f', "ms": {milliseconds(seconds)}, "proxy_ms": {milliseconds(own)}'
        f', "upstream_ms": {milliseconds(upstream)}, "wait_ms": {milliseconds(waited)}'
        f', "in": {exchange.bytes_received}, "out": {exchange.bytes_sent}'
    )
    if cost is not None:
        line += f', "cost": {cost}'
    if exchange.renewals:
        line += f', "token_renewals": {exchange.renewals}'
    if exchange.error:
        line += f', "error": "{exchange.error}"'
    if exchange.aborted:
        line += f', "ended": "{exchange.aborted}"'
        if exchange.aborted == LEFT_WAITING:
            line += f', "hint": "{LEFT_WAITING_HINT}"'
    if exchange.not_retried:
        line += f', "not_retried": "{exchange.not_retried}"'
    if exchange.upstream_id:
        line += f', "upstream_id": "{exchange.upstream_id}"'
    return line + "}"


def text_of(exchange: Exchange, *, colour: bool) -> str:
    """Return what a person reads of a request that has ended: who and what, then only what is out of the ordinary."""
    paint = GREEN if 0 < exchange.status < 400 else YELLOW if exchange.status < 500 else RED
    status = painted(str(exchange.status or "-"), paint, colour=colour)
    line = f"{exchange.method:<6} {exchange.path} {status} {exchange.seconds * 1000:.1f} ms"
    if exchange.client:
        line += f", {exchange.client}"
    if (cost := exchange.cost) is not None and cost > 1:
        line += f", cost {cost}"
    if len(exchange.attempts) > 1:
        line += f", {len(exchange.attempts)} attempts"
    if exchange.waited >= 0.001:
        line += f", waited {exchange.waited:.1f} s"
    for each in (exchange.error, exchange.aborted):
        line += f", {each}" if each else ""
    if exchange.not_retried:
        line += f", not retried: {exchange.not_retried}"
    if exchange.aborted == LEFT_WAITING:
        line += f" ({LEFT_WAITING_HINT})"
    return f"{line}, id {exchange.id}" if exchange.id and exchange.status >= 400 else line
