"""Values of SalesLoft's types, read from JSON or text; and its timestamps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

from slproxy.sandbox.data.definition import FieldType

EASTERN = timezone(timedelta(hours=-5))

FLAGS = {"true": True, "false": False, "1": True, "0": False}


class BadValueError(ValueError):
    """Say what a value must be, in the words of a 422."""


def timestamp(at: float) -> str:
    """Write a time as SalesLoft does: ISO 8601 with microseconds and an offset."""
    return datetime.fromtimestamp(at, EASTERN).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """Read an ISO 8601 date or time, UTC where no offset is given; raise BadValueError.

    A `+` that was not percent-encoded in a query has become a space, and is taken back.
    """
    try:
        typed = datetime.fromisoformat(re.sub(r" (?=\d\d:?\d\d$)", "+", text) if "T" in text else text)
    except ValueError:
        raise BadValueError("is not a valid date") from None
    return typed if typed.tzinfo else typed.replace(tzinfo=UTC)


def integer(value: object) -> int:
    """Read a whole number, also from text; raise BadValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII):
        return int(value)
    raise BadValueError("must be an integer")


def number(value: object) -> float:
    """Read a number, also from text; raise BadValueError."""
    if isinstance(value, float):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}(\.\d{1,18})?", value, re.ASCII):
        return float(value)
    try:
        return integer(value)
    except BadValueError:
        raise BadValueError("must be a number") from None


def boolean(value: object) -> bool:
    """Read true or false, also from text; raise BadValueError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in FLAGS:
        return FLAGS[value.lower()]
    raise BadValueError("must be true or false")


def typed(kind: FieldType, value: object) -> object:
    """Read one value of a type, null included; raise BadValueError."""
    if value is None:
        return None
    if kind.name == "object":
        # The definition calls an account's custom fields a list, and an event's attendees an object: both are read.
        if isinstance(value, Mapping | list):
            return value
        raise BadValueError("must be an object")
    if kind.many:
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list):
            raise BadValueError("must be a list")
        return [typed(FieldType(kind.name), item) for item in value]
    match kind.name:
        case "integer":
            return integer(value)
        case "number":
            return number(value)
        case "boolean":
            return boolean(value)
        case "date" | "date-time":
            return moment(text(value)) and value
        case _:
            return text(value)


def text(value: object) -> str:
    """Read text; raise BadValueError."""
    if isinstance(value, str):
        return value
    raise BadValueError("must be a string")


def blank(value: object) -> bool:
    """Tell whether Rails would call a value blank."""
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())
