"""Held signals: SIGTERM and Ctrl-C end the program at any moment, from its first line to its last.

1. Before anything heavy is imported they are blocked. Python has no handler for SIGTERM, so that as PID 1 of a
   container the kernel would drop it (pid_namespaces(7)), and Python's own for Ctrl-C is a traceback wherever it comes.
2. Once it is known which command this is, and until its event loop runs, one ends the process at once: nothing has
   begun that could be cut short.
3. The command's own handlers follow, in ``process`` and ``end_signals``; while one takes the other's place they are
   blocked.
4. At the end, while the interpreter takes itself apart, they are ignored: a thread of a library, such as uvloop's
   resolvers, does not block them. Our own threads always do: one that heard a signal while the main thread holds them
   would have it handled by whatever handler there is by then, such as Python's own for Ctrl-C.

A process that is started has the mask of the thread that starts it: nothing is started while they are blocked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

ENDS = (signal.SIGTERM, signal.SIGINT)


def hold() -> None:
    """Let the signals wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)


def release() -> None:
    """Let the signals come, those that waited first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def start(thread: threading.Thread) -> None:
    """Start a thread that hears none of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_at_once(*, ends_well: bool) -> None:
    """Let a signal end the process, with its own exit code or, where a command ends well by it, with 0."""
    for number in ENDS:
        signal.signal(number, lambda number, _: os._exit(0 if ends_well else 128 + number))


def ignore() -> None:
    """Let no signal do anything, whichever thread would hear it."""
    told = sys.unraisablehook
    # Of one that comes within these lines Python says that there was no handler for it (python/cpython#87572).
    sys.unraisablehook = lambda _: None
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    sys.unraisablehook = told
