"""Exit codes, and messages to a person apart from a command's result."""

from __future__ import annotations

import sys

from slproxy.errors import SlproxyError

DONE, FAILED = 0, 1


def print_note(text: str) -> None:
    """Tell a person something that is not the command's result."""
    print(text, file=sys.stderr, flush=True)


def print_error(error: SlproxyError) -> None:
    """Tell a person what went wrong, and what to do."""
    print_note(f"slproxy: {error.detail}" + (f"\n  {error.hint}" if error.hint else ""))
