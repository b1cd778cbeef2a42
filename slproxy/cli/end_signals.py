"""End signals of ``serve``: the first drains the proxy, the second stops it, whatever hangs meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from types import FrameType

from slproxy.cli import held_signals
from slproxy.cli.output import DONE
from slproxy.cli.process import end_within
from slproxy.cli.terminal import has_terminal

# The longest that a drain takes: 30 s for the requests in flight (`app.GRACE`), and then a renewal that has just begun
# (`auth.token_endpoint`). What lasts longer hangs.
DRAIN_TIMEOUT = 65.0
# What the second signal leaves, in seconds: docs/hazards.md, D1, has one.
STOP_TIMEOUT = 0.8

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class EndSignals:
    """What signals ask for: ``stop`` at the first, ``at_once`` at the second, and ``reload`` at SIGHUP.

    A thread hears them: the event loop may be in a system call that does not return, such as a write to a pipe that
    nobody reads, or to a disk that is gone.
    """

    def __init__(self) -> None:
        self.stop, self.at_once, self.reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        # What a person does again to stop at once.
        self.again = ""
        # nohup(1) has the signal ignored: then the end of the terminal is not ours.
        self._ends_with_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        self._loop = asyncio.get_running_loop()
        # Both stay open as long as the process runs.
        heard, signalled = os.pipe()
        os.set_blocking(signalled, False)
        for number in (*NAMES, signal.SIGHUP):
            signal.signal(number, _heard)
        signal.set_wakeup_fd(signalled)
        held_signals.start(threading.Thread(target=self._listen, args=(heard,), name="slproxy: signals", daemon=True))
        held_signals.release()

    def _listen(self, heard: int) -> None:
        has_begun = False
        while numbers := os.read(heard, 64):
            for number in numbers:
                if number in NAMES:
                    end_within(STOP_TIMEOUT if has_begun or self.stop.is_set() else DRAIN_TIMEOUT, DONE)
                    has_begun = True
                with contextlib.suppress(RuntimeError):  # the loop has ended already
                    self._loop.call_soon_threadsafe(self._act, number)

    def _act(self, number: int) -> None:
        if number in NAMES:
            self.again = self.again or NAMES[signal.Signals(number)]
            (self.at_once if self.stop.is_set() else self.stop).set()
        elif number == signal.SIGHUP:
            # The same signal says that the terminal was closed: then whoever started the proxy there has gone.
            (self.stop if self._ends_with_terminal and not has_terminal() else self.reload).set()


def _heard(number: int, frame: FrameType | None) -> None:
    """Do nothing: a signal without a handler would end the process, or not be heard."""
