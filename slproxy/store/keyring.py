"""Keyring store: the token as an entry of the system's keyring."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from slproxy.errors import DamagedError, StoreError
from slproxy.store.cipher import TRIAL
from slproxy.store.file_lock import file_lock
from slproxy.store.private_file import any_exists, stamp
from slproxy.store.record import Record
from slproxy.store.record_format import parse_record, serialize_record
from slproxy.store.system_keyring import SERVICE, SystemKeyring, find
from slproxy.store.token_store import WATCH_INTERVAL, stale_write


class KeyringStore:
    """A token as an entry of the keyring, one a profile."""

    def __init__(self, profile: str, *, lock_path: Path) -> None:
        """``lock_path`` is where the OS lock goes: keyrings have none."""
        self.description = "the system's keyring"
        self.encryption = "protected by it"
        self.watch_interval = WATCH_INTERVAL
        self._name = f"token-{profile}"
        self._lock_path = lock_path
        # What a login leaves beside the lock as well: a keyring may be made anew, or be another one. Its time tells of
        # changes, for which no keyring is asked again and again.
        self._login_mark = lock_path.with_suffix(".login")
        self._found: SystemKeyring | None = None

    async def read(self) -> Record | None:
        return await asyncio.to_thread(self._read)

    async def stamp(self) -> object:
        return await asyncio.to_thread(stamp, self._login_mark)

    async def was_wiped(self) -> bool:
        return await asyncio.to_thread(lambda: not any(map(self._keyring().get, (self._name, f"{self._name}-logout"))))

    async def had_login(self) -> bool:
        return await asyncio.to_thread(self._had_login)

    async def write(self, record: Record) -> None:
        await asyncio.to_thread(self._write, record)

    async def try_out(self) -> None:
        async with self.lock():
            await asyncio.to_thread(self._try_out)

    async def delete(self) -> None:
        await asyncio.to_thread(self._delete)

    async def quarantine(self) -> str:
        return await asyncio.to_thread(self._quarantine)

    async def close(self) -> None:
        """Nothing is held open."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        return file_lock(self._lock_path)

    def _read(self) -> Record | None:
        stored = self._keyring().get(self._name)
        if stored is None:
            return None
        try:
            return parse_record(stored.encode())
        except ValueError as error:
            aside = self._quarantine()
            raise DamagedError(
                f"The keyring's entry {SERVICE}/{self._name} is damaged. It was moved to {aside}.",
                hint="Run: slproxy login",
            ) from error

    def _quarantine(self) -> str:
        stored = self._keyring().get(self._name)
        aside = f"{self._name}-aside-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
        if stored is not None:
            self._keyring().set(aside, stored)
            self._mark_login()
            self._keyring().delete(self._name)
        return aside

    def _write(self, record: Record) -> None:
        stored = self._read()
        if stored is not None and record.is_older_than(stored):
            raise stale_write()
        keyring = self._keyring()
        earlier = keyring.get(self._name)
        try:
            # In one line: some keyrings keep no more of a secret.
            keyring.set(self._name, serialize_record(record).decode().replace("\n", ""))
        except StoreError:
            with contextlib.suppress(StoreError):  # it goes the same way, or is still there
                keyring.delete(self._name) if earlier is None else keyring.set(self._name, earlier)
            raise
        self._mark_login()
        self._keyring().delete(f"{self._name}-logout")
        self._mark_change()

    def _mark_change(self) -> None:
        with contextlib.suppress(OSError):  # as good as the keyring's own, where there is a folder
            self._login_mark.touch(mode=0o600)

    def _mark_login(self) -> None:
        if not any_exists(self._login_mark):
            self._mark_change()
        if self._keyring().get(f"{self._name}-login") is None:
            self._keyring().set(f"{self._name}-login", "1")

    def _had_login(self) -> bool:
        names = (self._name, f"{self._name}-login", f"{self._name}-logout")
        had = any(map(self._keyring().get, names)) or any_exists(self._login_mark)
        if had:
            with contextlib.suppress(StoreError):  # earlier versions left no mark; whoever asks next tries again
                self._mark_login()
        return had

    def _try_out(self) -> None:
        name = f"{self._name}-trial"
        try:
            self._keyring().set(name, TRIAL.decode())
        finally:
            with contextlib.suppress(StoreError):  # a leftover is no login
                self._keyring().delete(name)

    def _delete(self) -> None:
        # What a logout leaves: without it, an entry that is not there was lost.
        self._keyring().set(f"{self._name}-logout", "1")
        self._keyring().delete(self._name)
        self._mark_change()

    def _keyring(self) -> SystemKeyring:
        if self._found is None:
            self._found = find()
        if self._found is None:
            raise StoreError(
                "store.kind = keyring, and this machine has no keyring that works.", hint="Set store.kind = file."
            )
        self.description = self._found.description
        return self._found
