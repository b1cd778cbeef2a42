"""Pasted: the code in what a person pastes of the URL that the browser was redirected to.

A terminal, a mail or a chat breaks a URL into lines, puts it in quotes or escapes it. Only a URL with this login's
``state`` counts: one of an earlier tab, or that somebody else sent, is asked for again. A bare code carries none; PKCE
alone then ties it to this login.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qs, unquote

from slproxy.auth.callback import code_of
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.errors import PasteError

# RFC 6749 appendix A.11: any visible characters, though `=` only pads; a shorter one could be guessed.
_BARE_CODE = re.compile(r"[!-<>-~]{8,}={0,2}")
# What a terminal adds, such as the marks of a bracketed paste, and what no URL holds (RFC 3986 appendix C).
_FOREIGN = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|[\x00-\x20\x7f-\xa0\"'<>`\\\u2018-\u201e\u00ab\u00bb\u200b\ufeff]")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# Of how many lines, or pieces between spaces, a URL may be put together, and how often it may have been escaped.
MAX_LINES, MAX_ESCAPES = 40, 2


def parse_pasted(attempt: LoginAttempt, pasted: str, *, before: str = "") -> str:
    """Return the code in what was pasted: a URL, its query, or the bare code.

    ``before`` is what had been pasted before and was not all of it. Raises LoginError when the login has failed, and
    PasteError for what is to be pasted again.
    """
    lines = _lines(pasted)
    known = [*_lines(before), *lines][-MAX_LINES:]
    queries = [query for text in _joined(known) for query in _queries(text)]
    for fields in queries:
        if fields.get("state") == attempt.state and {"code", "error"} & fields.keys():
            code = code_of(fields)
            # A code with an escape in it is one that was escaped twice.
            return unquote(code) if _ESCAPE.search(code) else code
    bare = pasted.strip().strip("\"'<>`")
    if _BARE_CODE.fullmatch(bare) and "://" not in bare:
        return bare
    raise PasteError(_reason(attempt, lines, [_queries(line)[0] for line in lines]), hint="Run slproxy login again.")


def _lines(text: str) -> list[str]:
    return [line for each in text.split() if (line := _FOREIGN.sub("", each))]


def _joined(lines: Sequence[str]) -> list[str]:
    """Return what the lines may be together: first all of them, then without the last or the first ones."""
    return ["".join(lines[first:end]) for end in range(len(lines), 0, -1) for first in range(end)]


def _queries(text: str) -> list[dict[str, str]]:
    """Return the fields of a URL or query, as they are and as they are when escapes are undone."""
    found: list[dict[str, str]] = []
    for _ in range(MAX_ESCAPES + 1):
        query = (text.replace("&amp;", "&").rpartition("?")[2]).partition("#")[0]
        found.append({name: values[-1] for name, values in parse_qs(query.rstrip(").,;]")).items()})
        text = unquote(text)
    return found


def _reason(attempt: LoginAttempt, lines: Sequence[str], queries: Sequence[dict[str, str]]) -> str:
    if not lines:
        return "Nothing was pasted."
    callbacks = [fields for fields in queries if {"code", "error"} & fields.keys()]
    if any("state" in fields for fields in callbacks):
        return "That URL belongs to another login, such as an earlier tab's: its state is not this one's."
    if callbacks:
        return "That URL is not whole: it has no state."
    begins = attempt.redirect_uri + ("&" if "?" in attempt.redirect_uri else "?")
    return f"That is not the URL you were redirected to; it starts with {begins}code="
