"""The token, or the key of its file, in the system's keyring, by the ``keyring`` library.

Its calls block, and may wait for a person to unlock it: they are made in threads.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import keyring
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.core import load_config
from keyring.errors import PasswordDeleteError

from slproxy.errors import DamagedError, StoreError
from slproxy.store.file_lock import file_lock
from slproxy.store.record import Record, parse_record, serialize_record
from slproxy.store.store import stale_write

# What the entries are filed under.
SERVICE = "slproxy"
# The keyring library's own mark for a backend that it recommends: encrypted, and there. Plain-text ones have less.
RECOMMENDED = 1
# What says on Linux that there may be a keyring: a desktop's bus, or somebody who chose one.
DESKTOP, CHOICE = "DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND"


class SystemKeyring:
    """The keyring of this machine's user."""

    def __init__(self, backend: KeyringBackend) -> None:
        self._backend = backend
        self.description = f"the keyring ({backend.name})"

    def get(self, name: str) -> str | None:
        """Return a secret, or ``None``. Raises StoreError when the keyring cannot be asked."""
        try:
            return self._backend.get_password(SERVICE, name)
        except Exception as error:  # plug-ins have no errors in common
            raise _failed(error) from error

    def set(self, name: str, value: str) -> None:
        """Keep a secret. Raises StoreError."""
        try:
            self._backend.set_password(SERVICE, name, value)
        except Exception as error:  # plug-ins have no errors in common
            raise _failed(error) from error

    def delete(self, name: str) -> None:
        """Forget a secret. Raises StoreError."""
        try:
            self._backend.delete_password(SERVICE, name)
        except PasswordDeleteError:
            return  # there was none
        except Exception as error:  # plug-ins have no errors in common
            raise _failed(error) from error


def _failed(error: Exception) -> StoreError:
    return StoreError(
        f"The system's keyring does not answer ({type(error).__name__}).",
        hint="Unlock it, check PYTHON_KEYRING_BACKEND, or set store.kind = file and store.encryption = off.",
    )


def find() -> SystemKeyring | None:
    """Return the keyring, or ``None`` where there is none: the one that somebody chose, or one that is recommended.

    Raises StoreError when the one that was chosen does not work.
    """
    try:
        chosen = CHOICE in os.environ or load_config() is not None
    except Exception as error:  # plug-ins have no errors in common
        raise _failed(error) from error
    if not chosen and sys.platform == "linux" and DESKTOP not in os.environ:
        return None  # the library would look for a while, and leave traces in /tmp, to find nothing
    try:
        backend = keyring.get_keyring()
        fit = not isinstance(backend, NoKeyring) and (chosen or backend.priority >= RECOMMENDED)
    except Exception as error:  # plug-ins have no errors in common
        raise _failed(error) from error
    if not fit:
        return None
    return SystemKeyring(backend)


class KeyringStore:
    """A token as an entry of the keyring, one a profile."""

    def __init__(self, profile: str, *, lock_path: Path) -> None:
        """``lock_path`` is where the OS lock goes: keyrings have none."""
        self.description = "the system's keyring"
        self.encryption = "protected by it"
        self._name = f"token-{profile}"
        self._lock_path = lock_path
        self._keyring: SystemKeyring | None = None

    async def read(self) -> Record | None:
        return await asyncio.to_thread(self._read)

    async def was_wiped(self) -> bool:
        return await asyncio.to_thread(lambda: not any(map(self._found().get, (self._name, f"{self._name}-logout"))))

    async def write(self, record: Record) -> None:
        await asyncio.to_thread(self._write, record)

    async def delete(self) -> None:
        await asyncio.to_thread(self._delete)

    async def quarantine(self) -> str:
        return await asyncio.to_thread(self._quarantine)

    async def close(self) -> None:
        """Nothing is held open."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        return file_lock(self._lock_path)

    def _read(self) -> Record | None:
        kept = self._found().get(self._name)
        if kept is None:
            return None
        try:
            return parse_record(kept.encode())
        except ValueError as error:
            aside = self._quarantine()
            raise DamagedError(
                f"The keyring's entry {SERVICE}/{self._name} is damaged. It was set aside as {aside}.",
                hint="Run: slproxy login",
            ) from error

    def _quarantine(self) -> str:
        kept = self._found().get(self._name)
        aside = f"{self._name}-aside-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        if kept is not None:
            self._found().set(aside, kept)
            self._found().delete(self._name)
        return aside

    def _write(self, record: Record) -> None:
        kept = self._read()
        if kept is not None and record.is_older_than(kept):
            raise stale_write()
        self._found().set(self._name, serialize_record(record).decode())
        self._found().delete(f"{self._name}-logout")

    def _delete(self) -> None:
        # What a logout leaves: without it, an entry that is not there has been lost.
        self._found().set(f"{self._name}-logout", "1")
        self._found().delete(self._name)

    def _found(self) -> SystemKeyring:
        if self._keyring is None:
            self._keyring = find()
        if self._keyring is None:
            raise StoreError(
                "store.kind = keyring, and this machine has no keyring that works.", hint="Set store.kind = file."
            )
        self.description = self._keyring.description
        return self._keyring
