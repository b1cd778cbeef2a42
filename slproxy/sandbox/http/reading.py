"""Request reading: target, bearer token and body, as they came."""

from __future__ import annotations

import hashlib

from aiohttp import web

from slproxy.sandbox.api.body import READABLE


def origin_form(target: str) -> str:
    """Return the path and query of a target, which may come in absolute form (RFC 9112 §3.2.2)."""
    scheme, found, rest = target.partition("://")
    if found and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return target


def bearer(values: list[str]) -> str | None:
    """Return the token of the Authorization headers; several are joined, and so are no good token."""
    scheme, _, token = ",".join(values).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def read_body(request: web.BaseRequest) -> tuple[bytes, int, str]:
    """Read a body to its end; return what is readable of it, its length and its SHA-256.

    Not `request.read()`: a body of any length is taken, and need not be held.
    """
    kept, length, digest = bytearray(), 0, hashlib.sha256()
    async for chunk in request.content.iter_any():
        length += len(chunk)
        digest.update(chunk)
        if length <= READABLE:
            kept += chunk
    return bytes(kept) if length <= READABLE else b"", length, digest.hexdigest()
