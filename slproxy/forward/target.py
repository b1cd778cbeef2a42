"""Request target: one that two servers could read in two ways is refused."""

from __future__ import annotations

import functools
import re
import unicodedata
from urllib.parse import unquote_to_bytes

from slproxy.errors import BadTarget

# More ways to read a path than any client means, such as one that is encoded ten times over.
MAX_READINGS = 64

# Of names that every server reads the same.
_PLAIN = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")
# Of such names, none of which begins with a dot.
_USUAL = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
# No longer path is remembered, in characters.
LONGEST_KNOWN = 200
# What ends a name for some servers: its parameters, and what was a query or a fragment before it was encoded.
_NAME_ENDS = re.compile(r"[;?#][^/]*")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@functools.lru_cache(maxsize=1024)
def _is_usual(path: str) -> bool:
    return _USUAL.fullmatch(path) is not None


def exact_path(target: str) -> str:
    """Return the raw path of a target in origin form, once it can be read in one way only."""
    path, _, query = target.partition("?")
    # A query of printable ASCII is one that no server stumbles over.
    is_plain = query.isascii() and query.isprintable() and " " not in query and "#" not in query
    if is_plain and len(path) <= LONGEST_KNOWN and _is_usual(path):
        return path
    if "#" in target:
        raise _bad_target("a fragment (#)")
    if " " in target:
        raise _bad_target("a space")
    try:
        raw = target.encode("utf-8")
    except UnicodeEncodeError:
        raise _bad_target("bytes that are not UTF-8") from None
    if _CONTROL.search(raw):
        raise _bad_target("a control character")
    if path.startswith("//"):
        raise BadTarget(
            "The request target holds two slashes at the front, which servers read differently.",
            hint="Does your base URL end in a slash? Leave it out there, or at the front of the path.",
        )
    if "\\" in path:
        raise _bad_target("a backslash")
    if "%" not in path and "/." not in path:
        return path
    if _BROKEN_ESCAPE.search(path):
        raise _bad_target("a broken percent escape")
    decoded = unquote_to_bytes(path)
    if _CONTROL.search(decoded):
        raise _bad_target("a control character")
    for segment in decoded.replace(b"\\", b"/").split(b"/"):
        if segment.partition(b";")[0] in (b".", b".."):
            raise BadTarget(
                "The request target holds a dot segment, which servers read differently.",
                hint="Send the path that it stands for, without . and ..",
            )
    return path


def _bad_target(what: str) -> BadTarget:
    return BadTarget(
        f"The request target holds {what}, which servers read differently.",
        hint="Percent-encode it if it is data; leave it out if it is not.",
    )


def readings(path: str) -> frozenset[str] | None:
    """Return all paths that servers may take an exact one for; ``None`` where that cannot be told.

    ``;`` ends a name or is part of it, a backslash separates names or does not, empty names count or do not, wide
    letters are letters or are not, and what is encoded twice may be decoded twice.
    """
    if _PLAIN.fullmatch(path):
        return frozenset({path})
    found, new = set[str](), {path}
    while new and len(found) < MAX_READINGS:
        spelt = {one for each in new for one in (each, unicodedata.normalize("NFKC", each))}
        spelt |= {each.replace("\\", "/") for each in spelt}
        spelt |= {_NAME_ENDS.sub("", each) for each in spelt}
        found |= spelt | {_resolved(each) for each in spelt}
        try:
            new = {unquote_to_bytes(each).decode("utf-8") for each in spelt if "%" in each} - found
        except UnicodeDecodeError:  # lenient servers make slashes and letters of it (RFC 3629 §10)
            return None
    return None if new else frozenset(found)


def _resolved(path: str) -> str:
    """Return a path without empty names and dot segments; the spaces around a name may be lost too."""
    names: list[str] = []
    *parents, last = path.split("/")
    for name in [*parents, last]:
        match name.strip():
            case "" | ".":
                pass
            case "..":
                del names[-1:]
            case name:
                names.append(name)
    return "/" + "/".join(names) + ("/" if names and not last.strip() else "")


def folded(path: str) -> str:
    """Return a path as a server reads it to which upper and lower case are the same."""
    return path.casefold()
