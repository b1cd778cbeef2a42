"""Memory store: the token for as long as the process runs."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

from slproxy.store.record import Record
from slproxy.store.token_store import stale_write


class MemoryStore:
    """For containers with an API key or client credentials, and for the sandbox."""

    def __init__(self, record: Record | None = None) -> None:
        self.description = "memory"
        self.watch_interval = math.inf
        self.encryption = "not encrypted"
        self._record = record
        self._lock = asyncio.Lock()

    async def read(self) -> Record | None:
        return self._record

    async def stamp(self) -> object:
        return self._record

    async def was_wiped(self) -> bool:
        return False

    async def had_login(self) -> bool:
        return self._record is not None

    async def write(self, record: Record) -> None:
        if self._record is not None and record.is_older_than(self._record):
            raise stale_write()
        self._record = record

    async def try_out(self) -> None:
        """Memory is there."""

    async def delete(self) -> None:
        self._record = None

    async def quarantine(self) -> str:
        raise AssertionError("what is in memory is never damaged")

    async def close(self) -> None:
        """Nothing is held open."""

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        async with self._lock:
            yield
