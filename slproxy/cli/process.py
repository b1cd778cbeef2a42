"""The process: its standard streams, event loop, signals, threads and limits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def open_standard_streams() -> None:
    """Open what was closed at the start (``slproxy login <&-``): the next file would take its place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115


def run_in_loop(work: Coroutine[object, object, int]) -> int:
    """Run a command in an event loop, uvloop's where the extra is installed; SIGTERM and SIGINT cancel it."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415  # optional: the extra `uvloop`

        factory = uvloop.new_event_loop

    # While the loop is made and taken down a signal would be a traceback: there it waits.
    ends = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    async def working() -> int:
        task = asyncio.current_task()
        assert task is not None
        ended_by: list[int] = []

        def end(number: int) -> None:
            # Once: on the way down a renewal is waited for, and a second signal must not cut that short.
            if not ended_by:
                ended_by.append(number)
                task.cancel()

        for number in ends:
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
        try:
            return await work
        except asyncio.CancelledError:
            if not ended_by:
                raise
            return 128 + ended_by[0]
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(working())


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread that does not hold up the end of the program, as one of asyncio's executor would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Future[T]) -> None:
        if not done.done():
            try:
                done.set_result(outcome.result())
            except Exception as error:  # noqa: BLE001  # whatever it was, who waits gets it
                done.set_exception(error)

    def thread() -> None:
        outcome: Future[T] = Future()
        try:
            outcome.set_result(work())
        except Exception as error:  # noqa: BLE001  # as above
            outcome.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=thread, daemon=True).start()
    return await done
