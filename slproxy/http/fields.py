"""Header fields, as they stood on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RawHeaders = Sequence[tuple[bytes, bytes]]
ByName = Mapping[bytes, Sequence[bytes]]
Fields = list[tuple[str, str]]


def by_name(headers: RawHeaders) -> ByName:
    """Return the values of each header by its name in lower case, in order."""
    index: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        index.setdefault(name.lower(), []).append(value)
    return index


def size(headers: RawHeaders) -> int:
    """Return how many bytes a header block takes on the wire: each name and value, a colon, a space and a line end."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def encoded(fields: Fields) -> bytes:
    """Return headers as they go over the wire, a line each.

    Raises:
        ValueError: one holds a line end, and would be two.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
    if lines.count("\n") != len(fields) or lines.count("\r") != len(fields):
        raise ValueError("a line end within a header")
    return lines.encode("utf-8")
