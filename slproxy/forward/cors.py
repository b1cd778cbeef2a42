"""CORS: what a web page of an allowed origin is told, so that the browser lets it read the response.

The protocol is that of the Fetch standard.

1. Only the exact origins of ``listen.allow_origins`` are named, never ``*``: any page could read the answers otherwise.
2. Nothing is said of credentials: cookies are stripped, and the local key travels in a header that the page sets.
3. A preflight is answered here. It carries neither key nor token (a browser sends it bare) and costs no budget.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from slproxy.http import ByName, Fields

# How long a browser may remember a preflight, in seconds: the settings change with a restart, so not for long.
MAX_AGE = 600

_TOKENS = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")  # RFC 9110 §5.6.2


def allowed(headers: ByName, origins: frozenset[str]) -> str | None:
    """Return the origin that the request comes from, if it is one and in the list."""
    named = headers.get(b"origin", ())
    if len(named) != 1:
        return None
    origin = named[0].decode("latin-1")
    return origin if origin in origins else None


def is_preflight(method: str, headers: ByName) -> bool:
    """Tell whether a browser asks on behalf of a page whether it may send a request."""
    return method == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers


def preflight(headers: ByName, methods: Sequence[str]) -> Fields:
    """Return what answers a preflight, besides what ``shared`` says: the methods and headers that the page may send."""
    fields: Fields = [("Access-Control-Allow-Methods", ", ".join(methods))]
    asked = b", ".join(headers.get(b"access-control-request-headers", ()))
    if _TOKENS.fullmatch(asked):
        # By name: `*` would leave out Authorization, in which a page may show the local key.
        fields.append(("Access-Control-Allow-Headers", asked.decode("ascii")))
    if headers.get(b"access-control-request-private-network") == [b"true"]:  # WICG Private Network Access
        fields.append(("Access-Control-Allow-Private-Network", "true"))
    fields.append(("Access-Control-Max-Age", str(MAX_AGE)))
    return fields


def shared(headers: ByName, origins: frozenset[str]) -> Fields:
    """Return what each answer says where there are allowed origins: that it depends on them, and who may read it."""
    origin = allowed(headers, origins)
    if origin is None:
        return [("Vary", "Origin")]
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", "*"),
        ("Vary", "Origin"),
    ]
