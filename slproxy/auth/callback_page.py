"""Callback pages: what the browser is shown of a login, with nothing in them that could be run, framed or kept."""

from __future__ import annotations

import base64
import hashlib

# The page takes the code out of the address bar and the history: neither is a place for it, used or not.
_SCRIPT = 'history.replaceState(null, "", location.pathname)'
_STYLE = """
:root{color-scheme:light dark}
*{box-sizing:border-box}
body{font:17px/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:100vh;margin:0;padding:1rem;
background:#f4f5f7;color:#1d2433;overflow-wrap:anywhere}
main{background:#fff;padding:2rem;border-radius:12px;box-shadow:0 1px 4px #0002;width:100%;max-width:30rem}
h1{font-size:1.3rem;margin:0 0 .5rem}p{margin:0;color:#556}
@media (prefers-color-scheme:dark){
body{background:#14171c;color:#e8ebf0}main{background:#20252d;box-shadow:none}p{color:#b3bbc7}}
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">
<title>slproxy: {title}</title><style>{style}</style></head><body>
<main><h1>{title}</h1><p>{text}</p></main>{script}</body></html>
"""


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode('ascii')}'"


# Content Security Policy Level 3: only this style and this script, by their hashes.
_HEADERS = (
    "Content-Type: text/html; charset=utf-8",
    "Cache-Control: no-store",
    f"Content-Security-Policy: default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options: DENY",
    "X-Content-Type-Options: nosniff",
    "Referrer-Policy: no-referrer",
    "Connection: close",
)


def page(
    status: int,
    title: str,
    text: str,
    *,
    date: str,
    method: str = "GET",
    headers: tuple[str, ...] = (),
    keeps_url: bool = False,
) -> bytes:
    """Return a whole response: a page with ``text``, which may be anybody's.

    It takes itself out of the address bar, unless it ``keeps_url`` for the person to copy.
    """
    import html  # noqa: PLC0415  # both take their time to load, and only a login shows a page
    from http import HTTPStatus  # noqa: PLC0415

    script = "" if keeps_url else f"<script>{_SCRIPT}</script>"
    shown = {"title": html.escape(title), "text": html.escape(text), "style": _STYLE, "script": script}
    body = _PAGE.format(**shown).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Date: {date}",
        f"Content-Length: {len(body)}",
        *_HEADERS,
        *headers,
    )
    return "\r\n".join((*head, "", "")).encode("latin-1") + (b"" if method == "HEAD" else body)
