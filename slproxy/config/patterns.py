"""The patterns of ``policy.accept_paths`` and ``reject_paths``: plain paths, anchored at both ends of a name.

1. ``/v2/people`` covers itself, ``/v2/people.json``, ``/v2/people/1``, and not ``/v2/people_stages``.
2. ``/v2/people/`` covers what is below it, and not ``/v2/people``.
3. There are no globs and no regular expressions: those match more or less than their author thinks, which is how
   ``kubectl proxy --reject-paths`` came to let things through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Letters, digits and what else a name in SalesLoft's paths can hold, unescaped.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9._~:@!&'=,+-]+)*/?")
_DOTS = re.compile(r"/\.{1,2}(?:/|$)")


def covers(pattern: str, path: str) -> bool:
    """Tell whether ``path``, as it was sent, is what ``pattern`` names, or below it."""
    return path.startswith(pattern) and (
        pattern.endswith("/") or path[len(pattern) : len(pattern) + 1] in ("", "/", ".")
    )


def matcher(patterns: Sequence[str]) -> re.Pattern[str]:
    """Return what matches each path that one of the patterns covers: the same as ``covers``, for every request."""
    ends = (re.escape(pattern) + ("" if pattern.endswith("/") else r"(?=[/.]|\Z)") for pattern in patterns)
    return re.compile("|".join(ends) or r"(?!)")


def rejects(pattern: str, path: str) -> bool:
    """Tell whether a reject covers ``path``; to SalesLoft a name is the same with ``/`` or ``.json`` behind it."""
    return covers(pattern.rstrip("/").removesuffix(".json"), path)


def fault(pattern: str) -> str | None:
    """Return what is wrong with a pattern by itself, or ``None``."""
    if not pattern.startswith("/"):
        return "does not begin with '/', and every path does"
    if not _PLAIN.fullmatch(pattern):
        return "is no plain path: globs, regular expressions, escapes, queries and empty names match nothing"
    if _DOTS.search(pattern):
        return "holds a dot segment, and no path that does is let in"
    return None


def _api(path: str) -> str:
    """Return the first name of a path, below which is all of an API: rules hold in any case (``Rules.closed_by``)."""
    return path.split("/")[1].lower()


def faults(
    section: str, *, accept: Sequence[str], reject: Sequence[str], forwarded: Sequence[str], own: str
) -> Iterator[tuple[str, str, str]]:
    """Yield each pattern that cannot do what it is there for: which list of the section it is in, the pattern, and why.

    ``forwarded`` is what would pass without this section: to reject more of the same API than it accepts is to say
    twice what is closed. ``own`` is where the proxy's own pages are, which no pattern opens or closes.
    """
    for name, patterns in (("accept_paths", accept), ("reject_paths", reject)):
        for pattern in patterns:
            if covers(own, pattern.rstrip("/") + "/"):
                yield name, pattern, "is where the proxy's own pages are: it never matches"
    apis = {_api(opened) for opened in (*accept, *forwarded)}
    for pattern in reject:
        if closed := [opened for opened in accept if rejects(pattern, opened)]:
            yield "reject_paths", pattern, f"closes all that {closed[0]} in {section}.accept_paths opens"
        elif _api(pattern) not in apis and not any(covers(opened, pattern.rstrip("/") + "/") for opened in accept):
            yield "reject_paths", pattern, f"is below nothing in {section}.accept_paths: it never matches"
