"""Untrusted text: what came from outside is parsed without surprises, and printed without effect."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import unicodedata
from collections.abc import Callable

# How deep a JSON document may be nested: what is meant for us is nested five times, and each level costs stack.
MAX_DEPTH = 100

# What a terminal obeys, or cannot show: controls (C0, C1, DEL), surrogates, and separators of lines and paragraphs.
_OBEYED = frozenset({"Cc", "Cs", "Zl", "Zp"})
# What reorders text, so that it reads as another (Unicode Technical Report 36, 2.2).
_REORDERS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def parse_json(text: bytes | str, *, any_number: bool = False) -> object:
    """Return a JSON document. Raises ValueError for whatever is none, or is nested too deep.

    A number that is not finite, or has thousands of digits, is an error too, or NaN where ``any_number`` is allowed: by
    whoever must not lose the rest of the document for it.
    """

    def number(kind: Callable[[str], float], text: str) -> float:
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(parsed := kind(text)):
                return parsed
        if any_number:
            return math.nan
        raise ValueError("not a number")

    try:
        document: object = json.loads(
            text,
            parse_int=functools.partial(number, int),
            parse_float=functools.partial(number, float),
            parse_constant=functools.partial(number, float),
        )
    except (ValueError, RecursionError):
        # Without the cause, which quotes what it stumbled over.
        raise ValueError("not JSON") from None
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return document
    raise ValueError("nested too deep")


def printable(text: str, *, keep: str = "") -> str:
    """Return text that a terminal only shows: what it would obey is escaped, but for the characters in ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if each in keep or (each not in _REORDERS and unicodedata.category(each) not in _OBEYED)
        else _escaped(each)
        for each in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
