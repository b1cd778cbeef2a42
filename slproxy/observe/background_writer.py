"""Background writer: a thread that writes what is logged, so that a reader who stalls keeps nobody waiting.

A pipe that nobody reads, a terminal after Ctrl-S and a hung SSH connection block whoever writes to them, such as the
event loop. Lines are queued here in the order of events, and nothing waits for them. What finds the queue full is
dropped and counted, and a line in its place says so once those before it are written.

Nothing here takes a lock that a signal or the garbage collector could meet again in the same thread: what a finalizer
logs comes at any moment (``collections.deque`` and ``queue.SimpleQueue`` allow that).
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TextIO

# How many lines wait at most: at full load those of a quarter of a second, which a reader that reads never has.
CAPACITY = 1_000
# How long a line may wait for others to be written with it, in seconds. A system call for each cost a quarter of the
# proxy's throughput (benchmarks/README.md).
DELAY = 0.05
# How much is written at once, in characters, so that a slow reader makes room in steps.
BATCH = 64 * 1024
# How often it is looked at whether all is written, in seconds.
SETTLE_INTERVAL = 0.001


class BackgroundWriter:
    """Writes text to a file descriptor in a thread of its own. ``note`` words how many lines were dropped."""

    def __init__(self, descriptor: int, *, encoding: str, note: Callable[[int], str], capacity: int = CAPACITY) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._note = note
        self._capacity = capacity
        # A number stands for so many lines that were dropped there.
        self._queue: deque[str | int] = deque()
        self._dropped = 0
        # Set by whoever wakes the thread, so that one wake-up does for many.
        self._awake = self._hurried = self._closing = self._writing = False
        self._wakes: SimpleQueue[None] = SimpleQueue()
        # The rest of a line that was cut short, as by a full disk: nothing else may begin before its end.
        self._rest = b""
        self._thread = threading.Thread(target=self._run, name="slproxy: log writer", daemon=True)
        # Signals are for the main thread, which lets them wait while its loop is taken down.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def put(self, text: str) -> None:
        """Queue whole lines, to be written within ``DELAY``."""
        if len(self._queue) >= self._capacity:
            self._dropped += 1
            return
        if self._dropped:
            self._queue_dropped()
        self._queue.append(text)
        if not self._awake:
            self._awake = True
            self._wakes.put(None)

    def hurry(self) -> None:
        """Let what is queued be written at once; do not wait for it."""
        if not self._hurried:
            self._hurried = True
            self._wakes.put(None)

    def settle(self, timeout: float) -> None:
        """Wait until what is queued is written, for ``timeout`` seconds at most."""
        self.hurry()
        deadline = time.monotonic() + timeout
        while (self._queue or self._writing) and time.monotonic() < deadline:
            time.sleep(SETTLE_INTERVAL)

    def close(self, timeout: float) -> bool:
        """Write what is queued, for ``timeout`` seconds at most; return whether that came to its end."""
        self._closing = True
        self._wakes.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _queue_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        self._queue.append(dropped)

    def _run(self) -> None:
        while not self._closing:
            self._wakes.get()
            if not self._closing:
                with contextlib.suppress(Empty):
                    self._wakes.get(timeout=DELAY)
            self._awake = self._hurried = False
            self._write_queue()
        # What was queued between the last look and the end.
        self._write_queue()

    def _write_queue(self) -> None:
        self._writing = True
        while batch := self._next_batch():
            text = "".join([line if isinstance(line, str) else self._note(line) for line in batch])
            if unwritten := self._write(self._rest + self._encoded(text)):
                self._give_up(batch, unwritten)
                break
            self._rest = b""
        self._writing = False

    def _next_batch(self) -> list[str | int]:
        if not self._queue and self._dropped:
            self._queue_dropped()
        batch: list[str | int] = []
        size = 0
        while self._queue and size < BATCH:
            line = self._queue.popleft()
            batch.append(line)
            size += len(line) if isinstance(line, str) else 0
        return batch

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._encoding, "backslashreplace")

    def _write(self, data: bytes) -> bytes:
        """Write data, however long that takes; return what could not be."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody who shares the terminal or pipe has made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:  # the reader has gone, or the disk is full: no reason to stop serving
                return data
        return b""

    def _give_up(self, batch: list[str | int], unwritten: bytes) -> None:
        """Count the lines of which nothing was written, and keep the rest of the one that was begun."""
        for line in reversed(batch):
            encoded = self._encoded(line if isinstance(line, str) else self._note(line))
            if len(unwritten) < len(encoded):
                break
            unwritten = unwritten[: -len(encoded)]
            self._dropped += line if isinstance(line, int) else 1
        self._rest = unwritten


class BackgroundStream(io.TextIOBase):
    """A text stream that a BackgroundWriter writes, in the place of ``stream``."""

    def __init__(self, writer: BackgroundWriter, stream: TextIO) -> None:
        super().__init__()
        self._writer = writer
        self._stream = stream
        # `print` writes its text and the end of its line one after the other.
        self._partial = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the text."""
        return self._stream.encoding

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor that the text ends up in."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether that is a terminal."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Queue text once its line has an end."""
        if self._partial or not text.endswith("\n"):
            text, self._partial = self._partial + text, ""
            if not text.endswith("\n"):
                self._partial = text
                return len(text)
        self._writer.put(text)
        return len(text)

    def settle(self, timeout: float) -> None:
        """Wait until what was written is in the file, for ``timeout`` seconds at most."""
        self._writer.settle(timeout)

    def flush(self) -> None:
        """Let what was written be written soon; do not wait for it."""
        if self._partial:
            text, self._partial = self._partial, ""
            self._writer.put(text)
        self._writer.hurry()
