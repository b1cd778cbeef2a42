"""Details of one entry: heads as they came and as they went, bodies, attempts and waits."""

from __future__ import annotations

import math

from slproxy.http import Fields, RawHeaders
from slproxy.inspect.bodies import Mask, body_document
from slproxy.inspect.ring import Entry, Note
from slproxy.inspect.rows import row
from slproxy.observe import MASK, Exchange, KeptBody, Recording, is_credential, masked, pairs


def details(entry: Entry, now: float, *, authority: str, mask: Mask) -> dict[str, object]:
    """Return all that is kept of an entry; ``authority`` is where requests are sent, ``now`` is monotonic."""
    exchange, recording = entry
    document: dict[str, object] = {"row": row(entry, now)}
    if isinstance(exchange, Note):
        return document
    came, went = _text(recording.came), sent_headers(exchange, recording, authority)
    reply, answer = reply_headers(recording), answer_headers(recording)
    own, kept = recording.answer and recording.answer.body, recording.reply_body
    if own and isinstance(own, bytes):
        kept = KeptBody(lambda _: True)
        kept.add(own)
    reply_body = body_document(
        kept, reply if kept is recording.reply_body else answer, size=exchange.bytes_sent, mask=mask
    )
    began = exchange.began
    return document | {
        "target": recording.target or exchange.path,
        "request": {
            "headers": came,
            "sent_headers": went,
            "body": body_document(recording.request_body, came, size=exchange.bytes_received, mask=mask),
        },
        "response": {
            "status": exchange.status,
            "reason": recording.answer and recording.answer.reason,
            "headers": reply,
            "sent_headers": answer,
            "body": reply_body,
        },
        "attempts": [
            {
                "began_ms": _ms(each.began - began),
                "ms": _ms(each.ended - each.began),
                "status": each.status,
                "fault": each.fault,
                "cost": each.cost,
                "why": each.reason,
            }
            for each in exchange.attempts
        ],
        "waits": [
            {"reason": each.reason, "began_ms": _ms(each.began - began), "ms": _ms(each.ended - each.began)}
            for each in exchange.waits
        ],
        "not_retried": exchange.not_retried,
    }


def sent_headers(exchange: Exchange, recording: Recording, authority: str) -> Fields:
    """Return the headers of a request as they went, if it was sent."""
    if not exchange.attempts or recording.asked is None:
        return []
    own = [("Authorization", f"Bearer {MASK}")]
    if recording.via is not None:
        own.append(("Via", recording.via))
    return [("Host", authority), *_text(_lines(recording.asked.onward)), *own]


def reply_headers(recording: Recording) -> Fields:
    """Return the headers of SalesLoft's reply as they came."""
    if recording.reply is not None:
        return _text(pairs(recording.reply))
    headers = list(_lines(b"" if recording.answer is None else recording.answer.passed))
    if (stopped := recording.stopped) is not None:
        credentials = [(place, (name, MASK.encode())) for place, name in stopped.credentials]
        for place, header in sorted([*zip(stopped.places, recording.picked, strict=True), *credentials]):
            headers.insert(place, header)
    return _text(headers)


def answer_headers(recording: Recording) -> Fields:
    """Return the headers that the client got."""
    answer = recording.answer
    return [] if answer is None else [*_text(_lines(answer.passed)), *answer.headers]


def _lines(block: bytes) -> RawHeaders:
    lines = (line.partition(b":") for line in block.split(b"\r\n") if line)
    return [(name, value.lstrip(b" ")) for name, _, value in lines]


def _text(headers: RawHeaders) -> Fields:
    return [
        (name.decode("utf-8", "replace"), (masked(value) if is_credential(name) else value).decode("utf-8", "replace"))
        for name, value in headers
    ]


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1000, 1)
