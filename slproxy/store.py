"""The token at rest.

1. A write leaves either the old record or the new one, whole: temporary file in the same folder, fsync, rename, fsync
   of the folder.
2. Only the user may read or replace the file. A looser mode, another owner or a symlink is refused with the command
   that repairs it; the umask does not matter.
3. A lock that dies with its holder keeps two processes from renewing one token at the same time.
4. A record belongs to one client at one accounts host, in one profile. Whoever else asks gets none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import stat
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from slproxy.errors import StoreError
from slproxy.oauth import Token

# What the file calls itself; another number is another program's, or a later version's.
FORMAT = "slproxy-token-1"
# A holder that hangs blocks nobody for longer than this, in seconds.
LOCK_TIMEOUT = 30.0
LOCK_POLL = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A login as it is kept: whose it is, the token, and how often it was renewed.

    ``refused`` holds the error of a refresh token that is dead, so that no start tries it again.
    """

    client_id: str
    accounts_url: str
    token: Token
    profile: str = "default"
    generation: int = 1
    refused: str = ""

    def belongs_to(self, client_id: str, accounts_url: str, profile: str) -> bool:
        """Tell whether this login is of that client at that accounts host, in that profile."""
        return (self.client_id, self.accounts_url, self.profile) == (client_id, accounts_url, profile)

    def renewed(self, token: Token) -> Record:
        """Return the record of the next generation."""
        return replace(self, token=token, generation=self.generation + 1, refused="")


class TokenStore(Protocol):
    """Where a login is kept. ``read`` and ``write`` are each whole; ``lock`` spans a read, a renewal and a write."""

    description: str

    async def read(self) -> Record | None:
        """Return the record, or ``None`` if there is none. Raises StoreError."""

    async def write(self, record: Record) -> None:
        """Keep the record; on return it is on disk, where there is a disk. Raises StoreError."""

    async def forget(self) -> None:
        """Remove the record. Raises StoreError."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Keep other processes from renewing this token. Raises StoreError when that takes too long."""


class MemoryStore:
    """Forgets with the process: for containers with an API key or client credentials, and for the sandbox."""

    def __init__(self, record: Record | None = None) -> None:
        self.description = "memory"
        self._record = record
        self._lock = asyncio.Lock()

    async def read(self) -> Record | None:
        return self._record

    async def write(self, record: Record) -> None:
        self._record = record

    async def forget(self) -> None:
        self._record = None

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        async with self._lock:
            yield


class FileStore:
    """One file, mode 0600, in a folder that nobody else can write to."""

    def __init__(self, path: Path) -> None:
        self.description = f"file {path}"
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")

    async def read(self) -> Record | None:
        return await asyncio.to_thread(self._read)

    async def write(self, record: Record) -> None:
        await asyncio.to_thread(self._write, record)

    async def forget(self) -> None:
        await asyncio.to_thread(self._forget)

    @contextlib.asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        lock = FileLock(self._lock_path, blocking=False, mode=0o600, thread_local=False, is_singleton=False)
        deadline = time.monotonic() + LOCK_TIMEOUT
        # Asked again and again, not waited for in a thread: who is cancelled here must not leave a lock behind that a
        # thread gets later.
        while not self._acquires(lock):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Another process has held the lock {self._lock_path} for {LOCK_TIMEOUT:.0f} s.",
                    hint="Look for a slproxy that hangs, and end it; the lock goes with it.",
                )
            await asyncio.sleep(LOCK_POLL)
        try:
            yield
        finally:
            lock.release()

    def _acquires(self, lock: FileLock) -> bool:
        try:
            self._make_folder()
            lock.acquire()
        except Timeout:
            return False
        except NotImplementedError as error:
            raise StoreError(
                f"The file system of {self._lock_path} has no locks.", hint="Set store.path to a local folder."
            ) from error
        except OSError as error:
            raise _failed("lock", self._lock_path, error) from error
        return True

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
            raise _failed("read", self._path, error) from error
        try:
            self._trust(os.fstat(descriptor))
            self._trust_folder()
            with open(descriptor, "rb", closefd=False) as file:  # a descriptor, not a path
                content = file.read()
        except OSError as error:
            raise _failed("read", self._path, error) from error
        finally:
            os.close(descriptor)
        return self._record_in(content)

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

    def _record_in(self, content: bytes) -> Record:
        try:
            return _decoded(content)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise StoreError(
                f"The token file {self._path} is not one that this slproxy wrote, or is damaged.",
                hint=f"Move it away, for example to {self._path.name}.bad, and run: slproxy login",
            ) from error

    def _make_folder(self) -> None:
        # One by one: `parents=True` makes all but the last by the umask alone, and who can write to a folder above can
        # replace the one below.
        folder = self._path.parent
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)

    def _write(self, record: Record) -> None:
        folder = self._path.parent
        try:
            self._make_folder()
            self._trust_folder()
            # mkstemp creates with 0600 whatever the umask, and refuses to follow what is there.
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{self._path.name}.")
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
                    file.write(_encoded(record))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            _sync_folder(folder)
        except OSError as error:
            raise _failed("write", self._path, error) from error

    def _forget(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
            if self._path.parent.is_dir():
                _sync_folder(self._path.parent)
        except OSError as error:
            raise _failed("remove", self._path, error) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (fsync(2): a file's fsync does not reach its folder entry)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(verb: str, path: Path, error: OSError) -> StoreError:
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return StoreError(f"Cannot {verb} {path}: {reason}.", hint="Check the folder, its disk and its rights.")


def _encoded(record: Record) -> bytes:
    token = record.token
    document = {
        "format": FORMAT,
        "client_id": record.client_id,
        "accounts_url": record.accounts_url,
        "profile": record.profile,
        "generation": record.generation,
        "refused": record.refused,
        "access_token": token.access_token,
        "refresh_token": token.refresh_token,
        "obtained_at": token.obtained_at,
        "expires_at": token.expires_at,
        "scope": token.scope,
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _decoded(content: bytes) -> Record:
    """Return the record that ``_encoded`` wrote. Raises what Python raises for anything else."""
    document = json.loads(content)
    if document["format"] != FORMAT:
        raise ValueError("another format")
    expires_at, refresh_token = document["expires_at"], document["refresh_token"]
    return Record(
        client_id=_text(document["client_id"]),
        accounts_url=_text(document["accounts_url"]),
        profile=_text(document["profile"]),
        generation=int(document["generation"]),
        refused=_text(document["refused"]),
        token=Token(
            access_token=_text(document["access_token"]),
            refresh_token=None if refresh_token is None else _text(refresh_token),
            obtained_at=float(document["obtained_at"]),
            expires_at=None if expires_at is None else float(expires_at),
            scope=_text(document["scope"]),
        ),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
