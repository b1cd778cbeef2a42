"""Announcement: the line on standard output that says where a server listens."""

from __future__ import annotations

import contextlib
import sys

from slproxy.cli.output import print_result
from slproxy.errors import OutputError
from slproxy.observe import BackgroundStream

# How long the notes before a line of standard output are waited for, in seconds: their reader may have stalled.
NOTES_TIMEOUT = 0.5


def print_if_read(text: str) -> None:
    """Print to standard output what is no result: a proxy goes on serving although nobody reads what it says.

    It comes after the notes before it, for whoever reads them once this line is there.
    """
    if isinstance(sys.stderr, BackgroundStream):
        sys.stderr.settle(NOTES_TIMEOUT)
    with contextlib.suppress(OutputError, BrokenPipeError):
        print_result(text)
