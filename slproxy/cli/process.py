"""The process: its standard streams, event loop, signals, threads and limits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a thread that does not hold up the end of the program.

    A resolver, a keyring or a mount may hang for as long as it likes, and the threads of Python's own executor are
    waited for, by the event loop and by the interpreter. What must not be cut short is awaited by who calls it.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a new thread: there are few of them, and none may wait for one that hangs."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001  # whatever it was, who waits gets it
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # Python's own
        """Wait for nothing."""


def open_standard_streams() -> None:
    """Open what was closed at the start (``slproxy login <&-``): the next file would take its place.

    What is written to standard output then is an error, as it would be on one that is closed; of standard error it is
    lost.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
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
            # Once: on the way down a renewal is waited for, and a second signal must not cut that short. A third one
            # comes from somebody who waits no longer.
            ended_by.append(number)
            if len(ended_by) == 1:
                task.cancel()
            elif len(ended_by) > 2:
                end_within(0.0, 128 + ended_by[0])

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
        runner.get_loop().set_default_executor(DaemonThreads())
        return runner.run(working())


def end_within(seconds: float, code: int) -> None:
    """End the process after so many seconds, whatever of it hangs until then."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()


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
