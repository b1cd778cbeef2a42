"""End signals of ``serve``: the first drains the proxy, the second stops it, whatever hangs meanwhile."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType

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
    """What signals ask for: ``stop`` at the first, ``at_once`` at the second, and ``reload`` at SIGHUP."""

    def __init__(self) -> None:
        self.stop, self.at_once, self.reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        # What a person does again to stop at once.
        self.again = ""
        self._has_begun = False
        # nohup(1) has the signal ignored: then the end of the terminal is not ours.
        self._ends_with_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        loop = asyncio.get_running_loop()
        for number in NAMES:
            loop.add_signal_handler(number, self._end, number)
            # The loop's own handler, which does nothing but wake it up, gives way to one that needs no loop: it may be
            # in a system call that does not return, such as a write to a pipe that nobody reads.
            signal.signal(number, self._limit)
            signal.siginterrupt(number, True)  # Python's own; else the call would not be interrupted
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _end(self, number: signal.Signals) -> None:
        self.again = self.again or NAMES[number]
        (self.at_once if self.stop.is_set() else self.stop).set()

    def _limit(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # Python's signature
        is_first, self._has_begun = not (self._has_begun or self.stop.is_set()), True
        end_within(DRAIN_TIMEOUT if is_first else STOP_TIMEOUT, DONE)

    def _hang_up(self) -> None:
        # The same signal says that the terminal was closed: then whoever started the proxy there has gone.
        (self.stop if self._ends_with_terminal and not has_terminal() else self.reload).set()
