"""Private file: mode 0600, in a folder that nobody else can write to, written whole or not at all.

1. A write leaves either the old content or the new one: temporary file in the same folder, fsync, rename, fsync of the
   folder.
2. A looser mode, another owner or a symlink is refused with the command that repairs it; the umask does not matter.
3. What a file system cannot do is told by its name, and with what helps (docs/filesystems.md, Calls).
"""

from __future__ import annotations

import errno
import glob
import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from slproxy.errors import StoreError

# What helps, by the error of a system call; for any other, `RIGHTS`.
_LOCAL = "Set store.path to a folder on a local disk, or use store.kind = redis."
_SPACE = "Make room there, or set store.path to another disk."
HINTS = MappingProxyType(
    {
        **dict.fromkeys((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL), _LOCAL),
        **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE),
        errno.EROFS: "It is mounted read-only: mount it writable, or set store.path to a folder that is.",
        **dict.fromkeys((errno.EBUSY, errno.EXDEV), "If the file itself is mounted, mount its folder instead."),
        **dict.fromkeys(
            (errno.EIO, errno.ESTALE, errno.ETIMEDOUT), "Check the disk, or the server that it is mounted from."
        ),
        **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Let the process open more files: ulimit -n."),
        **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP), "Set store.path to another place."),
    }
)
RIGHTS = "Check the permissions of the folder and those above it, or set store.path to a folder of your own."
# What a file system answers that cannot sync a folder: there a rename is as safe as it gets.
UNSYNCABLE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF})


def read(path: Path) -> tuple[bytes, int] | None:
    """Return the content and the inode of a file, or ``None`` where there is none. Raises StoreError."""
    if (descriptor := _open(path)) is None:
        return None
    try:
        status = os.fstat(descriptor)
        _check_file(path, status)
        _check_folder(path.parent)
        with open(descriptor, "rb", closefd=False) as file:  # a descriptor, not a path
            return file.read(), status.st_ino
    except OSError as error:
        raise store_error("read", path, error) from error
    finally:
        os.close(descriptor)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what tells whether a file was written since, or ``None`` where there is none. Raises StoreError.

    It is opened for that: the cache of a mount may be old, and is asked about at each open (nfs(5), close-to-open).
    """
    if (descriptor := _open(path)) is None:
        return None
    try:
        status = os.fstat(descriptor)
    except OSError as error:
        raise store_error("read", path, error) from error
    finally:
        os.close(descriptor)
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def _open(path: Path) -> int | None:
    """Open a file to read, if there is one. Raises StoreError."""
    try:
        # O_NOFOLLOW: a symlink could point the token's place at somebody else's file.
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if os.path.islink(path):  # noqa: PTH114  # which does not raise in a folder of somebody else's
            raise StoreError(
                f"The token file {path} is a symbolic link.",
                hint="Set store.path to the file itself, or remove the link and run: slproxy login",
            ) from error
        raise store_error("read", path, error) from error


def _check_file(path: Path, status: os.stat_result) -> None:
    """Refuse a file that somebody else could have read or written."""
    quoted = shlex.quote(str(path))
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"The token file {path} is not a regular file.", hint="Set store.path to another.")
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"The token file {path} belongs to another user.",
            hint=f"Run as its owner, or repair it: sudo chown {os.geteuid()} {quoted}",
        )
    if status.st_mode & 0o077:
        raise StoreError(
            f"The token file {path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}).",
            hint=f"Repair it: chmod 600 {quoted}",
        )


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which somebody else could replace the file."""
    status = folder.stat()
    quoted = shlex.quote(str(folder))
    if status.st_uid not in (os.geteuid(), 0):
        raise StoreError(
            f"The folder {folder} of the token file belongs to another user.",
            hint=f"Set store.path to a folder of your own, or repair it: sudo chown {os.geteuid()} {quoted}",
        )
    if status.st_mode & 0o022:
        # Only its owner can change that: not who was let in by a group, as to a volume of Kubernetes' fsGroup.
        mine = status.st_uid == os.geteuid() or os.geteuid() == 0
        raise StoreError(
            f"Others can write to the folder {folder} of the token file.",
            hint=f"Repair it: chmod go-w {quoted}"
            if mine
            else f"Set store.path to a file in a folder below it, such as {folder}/slproxy/token.json: slproxy makes"
            " that for this user alone.",
        )


def check_made(path: Path, status: os.stat_result) -> None:
    """Refuse a file that was made for this user alone, and is not: nobody could repair it."""
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise StoreError(
            f"The file system of {path.parent} keeps neither owner nor mode: a file of user {os.geteuid()} with mode"
            f" 0600 is one of user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o} there.",
            hint=f"{_LOCAL} Or mount it for this user alone: uid={os.geteuid()},file_mode=0600,dir_mode=0700 (SMB),"
            f" uid={os.geteuid()},umask=077 (FAT).",
        )


def write(path: Path, content: bytes, *, then: Callable[[], object] = lambda: None) -> None:
    """Replace the content of a file, and do something else in its folder before that is synced. Raises StoreError."""
    import tempfile  # noqa: PLC0415  # takes its time to load, and most commands only read

    try:
        make_folder(path.parent)
        _check_folder(path.parent)
        # mkstemp creates with 0600 whatever the umask, and refuses to follow what is there.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            check_made(path, os.fstat(descriptor))
            with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
            then()
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise store_error("write", path, error) from error


def delete(path: Path) -> None:
    """Delete a file, if there is one. Raises StoreError."""
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise store_error("remove", path, error) from error


def any_exists(*paths: Path) -> bool:
    """Tell whether there is a file, or a link, at one of the paths. Raises StoreError where that cannot be seen."""
    for path in paths:
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise store_error("look for", path, error) from error
        return True
    return False


def unfinished(path: Path) -> list[Path]:
    """Return the temporary files of writes that did not come to their end."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.{'?' * 8}"))  # as mkstemp(3) names them


def beside(path: Path, ending: str) -> list[Path]:
    """Return the files beside a file whose names go on with ``ending``."""
    return list(path.parent.glob(f"{glob.escape(path.name + ending)}*"))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, as far as they are missing, each for this user alone."""
    # One by one: `parents=True` makes all but the last by the umask alone, and who can write to a folder above can
    # replace the one below.
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut (fsync(2): a file's fsync does not reach its folder entry)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSYNCABLE:
            raise
    finally:
        os.close(descriptor)


def store_error(verb: str, path: Path, error: OSError) -> StoreError:
    """Return the error of a file that the system does not let us read or write."""
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return StoreError(f"Cannot {verb} {path}: {reason}.", hint=HINTS.get(error.errno or 0, RIGHTS))
