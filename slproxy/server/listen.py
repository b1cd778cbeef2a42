"""Listening sockets and their addresses."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from slproxy.errors import ConfigError

# Connections that the kernel holds while they wait to be accepted; a burst of `limits.max_connections` must fit.
BACKLOG = 1024


def cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    """Return the error for an address that cannot be listened on."""
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"{where} is in use.",
            hint=f"Stop the other program, or choose another port, such as --port {port + 8} (make demo: PORT=...).",
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"{where}: this machine has no such address.", hint="Set listen.host to one of its own.")
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return ConfigError(f"{where} cannot be listened on ({reason}).", hint="Choose another port, above 1023.")


def bind_unix_socket(path: Path, mode: int) -> socket.socket:
    """Bind a Unix socket with ``mode`` from its first moment; replace one that a dead process left behind."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # bind(2) creates the file with the umask's rights; a chmod afterwards would leave a gap.
    umask = os.umask(0o777 & ~mode)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode) and not _is_live(path):
                path.unlink()
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"Cannot listen on the Unix socket {path}: {error.strerror or error}.",
            hint="Another slproxy may be listening there, or its folder is missing: choose another --uds.",
        ) from error
    finally:
        os.umask(umask)
    return sock


def _is_live(path: Path) -> bool:
    """Return whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def url_of(host: str, port: int) -> str:
    """Return the URL of an address that is listened on."""
    return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachable(url: str) -> str:
    """Return the URL with a name of this machine in the place of a wildcard: no client may ask for 0.0.0.0."""
    for every in ("//0.0.0.0:", "//[::]:", "//:"):
        url = url.replace(every, "//localhost:")
    return url
