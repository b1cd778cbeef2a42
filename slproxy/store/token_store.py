"""Token store: what each place for a login promises.

1. A write leaves either the old record or the new one, whole.
2. An older record never replaces a newer one, whatever the order of arrival (``Record.is_older_than``).
3. A lock that ends with its holder keeps two processes from renewing one token at the same time.
4. A record belongs to one client, for one API at one accounts host, in one profile (``Record.belongs_to``).
5. A place that has held a login remembers that, whatever became of it (``had_login``).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from slproxy.errors import StaleWriteError
from slproxy.store.record import Record

# A holder that hangs blocks nobody for longer than this, in seconds.
LOCK_TIMEOUT = 30.0
# How often a running proxy looks for what other processes did, in seconds: one `open` of a local file.
WATCH_INTERVAL = 2.0


class TokenStore(Protocol):
    """A place for one login. ``read`` and ``write`` are each whole; ``lock`` spans a read, a renewal and a write."""

    description: str
    # How often to ask for its ``stamp``, in seconds; never where no other process has a hand in it.
    watch_interval: float

    @property
    def encryption(self) -> str:
        """How the stored record is encrypted, as far as is known by now."""

    async def read(self) -> Record | None:
        """Return the record, or ``None`` if there is none. Raises StoreError."""

    async def stamp(self) -> object:
        """Return what is no longer equal once the record was written or deleted, at little cost. Raises StoreError."""

    async def was_wiped(self) -> bool:
        """Tell, where there is no record, whether it was lost, not logged out. Raises StoreError."""

    async def had_login(self) -> bool:
        """Tell whether there is or ever was a login here, logged out, quarantined or lost since. Raises StoreError."""

    async def write(self, record: Record) -> None:
        """Store the record; on return it is on disk, where there is a disk.

        Raises:
            StaleWriteError: the stored record is newer.
            StoreError: it cannot be stored.
        """

    async def try_out(self) -> None:
        """Lock, write and read back beside the login, as storing one does. Raises StoreError where that fails."""

    async def delete(self) -> None:
        """Delete the record. Raises StoreError."""

    async def quarantine(self) -> str:
        """Move what is stored to another name, which is returned, and have no record. Raises StoreError."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Keep other processes from renewing this token. Raises StoreError when that takes too long."""

    async def close(self) -> None:
        """Let go of what the store holds open."""


def stale_write() -> StaleWriteError:
    """Return the error of a write that came too late."""
    return StaleWriteError("A newer token was stored meanwhile.", hint="It is used instead.")
