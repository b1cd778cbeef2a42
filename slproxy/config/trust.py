"""Trust in a file that nobody named: only this user and root could have put it where it is."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path
from typing import NamedTuple

if sys.platform != "win32":
    import grp
    import pwd

# How many symbolic links a path may lead through: MAXSYMLINKS of Linux.
MAX_LINKS = 40

_ELSEWHERE = "work in a folder of your own"


class Distrust(NamedTuple):
    """Why a file is not trusted, and what ends that."""

    detail: str
    repair: str


def distrust(path: Path) -> Distrust | None:
    """Return how others could have put a file in its place, and the repair; None if they could not. Raises OSError."""
    status = path.stat()
    # A link counts for what it points to, and so does each folder on the way.
    for _ in range(MAX_LINKS):
        link = path.lstat()
        if (found := distrust_of(path.parent.stat(), path.parent)) is not None:
            return found
        if not stat.S_ISLNK(link.st_mode):
            break
        if not _is_ours(link):
            return _belongs_to_another(link, path)
        target = path.parent / path.readlink()
        path = target.parent.resolve() / target.name
    return distrust_of(status, path)


def distrust_of(status: os.stat_result, path: Path) -> Distrust | None:
    if not _is_ours(status):
        return _belongs_to_another(status, path)
    # A sticky folder is no better: in /tmp anyone may make a file that this user has not made yet.
    if sys.platform != "win32" and (
        status.st_mode & stat.S_IWOTH
        or (status.st_mode & stat.S_IWGRP and (_has_acl(path) or not _is_own_group(status.st_gid)))
    ):
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        repair = f"repair it: chmod go-w {shlex.quote(str(path))}"
        is_shared = status.st_mode & stat.S_ISVTX or status.st_uid != os.geteuid()
        return Distrust(f"others can write to {path} (mode {mode})", _ELSEWHERE if is_shared else repair)
    return None


def _is_own_group(gid: int) -> bool:
    """Tell whether a group has this user alone in it: with one for each user, a umask of 002 is common (Ubuntu's).

    Root's group is no such: its members are often listed elsewhere.
    """
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    if (user.pw_gid, user.pw_name) != (gid, group.gr_name) or gid == 0 or set(group.gr_mem) - {user.pw_name}:
        return False
    # Whose first group it is, is not among its members.
    return all(each.pw_gid != gid or each.pw_uid == user.pw_uid for each in pwd.getpwall())


def _has_acl(path: Path) -> bool:
    """Tell whether a list of users and groups goes with a mode, which then shows for the group what any of them may do.

    See acl(5).
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except OSError:  # it has none, or its file system keeps none
        return False


def _is_ours(status: os.stat_result) -> bool:
    return sys.platform == "win32" or status.st_uid in (os.geteuid(), 0)


def _belongs_to_another(status: os.stat_result, path: Path) -> Distrust:
    return Distrust(f"{path} belongs to another user (uid {status.st_uid})", _ELSEWHERE)
