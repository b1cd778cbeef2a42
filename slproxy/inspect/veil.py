"""Veil: masks what is secret by its value, in all that the inspector shows, whatever it came in.

A secret is looked for as it is and as JSON, URLs, base64 and hex would spell it, in any case of its letters. It is
looked for when something is shown, not when it is recorded: a body may be compressed, and a token that a client sent
may be in use only later. Those of before are remembered for that, a few more than can be valid.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from urllib.parse import quote

from slproxy.observe import MASK

# What is shorter may be a word, and stand anywhere.
SHORTEST = 12
# Of a secret at the end of a text that was cut, so much in a row is masked.
SHORTEST_PIECE = 6
# Of the end of a text that was cut, so much is looked at.
LONGEST = 4096
# How many secrets are remembered, those of the moment included: a renewed token may still be valid for a while.
REMEMBERED = 24


class Veil:
    """Knows the secrets of this process; ``live`` returns those of the moment."""

    def __init__(self, live: Callable[[], Iterable[str]]) -> None:
        self._live = live
        self._used: dict[str, None] = {}
        self._secrets: frozenset[str] = frozenset()
        self._needles: tuple[str, ...] = ()

    def learn(self) -> None:
        """Remember the secrets of the moment: the tokens among them are about to change, or have."""
        for secret in self._live():
            self._used.pop(secret, None)
            self._used[secret] = None
        while len(self._used) > REMEMBERED:
            del self._used[next(iter(self._used))]

    def mask(self, text: str, is_cut: bool = False) -> str:
        """Return a text with no secret in it, nor the beginning of one at its end if it was cut there."""
        lower = text.lower()
        for needle in self._spelt():
            if needle in lower:
                text = _without(text, lower, needle)
                lower = text.lower()
        return self._mask_end(text) if is_cut else text

    def _mask_end(self, text: str) -> str:
        end = text[-LONGEST:].lower()
        for needle in self._spelt():
            for size in range(min(len(needle), len(end)), SHORTEST_PIECE - 1, -1):
                if end.endswith(needle[:size]):
                    return text[:-size] + MASK
        return text

    def _spelt(self) -> tuple[str, ...]:
        secrets = frozenset((*self._used, *self._live()))
        if secrets != self._secrets:
            self._secrets = secrets
            spelt = {form.lower() for each in secrets if len(each) >= SHORTEST for form in spellings(each)}
            self._needles = tuple(sorted(spelt, key=len, reverse=True))
        return self._needles


def spellings(secret: str) -> set[str]:
    """Return how a secret may be spelt within JSON."""
    raw = secret.encode()
    in_json = json.dumps(secret)[1:-1]
    found = {in_json, in_json.replace("/", "\\/"), quote(secret, safe=""), quote(secret), raw.hex()}
    for before in range(3):
        # Whatever stood before it: the characters that depend on that, or on what comes after, are left out.
        kept = slice(-(-before * 8 // 6), (before + len(raw)) * 8 // 6)
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * before + raw)[kept].decode())
    return found


def _without(text: str, lower: str, needle: str) -> str:
    if len(lower) != len(text):  # a letter that is two in lower case
        return lower.replace(needle, MASK)
    pieces, start = [], 0
    while (found := lower.find(needle, start)) >= 0:
        pieces.append(text[start:found])
        start = found + len(needle)
    return MASK.join([*pieces, text[start:]])
