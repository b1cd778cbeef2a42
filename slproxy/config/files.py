"""Files that settings come from, and the folders of the user: all that ``config`` opens.

Every failure is a ConfigError that names the file.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from pathlib import Path

from platformdirs import user_config_path, user_state_path

from slproxy.config.messages import redacted
from slproxy.config.schema import KIB
from slproxy.errors import ConfigError

# Far above any key or token; a larger file is not a secret but a mistake, such as a log or a disk image.
SECRET_FILE_MAX = 64 * KIB


def read(path: Path, what: str) -> bytes | None:
    """Return the content of a file, less a byte order mark, or None if it does not exist. Raises ConfigError."""
    try:
        return path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what} cannot be read: {path}", hint="it must be a file that this user may read") from error


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
            f"{name}: the file cannot be read", hint="it must be a file that this user may read"
        ) from error
    if len(content) > SECRET_FILE_MAX:
        raise ConfigError(f"{name}: the file is over 64 KiB", hint="name a file that holds the value alone")
    value = content.decode(errors="replace").rstrip("\r\n")
    if not value:
        raise ConfigError(f"{name}: the file is empty", hint="write the value into it")
    return value


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


def config_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's folder for slproxy's settings."""
    return _folder(environ, "XDG_CONFIG_HOME", user_config_path)


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's folder for slproxy's logins."""
    return _folder(environ, "XDG_STATE_HOME", user_state_path)


def _folder(environ: Mapping[str, str], variable: str, fallback: Callable[[str], Path]) -> Path:
    # The XDG specification has relative paths ignored.
    named = Path(environ.get(variable, ""))
    return named / "slproxy" if named.is_absolute() else fallback("slproxy")
