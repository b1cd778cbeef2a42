"""A lock between processes, as a file."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from filelock import FileLock, Timeout

from slproxy.errors import StoreError
from slproxy.store.store import LOCK_TIMEOUT

log = logging.getLogger("slproxy.store")

# How often a lock that another process holds is asked for, in seconds.
LOCK_POLL = 0.02
# What a place answers that nobody can write to, as long as it lasts.
UNWRITABLE = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.ENOTDIR, errno.EEXIST}


@contextlib.asynccontextmanager
async def file_lock(path: Path, *, patience: float = LOCK_TIMEOUT) -> AsyncIterator[None]:
    """Hold an OS lock on ``path``, which is created; it ends with its holder. Raises StoreError.

    Whoever holds it for longer than ``patience``, in seconds, hangs: no renewal takes so long. The second lock then
    stands for it, and the generations see to it that nothing newer is overwritten when the holder wakes up.
    """
    try:
        lock = await _acquired(path, patience)
    except StoreError as error:
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in UNWRITABLE):
            raise
        # A disk that is full or read-only shall not end the renewals: what is renewed goes on in memory.
        log.warning("%s Locking in the folder for temporary files instead.", error.detail)
        lock = await _acquired(_elsewhere(path), patience)
    try:
        yield
    finally:
        lock.release()


async def _acquired(path: Path, patience: float) -> FileLock:
    for each in (path, path.with_name(path.name + ".2")):
        lock = FileLock(each, blocking=False, mode=0o600, thread_local=False, is_singleton=False)
        if await _acquired_within(lock, each, patience):
            return lock
        log.warning("another process has held the lock %s for %.0f s: does it hang?", each, patience)
    raise StoreError(
        f"Other processes have held the lock {path} for too long.",
        hint="Look for a slproxy that hangs, and end it; the lock goes with it.",
    )


def _elsewhere(path: Path) -> Path:
    """Return a lock's place in a folder of this user's own below that for temporary files. Raises StoreError."""
    folder = Path(tempfile.gettempdir()) / f"slproxy-{os.geteuid()}"
    try:
        make_folder(folder)
        status = folder.lstat()
    except OSError as error:
        raise store_failed("lock in", folder, error) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StoreError(f"{folder} is not this user's own folder.", hint="Remove it, or set TMPDIR.")
    return folder / f"{hashlib.sha256(bytes(path.absolute())).hexdigest()[:16]}.lock"


async def _acquired_within(lock: FileLock, path: Path, patience: float) -> bool:
    deadline = time.monotonic() + patience
    # Asked again and again, not waited for in a thread: who is cancelled here must not leave a lock behind that a
    # thread gets later.
    while not _acquires(lock, path):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOCK_POLL)
    return True


def _acquires(lock: FileLock, path: Path) -> bool:
    try:
        make_folder(path.parent)
        lock.acquire()
    except Timeout:
        return False
    except NotImplementedError as error:
        raise StoreError(
            f"The file system of {path} has no locks.", hint="Set store.path to a local folder."
        ) from error
    except OSError as error:
        raise store_failed("lock", path, error) from error
    return True


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, as far as they are missing, each for this user alone."""
    # One by one: `parents=True` makes all but the last by the umask alone, and who can write to a folder above can
    # replace the one below.
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def store_failed(verb: str, path: Path, error: OSError) -> StoreError:
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return StoreError(f"Cannot {verb} {path}: {reason}.", hint="Check the folder, its disk and its rights.")
