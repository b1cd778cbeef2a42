"""Files that settings come from, and the folders of the user: all that ``config`` opens.

Every failure is a ConfigError that names the file.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from slproxy.config.api_key import may_be_secret
from slproxy.config.messages import redacted
from slproxy.config.schema import KIB
from slproxy.config.trust import distrust, distrust_of
from slproxy.errors import ConfigError

if TYPE_CHECKING:
    from platformdirs import PlatformDirs

# Far above any key or token; a larger file is not a secret but a mistake, such as a log or a disk image.
SECRET_FILE_MAX = 64 * KIB
# In the place of a folder that this user has none of: nothing is below it.
NOWHERE = Path(os.devnull)
# How much of a file that does not count is looked at, in bytes.
MAX_UNTRUSTED = 1024 * KIB


def read(path: Path, what: str) -> bytes | None:
    """Return the content of a file, less a byte order mark, or None if it does not exist. Raises ConfigError."""
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, what) from error


def is_below(path: Path, folder: Path) -> bool:
    """Tell whether a file is in a folder, or below it, whatever links lead there."""
    return path.parent.resolve().is_relative_to(folder.resolve())


def read_found(path: Path, what: str, *, accept: str, matters: Callable[[bytes], bool] | None = None) -> bytes | None:
    """Return the content of a file that nobody named, or None if it does not exist.

    It counts only if nobody but this user and root could have put it there: else whoever shares a folder with this user
    decides where the token goes. To leave it out without a word would be no better: it may hold ``read_only = true``.
    One that others could have written, and of whose content nothing ``matters``, is as good as none.

    Raises:
        ConfigError: others could have written it; ``accept`` says how to let it count nonetheless.
    """
    try:
        reason = distrust(path)
        if _is_null(path):
            return None
        if reason is None:
            with path.open("rb") as file:
                # What was opened is what counts: it may be another file by now.
                reason = distrust_of(os.fstat(file.fileno()), path)
                content = file.read()
            if reason is None:
                return content.removeprefix(codecs.BOM_UTF8)
        if matters is not None and not _matters(path, matters):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, what) from error
    raise ConfigError(
        f"{what} {path} was found, not named, and {reason.detail}",
        hint=f"{accept} if you trust it, or {reason.repair}",
    )


def _is_null(path: Path) -> bool:
    """Tell whether it is the null device, which hides a file of a folder that is mounted in a container."""
    status = path.stat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev


def _matters(path: Path, matters: Callable[[bytes], bool]) -> bool:
    """Tell whether what a file that is not trusted holds matters, without waiting for it or taking all of it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return not is_file or matters(file.read(MAX_UNTRUSTED))


def _unreadable(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{what} cannot be read: {path}", hint="it must be a file that this user may read")


def decode_text(content: bytes, label: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise ConfigError(f"{label}:{line}:{column}: is not UTF-8", hint="save the file as UTF-8") from error


def read_secret(path: Path, name: str) -> str:
    """Return the secret in a file, less the line end that editors and ``echo`` add. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: the file does not exist", hint="fix the path, or mount the file") from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name}: the file cannot be read",
            hint=f"it must be a file that this user (uid {os.geteuid()}) may read, in folders that it may enter",
        ) from error
    if len(content) > SECRET_FILE_MAX:
        raise ConfigError(f"{name}: the file is over 64 KiB", hint="name a file that holds the value alone")
    value = content.decode(errors="replace").rstrip("\r\n")
    if not value:
        raise ConfigError(f"{name}: the file is empty", hint="write the value into it")
    return value


def is_secret_itself(given: str, base: Path) -> bool:
    """Tell whether what should name a file may be what is to be in it: ``slproxy key`` prints 43 characters."""
    return "/" not in given and (may_be_secret(given) or (len(given) >= 32 and not (base / given).exists()))


def check_readable(path: Path) -> None:
    """Raise ConfigError, worded to follow the name of the setting, if this user may not read the file."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(
            f"expected a file that this user may read, got {redacted(str(path), text=True)}",
            hint="fix the path, or its permissions",
        ) from error


def check_no_folder(path: str) -> None:
    """Raise ConfigError, worded to follow the name of the setting, if a folder is where a file is to be."""
    if os.path.isdir(path):  # noqa: PTH112  # which does not raise in a folder of somebody else's
        raise ConfigError("expected the path of a file, got a folder", hint="name a file in it")


def config_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the user's folder for slproxy's settings, ``None`` for a user without a home."""
    return _folder(environ, "XDG_CONFIG_HOME", lambda system: system.user_config_path)


def state_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the user's folder for slproxy's logins, ``None`` for a user without a home."""
    return _folder(environ, "XDG_STATE_HOME", lambda system: system.user_state_path)


def expanded(path: Path) -> Path:
    """Return a path with ``~`` as the home it stands for; it stays for a user without one."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def token_file(environ: Mapping[str, str], profile: str, *, is_needed: bool) -> Path:
    """Return the place of a login. Raises ConfigError where there is none, and it ``is_needed``."""
    folder = state_folder(environ)
    if folder is None and is_needed:
        raise ConfigError(
            f"store.path: user {os.geteuid()} has no home folder, so there is no place for a login",
            hint="set SLPROXY_STORE__PATH, XDG_STATE_HOME or HOME; without a login, auth.grant or"
            " SLPROXY_STORE__KIND=memory",
        )
    return (folder or NOWHERE) / f"{profile}.json"


def logins_in(folder: Path | None) -> list[str]:
    """Return the names of the logins in a folder, as far as this user may see them."""
    try:
        return [] if folder is None else [each.stem for each in folder.glob("*.json")]
    except OSError:
        return []  # somebody else's


def _folder(environ: Mapping[str, str], variable: str, fallback: Callable[[PlatformDirs], Path]) -> Path | None:
    # The XDG specification has relative paths ignored.
    named = Path(environ.get(variable, ""))
    if named.is_absolute():
        return named / "slproxy"
    from platformdirs import PlatformDirs  # noqa: PLC0415  # containers name their folders

    try:
        folder = fallback(PlatformDirs("slproxy"))
    except RuntimeError:  # neither HOME nor an account: any uid may run a container
        return None
    return folder if folder.is_absolute() else None
