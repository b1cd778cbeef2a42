"""Span queue: hands what has ended to a thread that exports it, so that no request waits for a collector.

1. To put something costs a request two steps, whatever the collector does.
2. A collector that is slow, hangs or is down costs traces and no memory: what the queue has no room for is dropped.
3. The end of the program waits for the last batches, and no longer than it is told to.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger("slproxy.tracing")


class SpanQueue(Generic[T]):
    """What waits to be exported; ``export`` says why a batch was not taken, or nothing. Times are in seconds."""

    def __init__(
        self, export: Callable[[Sequence[T]], str], *, host: str, delay: float, batch: int, capacity: int
    ) -> None:
        self._export, self._host = export, host
        self._delay, self._batch, self._capacity = delay, batch, capacity
        self._queue: collections.deque[T] = collections.deque()
        self._wake = threading.Event()
        self._give_up_at: float | None = None
        # Each is counted by one thread alone.
        self._dropped = self._refused = self._told = 0
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="slproxy: traces", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Add something that has ended, unless there is no room."""
        if len(self._queue) >= self._capacity:
            self._dropped += 1
            return
        self._queue.append(item)
        if len(self._queue) >= self._batch and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout: float) -> None:
        """Export what is left, for so long at most."""
        self._give_up_at = time.monotonic() + timeout
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._give_up_at is None:
            self._wake.wait(self._delay)
            self._wake.clear()
            self._export_all()
        self._export_all()

    def _export_all(self) -> None:
        while self._queue and (self._give_up_at is None or time.monotonic() < self._give_up_at):
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]
            self._tell(self._export(batch), size=len(batch))

    def _tell(self, fault: str, *, size: int) -> None:
        """Log that the collector begins to fail, and what was lost once it takes traces again."""
        if fault:
            self._refused += size
            if not self._is_failing:
                log.warning("%s takes no traces (%s): they are lost until it does", self._host, fault)
        elif lost := self._dropped + self._refused - self._told:
            self._told += lost
            log.warning("%s takes traces, and has missed those of %d requests", self._host, lost)
        self._is_failing = bool(fault)
