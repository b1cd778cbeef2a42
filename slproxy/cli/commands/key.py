"""``slproxy key``: prints a fresh random key, for ``listen.key`` or a client's."""

from __future__ import annotations

import argparse
import secrets

# In bytes: 256 bits.
SIZE = 32


def text(_: argparse.Namespace) -> str:
    """Return a key that no other call returns, of letters, digits, ``-`` and ``_``."""
    return secrets.token_urlsafe(SIZE)
