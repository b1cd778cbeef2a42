"""Request target: one that two servers could read in two ways is refused."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from slproxy.errors import BadTarget

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def exact_path(target: str) -> str:
    """Return the raw path of a target in origin form, once it can be read in one way only."""
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
    path = target.partition("?")[0]
    if path.startswith("//"):
        raise _bad_target("two slashes at the front")
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
