"""The process: its event loop, signals and threads."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from slproxy.cli import held_signals

T = TypeVar("T")
P = ParamSpec("P")


class DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a thread that does not hold up the end of the program.

    A resolver, a keyring or a mount may hang for as long as it likes, and the threads of Python's own executor are
    waited for, by the event loop and by the interpreter. Whoever calls awaits what must not be cut short.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a new thread: there are few of them, and none may wait for one that hangs."""
        return _started(functools.partial(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # Python's own
        """Wait for nothing."""


def run_in_loop(work: Coroutine[object, object, int], *, serves: bool) -> int:
    """Run a command in an event loop; SIGTERM and SIGINT cancel it.

    One that ``serves`` gets them held, and releases them; and uvloop's loop, where the extra is installed.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if serves:
        with contextlib.suppress(ImportError):
            import uvloop  # noqa: PLC0415  # optional: the extra `uvloop`

            factory = uvloop.new_event_loop

    # While the loop is made and taken down a signal would be a traceback, or lost.
    held_signals.hold()

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

        if not serves:
            for number in held_signals.ENDS:
                asyncio.get_running_loop().add_signal_handler(number, end, number)
            held_signals.release()
        try:
            return await work
        except asyncio.CancelledError:
            if not ended_by:
                raise
            return 128 + ended_by[0]
        finally:
            held_signals.hold()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_default_executor(DaemonThreads())
        return runner.run(working())


def end_within(seconds: float, code: int) -> None:
    """End the process after so many seconds, whatever of it hangs until then."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    held_signals.start(timer)


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread that does not hold up the end of the program, as one of asyncio's executor would."""
    return await asyncio.wrap_future(_started(work))


def _started(work: Callable[[], T]) -> Future[T]:
    """Begin blocking work in a daemon thread."""
    future: Future[T] = Future()

    def thread() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  # whatever it was, who waits gets it
            future.set_exception(error)

    held_signals.start(threading.Thread(target=thread, daemon=True))
    return future
