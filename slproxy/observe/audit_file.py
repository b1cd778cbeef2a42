"""Audit file: lines appended whole, each by one system call, and none lost without a word.

1. ``O_APPEND`` and one write(2) a line: lines of several processes do not mix, and each outlives its process.
2. The file is this user's alone (0600); a symlink, another owner or a looser mode is refused, as for the token's file.
3. What a full disk has cut is completed before anything else is written; what it has kept out is counted, and a line
   says how many were lost once there is room again.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

from slproxy.errors import ConfigError

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class AuditFile:
    """A file that lines are appended to; ``gap`` words how many were lost. It is opened when first needed."""

    def __init__(self, path: Path, *, gap: Callable[[int], bytes]) -> None:
        self.path = path
        self._gap = gap
        self._descriptor: int | None = None
        # Why the last line could not be written, or not to its end; None where it was.
        self.fault: str | None = None
        # The rest of a line that was cut, and the lines of which nothing was written since.
        self._rest = b""
        self.lost = 0

    def open(self) -> None:
        """Open the file, or open it anew, as after it was rotated. Raises ConfigError; then what was open stays so."""
        descriptor = self._opened()
        self.close()
        self._descriptor = descriptor
        # What was cut stays cut in the file that was open before.
        self.lost += self._rest not in (b"", b"\n")
        size = os.fstat(descriptor).st_size
        # A process that died while the disk was full has left the beginning of a line.
        self._rest = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
        if self._rest or self.lost:
            self.catch_up()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, line: bytes) -> bool:
        """Append a line; return whether all of it is in the file. Takes some microseconds, on a local disk."""
        if (self.fault is not None or self._descriptor is None) and not self.catch_up():
            self.lost += 1
            return False
        left = self._write(line)
        if len(left) == len(line):
            self.lost += 1
        else:
            # Of a line that was begun the rest is kept: nothing else may come before its end.
            self._rest = left
        return not left

    def catch_up(self) -> bool:
        """Complete what was cut, and tell what was lost; return whether the file takes lines again."""
        if self._descriptor is None:
            try:
                self.open()
            except ConfigError as error:
                self.fault = error.detail
                return False
        if left := self._write(self._rest):
            self._rest = left
            return False
        self._rest = b""
        if self.lost:
            note = self._gap(self.lost)
            left = self._write(note)
            if len(left) == len(note):
                return False
            self._rest, self.lost = left, 0
            if left:
                return False
        self.fault = None
        return True

    def _write(self, data: bytes) -> bytes:
        """Write data, in one call unless the disk fills up; return what could not be."""
        assert self._descriptor is not None, "opened before"
        while data:
            try:
                written = os.write(self._descriptor, data)
            except OSError as error:
                self.fault = os.strerror(error.errno or 0)
                return data
            if written == len(data):
                return b""
            data = data[written:]
        return b""

    def _opened(self) -> int:
        """Open the file, which is made if there is none. Raises ConfigError."""
        quoted = shlex.quote(str(self.path))
        try:
            descriptor = os.open(self.path, _FLAGS, 0o600)
        except OSError as error:
            if self.path.is_symlink():
                raise ConfigError(
                    f"log.audit: {self.path} is a symbolic link.", hint="Name the file itself, or remove the link."
                ) from error
            raise ConfigError(
                f"log.audit: {self.path} cannot be opened: {os.strerror(error.errno or 0)}.",
                hint="Name a file in a folder that exists and is this user's.",
            ) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"log.audit: {self.path} is not a regular file.", hint="Name another.")
            if status.st_uid != os.geteuid():
                raise ConfigError(
                    f"log.audit: {self.path} belongs to another user.",
                    hint=f"Run as its owner, or repair it: sudo chown {os.geteuid()} {quoted}",
                )
            if status.st_mode & 0o077:
                raise ConfigError(
                    f"log.audit: {self.path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}).",
                    hint=f"Repair it: chmod 600 {quoted}",
                )
        except ConfigError:
            os.close(descriptor)
            raise
        return descriptor
