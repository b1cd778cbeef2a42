"""Static files of the inspector's page, and what a browser may do with them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from slproxy.http import Fields

PAGE = Path(__file__).parent / "page"
# No name leaves the folder: no segment begins with a dot.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
# What each answer of the inspector says: what it holds runs nothing, is framed by nobody, and read by no other origin.
GUARDS: Fields = [
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # Without an error: what has no Proxy-Status is SalesLoft's.
    ("Proxy-Status", "slproxy"),
]


def static_file(name: str) -> tuple[bytes, str, str] | None:
    """Return a file's content, type and entity tag, or ``None`` where there is none of that name."""
    kind = _TYPES.get(Path(name).suffix)
    if kind is None or _NAME.fullmatch(name) is None:
        return None
    try:
        content = (PAGE / name).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return content, kind, f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
