"""File lock: keeps other processes from renewing the same token."""

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
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout

from slproxy.errors import StoreError
from slproxy.store.private_file import HINTS, make_folder, store_error
from slproxy.store.token_store import LOCK_TIMEOUT

log = logging.getLogger("slproxy.store")

# How often a lock that another process holds is asked for, in seconds.
LOCK_POLL = 0.02
# The errors of a place that nobody can write to.
UNWRITABLE = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.ENOTDIR, errno.EEXIST}
# The errors of a file system without locks; an NFS without its lock service answers ENOLCK.
LOCKLESS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
# Newer versions of filelock would take a file's existence for a lock, which outlives a holder that is killed.
_NO_SUBSTITUTE: Mapping[str, bool] = MappingProxyType(
    {"fallback_to_soft": False} if hasattr(FileLock, "fallback_to_soft") else {}
)


@contextlib.asynccontextmanager
async def file_lock(path: Path, *, max_wait: float = LOCK_TIMEOUT) -> AsyncIterator[None]:
    """Hold an OS lock on ``path``, which is created; it ends with its holder. Raises StoreError.

    A holder that keeps it for longer than ``max_wait``, in seconds, hangs: no renewal takes so long. A second lock then
    stands in for it; when the holder wakes up, the store refuses its write, which is stale.
    """
    try:
        lock = await _acquire(path, max_wait)
    except StoreError as error:
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in UNWRITABLE):
            raise
        # Renewals go on, in memory, while a disk is full or read-only.
        log.warning("%s Locking in the folder for temporary files instead.", error.detail)
        lock = await _acquire(_temporary_place(path), max_wait)
    try:
        yield
    finally:
        lock.release()


async def _acquire(path: Path, max_wait: float) -> FileLock:
    for each in (path, path.with_name(path.name + ".2")):
        lock = FileLock(
            each,
            blocking=False,
            mode=0o600,
            thread_local=False,
            is_singleton=False,
            **_NO_SUBSTITUTE,  # type: ignore[arg-type]  # one option, which the oldest version does not have
        )
        if await _acquire_within(lock, each, max_wait):
            return lock
        log.warning("another process has held the lock %s for %.0f s: does it hang?", each, max_wait)
    raise StoreError(
        f"Other processes have held the lock {path} for too long.",
        hint="Find the slproxy that hangs, and end it: that releases the lock.",
    )


def _temporary_place(path: Path) -> Path:
    """Return a lock's place in a folder of this user's own below that for temporary files. Raises StoreError."""
    folder = Path(tempfile.gettempdir()) / f"slproxy-{os.geteuid()}"
    try:
        make_folder(folder)
        status = folder.lstat()
    except OSError as error:
        raise store_error("lock in", folder, error) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StoreError(f"{folder} is not this user's own folder.", hint="Remove it, or set TMPDIR.")
    return folder / f"{hashlib.sha256(bytes(path.absolute())).hexdigest()[:16]}.lock"


async def _acquire_within(lock: FileLock, path: Path, max_wait: float) -> bool:
    deadline = time.monotonic() + max_wait
    # Asked again and again, not waited for in a thread: whoever is cancelled here must not leave a lock behind that a
    # thread gets later.
    while not _try_to_acquire(lock, path):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOCK_POLL)
    return True


def _try_to_acquire(lock: FileLock, path: Path) -> bool:
    try:
        make_folder(path.parent)
        lock.acquire()
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        error = error if isinstance(error, OSError) else OSError(errno.ENOSYS, "")
        if error.errno in LOCKLESS:
            raise StoreError(
                f"The file system of {path.parent} has no locks ({os.strerror(error.errno)}): two processes would renew"
                " one token, and lose it.",
                hint=HINTS[error.errno],
            ) from error
        raise store_error("lock", path, error) from error
    return True
