"""Request body: JSON, a form, or only query parameters, checked against the operation's types."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

from slproxy.sandbox.api.query import Query, parse_query
from slproxy.sandbox.data.definition import Operation
from slproxy.sandbox.data.values import BadValueError, typed

READABLE = 8 * 1024 * 1024  # longer bodies are read to their end, and not parsed


class BodyError(ValueError):
    """Say that a body is not the JSON it claims to be."""


def body_fields(body: bytes, content_type: str, encoding: str) -> Mapping[str, object]:
    """Return the fields of a body; none where it is empty or of a type that has no fields. Raise BodyError."""
    if encoding.lower() in ("gzip", "deflate"):
        body = unpacked(body)
    media = content_type.partition(";")[0].strip().lower()
    if media == "application/x-www-form-urlencoded":
        return form_fields(parse_query(body.decode("utf-8", "replace")))
    if not body.strip() or not (media.endswith("json") or body.lstrip()[:1] == b"{"):
        return {}
    try:
        document = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise BodyError("There was a problem in the JSON you submitted") from None
    return document if isinstance(document, dict) else {}


def refuse(constant: str) -> object:
    """Refuse NaN and Infinity, which Python reads and JSON does not have (RFC 8259 §6)."""
    raise ValueError(constant)


def unpacked(body: bytes) -> bytes:
    """Return a compressed body as it was, up to what is readable. Raise BodyError."""
    try:
        return zlib.decompressobj(wbits=47).decompress(body, READABLE)  # 47: gzip or zlib, by its header
    except zlib.error:
        raise BodyError("There was a problem in the compressed body you submitted") from None


def form_fields(query: Query) -> Mapping[str, object]:
    """Return a form's fields: `name[]` makes a list, `name[key]` an object, as in Rails."""
    made: dict[str, object] = {}
    for name, bracket, value in query.terms:
        if not bracket:
            made[name] = value
        elif bracket == "[]":
            held = made.setdefault(name, [])
            if isinstance(held, list):
                held.append(value)
        else:
            inner = made.setdefault(name, {})
            if isinstance(inner, dict):
                inner[bracket[1:-1]] = value
    return made


def checked_fields(operation: Operation, given: Mapping[str, object]) -> tuple[dict[str, object], dict[str, list[str]]]:
    """Return the fields that the operation takes, read as its types, and the errors of those that cannot be.

    Other fields are ignored, as Rails ignores parameters that are not permitted.
    """
    kinds = {**operation.query, **operation.body}
    values: dict[str, object] = {}
    errors: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        if name not in given:
            continue
        value = given[name]
        if kind.name == "string" and name.endswith("_id") and isinstance(value, int):
            value = str(value)  # the definition calls some ids strings that clients send as numbers
        try:
            values[name] = typed(kind, value)
        except BadValueError as bad:
            errors[name] = [str(bad)]
    return values, errors
