"""The token in a file: one file, mode 0600, in a folder that nobody else can write to.

1. A write leaves either the old record or the new one, whole: temporary file in the same folder, fsync, rename, fsync
   of the folder.
2. Only the user may read or replace the file. A looser mode, another owner or a symlink is refused with the command
   that repairs it; the umask does not matter.
3. What cannot be read as a token is set aside under another name, never deleted and never written over.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import logging
import os
import secrets
import shlex
import stat
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from slproxy.errors import DamagedError, StoreError
from slproxy.store.encryption import TokenCipher
from slproxy.store.file_lock import file_lock, make_folder, store_failed
from slproxy.store.record import Record, parse_record, serialize_record
from slproxy.store.store import stale_write

log = logging.getLogger("slproxy.store")


class FileStore:
    """A token in a file of its own."""

    def __init__(self, path: Path, cipher: TokenCipher | None = None) -> None:
        self.description = f"file {path}"
        self._path = path
        # What a logout leaves: without it, a file that is not there has been lost.
        self._logout_mark = path.with_name(path.name + ".logout")
        self._cipher = cipher or TokenCipher("off", key=None, keyring=lambda: None)

    @property
    def encryption(self) -> str:
        return self._cipher.description

    async def read(self) -> Record | None:
        return await asyncio.to_thread(self._read)

    async def was_wiped(self) -> bool:
        return not await asyncio.to_thread(lambda: os.path.lexists(self._path) or self._logout_mark.exists())

    async def write(self, record: Record) -> None:
        await asyncio.to_thread(self._write, record)

    async def delete(self) -> None:
        await asyncio.to_thread(self._delete)

    async def quarantine(self) -> str:
        return str(await asyncio.to_thread(self._quarantine, None))

    async def close(self) -> None:
        """Nothing is held open."""

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        async with file_lock(self._path.with_name(self._path.name + ".lock")):
            with contextlib.suppress(StoreError):  # whoever reads next is told
                await asyncio.to_thread(self._finish)
            yield

    def _read(self) -> Record | None:
        try:
            # O_NOFOLLOW: a symlink could point the token's place at somebody else's file.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._path.is_symlink():
                raise StoreError(
                    f"The token file {self._path} is a symbolic link.",
                    hint="Set store.path to the file itself, or remove the link and run: slproxy login",
                ) from error
            raise store_failed("read", self._path, error) from error
        try:
            status = os.fstat(descriptor)
            self._trust(status)
            self._trust_folder()
            with open(descriptor, "rb", closefd=False) as file:  # a descriptor, not a path
                content = file.read()
        except OSError as error:
            raise store_failed("read", self._path, error) from error
        finally:
            os.close(descriptor)
        return self._record_in(content, status.st_ino)

    def _trust(self, status: os.stat_result) -> None:
        """Refuse a file that somebody else could have read or written."""
        quoted = shlex.quote(str(self._path))
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"The token file {self._path} is not a regular file.", hint="Set store.path to another.")
        if status.st_uid != os.geteuid():
            raise StoreError(
                f"The token file {self._path} belongs to another user.",
                hint=f"Run as its owner, or repair it: sudo chown {os.geteuid()} {quoted}",
            )
        if status.st_mode & 0o077:
            raise StoreError(
                f"The token file {self._path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}).",
                hint=f"Repair it: chmod 600 {quoted}",
            )

    def _trust_folder(self) -> None:
        """Refuse a folder in which somebody else could replace the file."""
        folder = self._path.parent
        status = folder.stat()
        quoted = shlex.quote(str(folder))
        if status.st_uid not in (os.geteuid(), 0):
            raise StoreError(
                f"The folder {folder} of the token file belongs to another user.",
                hint=f"Set store.path to a folder of your own, or repair it: sudo chown {os.geteuid()} {quoted}",
            )
        if status.st_mode & 0o022:
            raise StoreError(
                f"Others can write to the folder {folder} of the token file.",
                hint=f"Repair it: chmod go-w {quoted}",
            )

    def _record_in(self, content: bytes, inode: int) -> Record:
        try:
            return parse_record(self._cipher.decrypt(content))
        except ValueError as error:
            aside = self._quarantine(inode)
            raise DamagedError(
                f"The token file {self._path} is damaged, or not one that this slproxy wrote.",
                hint=f"It was set aside as {aside}. Run: slproxy login",
            ) from error

    def _quarantine(self, inode: int | None) -> Path:
        """Give the file another name; a file that is not the one with ``inode`` gets its name back."""
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self._path.with_name(f"{self._path.name}.aside-{stamp}-{secrets.token_hex(3)}")
        try:
            self._path.rename(aside)
            if inode is not None and aside.stat().st_ino != inode:
                aside.rename(self._path)
                raise StoreError(
                    f"The token file {self._path} was damaged, and has been replaced.", hint="Try it again."
                )
            _sync_folder(self._path.parent)
        except OSError as error:
            raise store_failed("set aside", self._path, error) from error
        return aside

    def _write(self, record: Record) -> None:
        folder = self._path.parent
        kept = self._read()
        if kept is not None and record.is_older_than(kept):
            raise stale_write()
        encrypted = self._cipher.encrypt(serialize_record(record))
        try:
            make_folder(folder)
            self._trust_folder()
            # mkstemp creates with 0600 whatever the umask, and refuses to follow what is there.
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{self._path.name}.")
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
                    file.write(encrypted)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._path)
                self._logout_mark.unlink(missing_ok=True)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            _sync_folder(folder)
        except OSError as error:
            raise store_failed("write", self._path, error) from error

    def _delete(self) -> None:
        try:
            if self._path.parent.is_dir():
                self._logout_mark.touch(mode=0o600)
                self._path.unlink(missing_ok=True)
                for unfinished in self._unfinished():
                    unfinished.unlink(missing_ok=True)
                _sync_folder(self._path.parent)
        except OSError as error:
            raise store_failed("remove", self._path, error) from error

    def _unfinished(self) -> list[Path]:
        """Return the temporary files of writes that did not come to their end."""
        return list(self._path.parent.glob(f".{glob.escape(self._path.name)}.{'?' * 8}"))  # as mkstemp(3) names them

    def _finish(self) -> None:
        """Take up what a process that was killed had written, but not yet renamed: it may be the only living token.

        Under the lock, so that nobody else is writing.
        """
        for unfinished in self._unfinished():
            try:
                record = parse_record(self._cipher.decrypt(unfinished.read_bytes()))
            except StoreError:
                continue  # whoever has its key may take it up
            except (OSError, ValueError):
                record = None
            try:
                kept = self._read()
                if (
                    record is not None
                    and kept is not None
                    and kept.belongs_to(*record.owner)
                    and kept.is_older_than(record)
                ):
                    log.warning("a process was killed while it wrote %s; what it wrote is taken up", self._path)
                    unfinished.replace(self._path)
                    _sync_folder(self._path.parent)
                else:
                    unfinished.unlink(missing_ok=True)
            except OSError as error:
                raise store_failed("tidy", self._path, error) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (fsync(2): a file's fsync does not reach its folder entry)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
