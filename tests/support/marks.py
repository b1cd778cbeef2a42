"""Marked secrets: each holds a core of letters and digits that stands nowhere else, and is searched for in pieces."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

# How much of a secret in a row is a leak. A mask may leave four characters, as the sandbox's does.
PIECE = 8
HINT = 4


def core(name: str) -> str:
    """Return letters and digits that stand nowhere else, the same in every run."""
    return base64.b32encode(hashlib.sha256(name.encode()).digest()).decode().lower()[:28]


def secret(name: str, form: str = "{}") -> str:
    return form.format(core(name))


class Marks:
    """The secrets, and what of them would be recognised."""

    def __init__(self, names: Iterable[str]) -> None:
        self._hints: dict[str, frozenset[bytes]] = {}
        self._pieces: dict[str, frozenset[bytes]] = {}
        self._whole: dict[str, frozenset[bytes]] = {}
        for name in names:
            self.add(name, core(name))

    def add(self, name: str, text: str) -> None:
        """Look for ``text`` as well, under a name that may have others already."""
        text_bytes = text.encode()
        pieces = set(cut(text_bytes, PIECE, 1))
        whole = {text_bytes.hex().encode(), text_bytes.hex().upper().encode(), text_bytes[::-1]}
        for before in range(3):
            # Whatever stood before it: of the characters that depend on that, and on what comes after, none is kept.
            kept = slice(-(-before * 8 // 6), (before + len(text_bytes)) * 8 // 6)
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                whole.add(encode(b"\0" * before + text_bytes)[kept])
        # Each piece holds one of these, whichever it is: there are few to look for in all that holds none.
        self._hints[name] = self._hints.get(name, frozenset()) | set(cut(text_bytes, HINT, PIECE - HINT + 1))
        self._pieces[name] = self._pieces.get(name, frozenset()) | pieces
        self._whole[name] = self._whole.get(name, frozenset()) | whole

    def remove(self, name: str) -> None:
        """Look no longer for what is nowhere any more."""
        del self._hints[name], self._pieces[name], self._whole[name]

    def found_in(self, text: str | bytes) -> set[str]:
        """Return the names of the secrets that show."""
        content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        # Wherever lines were broken, as base64 is in a mail or a file of settings.
        content = b"".join(content.split())
        lower = content.lower()
        return {
            name
            for name, pieces in self._pieces.items()
            if (any(hint in lower for hint in self._hints[name]) and any(piece in lower for piece in pieces))
            or any(whole in content for whole in self._whole[name])
        }


def cut(text: bytes, size: int, step: int) -> list[bytes]:
    """Return what stands at each ``step`` of a text, in small letters."""
    return [text[start : start + size].lower() for start in range(0, len(text) - size + 1, step)]
