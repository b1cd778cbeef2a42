"""File store: the token in one private file, with a lock file beside it.

What cannot be read as a token is moved to another name, never deleted and never written over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

from slproxy.errors import DamagedError, StoreError
from slproxy.store import private_file
from slproxy.store.cipher import TokenCipher
from slproxy.store.private_file import store_error, sync_folder
from slproxy.store.record import Record
from slproxy.store.record_format import parse_record, serialize_record
from slproxy.store.token_store import WATCH_INTERVAL, stale_write

log = logging.getLogger("slproxy.store")

# What follows the name of a file that was quarantined.
ASIDE = ".aside-"


class FileStore:
    """A token in a file of its own."""

    def __init__(self, path: Path, cipher: TokenCipher | None = None) -> None:
        self.description = f"file {path}"
        self.watch_interval = WATCH_INTERVAL
        self._path = path
        # What a logout leaves: without it, a file that is not there was lost.
        self._logout_mark = path.with_name(path.name + ".logout")
        # What a login leaves, whatever becomes of it.
        self._login_mark = path.with_name(path.name + ".login")
        self._cipher = cipher or TokenCipher("off", key=None, keyring=lambda: None)

    @property
    def encryption(self) -> str:
        return self._cipher.description

    async def read(self) -> Record | None:
        return await asyncio.to_thread(self._read)

    async def stamp(self) -> object:
        return await asyncio.to_thread(private_file.stamp, self._path)

    async def was_wiped(self) -> bool:
        return not await asyncio.to_thread(private_file.any_exists, self._path, self._logout_mark)

    async def had_login(self) -> bool:
        return await asyncio.to_thread(self._had_login)

    async def write(self, record: Record) -> None:
        await asyncio.to_thread(self.write_blocking, record)

    async def try_out(self) -> None:
        async with self.lock():
            await asyncio.to_thread(self._try_out)

    async def delete(self) -> None:
        await asyncio.to_thread(self._delete)

    async def quarantine(self) -> str:
        return str(await asyncio.to_thread(self._quarantine, None))

    async def close(self) -> None:
        """Nothing is held open."""

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        from slproxy.store.file_lock import file_lock  # noqa: PLC0415  # whoever only reads does without its library

        async with file_lock(self._path.with_name(self._path.name + ".lock")):
            with contextlib.suppress(StoreError):  # whoever reads next is told
                await asyncio.to_thread(self._recover)
            yield

    def write_blocking(self, record: Record) -> None:
        """Do what ``write`` does, in this thread."""
        stored = self._read()
        if stored is not None and record.is_older_than(stored):
            raise stale_write()
        encrypted = self._cipher.encrypt(serialize_record(record))
        private_file.write(self._path, encrypted, then=self._mark_login)

    def _try_out(self) -> None:
        path = self._path.with_name(self._path.name + ".trial")
        private_file.delete(path)
        try:
            private_file.write(path, text := self._cipher.try_out())
            found = private_file.read(path)
        finally:
            private_file.delete(path)
        if found is None or found[0] != text:
            raise StoreError(f"{path} does not read back as it was written.", hint="Check the disk of the folder.")

    def _had_login(self) -> bool:
        if private_file.any_exists(self._login_mark, self._logout_mark):
            return True
        # Earlier versions left no mark, so that these are all there is to tell.
        had = private_file.any_exists(self._path, *private_file.beside(self._path, ASIDE))
        if had:
            with contextlib.suppress(OSError):  # whoever asks next tries again
                self._login_mark.touch(mode=0o600)
        return had

    def _mark_login(self) -> None:
        if not os.path.lexists(self._login_mark):
            self._login_mark.touch(mode=0o600)
        self._logout_mark.unlink(missing_ok=True)

    def _read(self) -> Record | None:
        found = private_file.read(self._path)
        if found is None:
            return None
        content, inode = found
        try:
            return parse_record(self._cipher.decrypt(content))
        except ValueError as error:
            aside = self._quarantine(inode)
            raise DamagedError(
                f"The token file {self._path} is damaged, or not one that this slproxy wrote.",
                hint=f"It was moved to {aside}. Run: slproxy login",
            ) from error

    def _quarantine(self, inode: int | None) -> Path:
        """Give the file another name; a file that is not the one with ``inode`` gets its name back."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self._path.with_name(f"{self._path.name}{ASIDE}{stamp}-{secrets.token_hex(3)}")
        try:
            self._login_mark.touch(mode=0o600)
            self._path.rename(aside)
            if inode is not None and aside.stat().st_ino != inode:
                aside.rename(self._path)
                raise StoreError(
                    f"The token file {self._path} was damaged, and has been replaced.", hint="Try it again."
                )
            sync_folder(self._path.parent)
        except OSError as error:
            raise store_error("move", self._path, error) from error
        return aside

    def _delete(self) -> None:
        try:
            if self._path.parent.is_dir():
                self._logout_mark.touch(mode=0o600)
                self._path.unlink(missing_ok=True)
                for unfinished in private_file.unfinished(self._path):
                    unfinished.unlink(missing_ok=True)
                sync_folder(self._path.parent)
        except OSError as error:
            raise store_error("remove", self._path, error) from error

    def _recover(self) -> None:
        """Store what a process that was killed had written, but not yet renamed: it may be the only token that works.

        Under the lock, so that nobody else is writing.
        """
        for unfinished in private_file.unfinished(self._path):
            # Nothing is deleted beside a file that is refused or cannot be decrypted.
            try:
                self._read()
            except DamagedError as error:  # it was quarantined, and this may be what followed it
                log.warning("%s %s", error.detail, error.hint)
            try:
                found = private_file.read(unfinished)
                record = None if found is None else parse_record(self._cipher.decrypt(found[0]))
            except StoreError:
                continue  # whoever has its key, or can read it, may recover it
            except ValueError:
                record = None
            try:
                if record is not None and self._is_renewed_by(record):
                    log.warning("a process was killed while it wrote %s; what it wrote is used", self._path)
                    unfinished.replace(self._path)
                    sync_folder(self._path.parent)
                else:
                    unfinished.unlink(missing_ok=True)
            except OSError as error:
                raise store_error("tidy", self._path, error) from error

    def _is_renewed_by(self, record: Record) -> bool:
        stored = self._read()
        if stored is None:
            # Only a logout leaves nothing on purpose; what was wiped otherwise is what this can make good.
            return not private_file.any_exists(self._logout_mark)
        return stored.belongs_to(record.owner) and stored.is_older_than(record)
