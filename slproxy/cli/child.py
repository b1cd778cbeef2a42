"""A program that this one runs: with the same standard streams, in the same process group, and not for longer.

Signals that somebody sends to this process are passed on to it. Those of the terminal, such as Ctrl-C, reach it by
themselves: the terminal sends them to the whole group.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Self

from slproxy.cli import held_signals
from slproxy.cli.process import in_daemon_thread
from slproxy.errors import CannotRunError

# What env(1) returns for a program that is not there, and for one that cannot be run.
NOT_FOUND, NOT_RUN = 127, 126
_PASSED_ON = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
)
# Linux: the signal that a process gets when the one that started it is gone (prctl(2)).
_PR_SET_PDEATHSIG = 1


class Child:
    """The program, from before its start to its end; used within ``with``, before any other thread is started."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._mask: set[signal.Signals] = set()
        # What ended it before its start.
        self.ended_by = 0

    def __enter__(self) -> Self:
        # One thread hears them all, since what Python's handlers get does not say who has sent a signal.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        self._mask = {signal.Signals(each) for each in mask} - {signal.Signals(each) for each in held_signals.ENDS}
        threading.Thread(target=self._listen, name="slproxy: signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the signals blocked: the process ends."""

    async def run(self, argv: Sequence[str], environ: Mapping[str, str]) -> int:
        """Run the program to its end, and return its exit code, 128 and the number of the signal that ended it.

        Raises:
            CannotRunError: it is not there, or cannot be run.
        """
        if not argv[0]:  # which would be looked for as the folders of PATH themselves
            raise CannotRunError("There is no '' to run.", hint="Name a program.", code=NOT_FOUND)
        libc, us = ctypes.CDLL(None), os.getpid()

        def begin() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            for number in held_signals.ENDS:
                signal.signal(number, signal.SIG_DFL)
            if hasattr(libc, "prctl"):
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                if os.getppid() != us:  # gone already
                    os._exit(NOT_RUN)

        try:
            self._process = subprocess.Popen(argv, env=dict(environ), preexec_fn=begin)  # noqa: S603, PLW1509, ASYNC220  # what the user asks for
        except FileNotFoundError as error:
            raise CannotRunError(
                f"There is no {argv[0]} to run.", hint="Is it spelt so, and in PATH?", code=NOT_FOUND
            ) from error
        except OSError as error:
            raise CannotRunError(
                f"{argv[0]} cannot be run: {os.strerror(error.errno or 0)}.", hint="Is it a program?", code=NOT_RUN
            ) from error
        code = await in_daemon_thread(self._process.wait)
        return 128 - code if code < 0 else code

    def _listen(self) -> None:
        while True:
            heard = _next_signal()
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._act, *heard)

    def _act(self, number: int, is_from_somebody: bool) -> None:
        """Pass a signal on, or end before the start; in the thread that starts the program, so never in between."""
        if self._process is None:
            self.ended_by = self.ended_by or number
            assert self._task is not None, "it was made in a task"
            self._task.cancel()
        elif is_from_somebody:
            self._process.send_signal(number)


def _next_signal() -> tuple[int, bool]:
    """Wait for a signal; return which it is, and whether a process has sent it, and not the terminal."""
    if hasattr(signal, "sigwaitinfo"):
        heard = signal.sigwaitinfo(_PASSED_ON)
        return heard.si_signo, heard.si_code <= 0  # SI_USER and the like (sigaction(2)); the kernel's own are above
    number = signal.sigwait(_PASSED_ON)
    return number, number not in (signal.SIGINT, signal.SIGQUIT)
