"""What every place for a token promises."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from slproxy.errors import StaleWriteError
from slproxy.store.record import Record

# A holder that hangs blocks nobody for longer than this, in seconds.
LOCK_TIMEOUT = 30.0


class TokenStore(Protocol):
    """Where a login is kept. ``read`` and ``write`` are each whole; ``lock`` spans a read, a renewal and a write."""

    description: str

    @property
    def encryption(self) -> str:
        """How what is kept is encrypted, as far as is known by now."""

    async def read(self) -> Record | None:
        """Return the record, or ``None`` if there is none. Raises StoreError."""

    async def was_wiped(self) -> bool:
        """Tell, where there is no record, whether that is no logout's doing. Raises StoreError."""

    async def write(self, record: Record) -> None:
        """Keep the record; on return it is on disk, where there is a disk.

        Raises:
            StaleWriteError: what is kept is newer.
            StoreError: it cannot be kept.
        """

    async def delete(self) -> None:
        """Remove the record. Raises StoreError."""

    async def quarantine(self) -> str:
        """Keep what is there under another name, which is returned, and have no record. Raises StoreError."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Keep other processes from renewing this token. Raises StoreError when that takes too long."""

    async def close(self) -> None:
        """Let go of what the store holds open."""


def stale_write() -> StaleWriteError:
    return StaleWriteError("A newer token was stored meanwhile.", hint="It is used instead.")
