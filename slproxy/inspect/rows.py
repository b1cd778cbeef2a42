"""Rows: the list of the inspector, one document for each exchange or event. Nothing in one is secret, once veiled."""

from __future__ import annotations

import math

from slproxy.inspect.ring import Entry, Note
from slproxy.observe import Exchange, Recording


def row(entry: Entry, now: float) -> dict[str, object]:
    """Return the row of an entry; ``now`` is monotonic, for what has not ended."""
    what, recording = entry
    return _note(what, recording) if isinstance(what, Note) else _exchange(what, recording, now)


def is_notable(entry: Entry) -> bool:
    """Tell whether somebody who has to leave out rows should keep this one."""
    what, recording = entry
    if isinstance(what, Note):
        return True
    return bool(what.error or what.aborted or what.status >= 400 or len(what.attempts) > 1 or recording.resent)


def _note(note: Note, recording: Recording) -> dict[str, object]:
    return {
        "n": recording.n,
        "kind": note.kind,
        "at": round(recording.at, 3),
        "state": "open" if math.isnan(note.ended) else "done",
        "ms": None if math.isnan(note.ended) else _ms(note.ended - note.began),
        "client": note.client,
        "pinned": recording.is_pinned,
        "note": note.text,
    }


def _exchange(exchange: Exchange, recording: Recording, now: float) -> dict[str, object]:
    is_open = math.isnan(exchange.ended)
    end = now if is_open else exchange.ended
    total = end - exchange.began
    waits = [(each.reason, (end if math.isnan(each.ended) else each.ended) - each.began) for each in exchange.waits]
    token = sum(seconds for reason, seconds in waits if reason == "token")
    wait = sum(seconds for reason, seconds in waits if reason != "token")
    upstream = exchange.upstream
    stream, last = 0.0, exchange.attempts[-1] if exchange.attempts else None
    if last is not None and math.isnan(last.ended):
        upstream += end - last.began
    elif last is not None and last.status is not None and not exchange.error and exchange.status == last.status:
        stream = end - last.ended
    return {
        "n": recording.n,
        "kind": "request",
        "at": round(recording.at, 3),
        "state": "open" if is_open else "done",
        "id": exchange.id,
        "client": exchange.client,
        "method": exchange.method,
        "path": exchange.path,
        "query": "?" in recording.target,
        "operation": exchange.operation,
        "status": exchange.status,
        "attempts": len(exchange.attempts),
        "cost": exchange.cost,
        "token_renewals": exchange.renewals,
        "ms": _ms(total),
        "wait_ms": _ms(wait),
        "token_ms": _ms(token),
        "proxy_ms": _ms(max(total - wait - token - upstream - stream, 0.0)),
        "upstream_ms": _ms(upstream),
        "stream_ms": _ms(stream),
        "in": exchange.bytes_received,
        "out": exchange.bytes_sent,
        "error": exchange.error,
        "ended": exchange.aborted,
        "not_retried": exchange.not_retried,
        "waiting": _waiting(exchange),
        "resent": recording.resent,
        "pinned": recording.is_pinned,
    }


def _waiting(exchange: Exchange) -> str:
    """Return for what a request waits now."""
    last = exchange.waits[-1] if exchange.waits else None
    return last.reason if last is not None and math.isnan(last.ended) else ""


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
