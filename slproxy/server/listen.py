"""Listening sockets and their addresses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from types import MappingProxyType

from slproxy.config import MetricsSettings
from slproxy.errors import ConfigError
from slproxy.sockets import url_of

# Connections that the kernel holds while they wait to be accepted; a burst of `limits.max_connections` must fit.
BACKLOG = 1024
# `localhost` is one of two addresses, as the client likes. Whoever holds one of them holds the other too: it would be
# free for another user, who would get requests, bodies and the local key.
_BOTH = ("127.0.0.1", "::1")
_LOCALHOST = MappingProxyType(
    {
        "localhost": _BOTH,
        "127.0.0.1": _BOTH,
        "::1": ("::1", "127.0.0.1"),
        "0.0.0.0": ("0.0.0.0", "::1"),  # noqa: S104  # names of addresses
        "::": ("::", "127.0.0.1"),
    }
)
# Where the other address, or IPv6 as a whole, does not exist on this machine.
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# How often another free port is looked for, if the one that was found is taken at another address.
_TRIES = 100


async def listen_at(host: str, port: int) -> list[socket.socket]:
    """Listen on a port of ``host``, and of the other address of ``localhost`` beside it.

    Raises:
        ConfigError: one of the addresses cannot be had.
    """
    for _ in range(_TRIES):
        sockets: list[socket.socket] = []
        free = port
        for index, address in enumerate(await _addresses(host, port)):
            try:
                sockets.append(_listening(address, free))
            except OSError as error:
                if index and error.errno in _NO_SUCH_ADDRESS:
                    continue
                for each in sockets:
                    each.close()
                if port == 0 and index and error.errno == errno.EADDRINUSE:
                    break
                raise cannot_listen(address, free, error, is_beside=bool(index)) from error
            free = sockets[0].getsockname()[1]
        else:
            return sockets
    raise ConfigError("No port is free at all addresses of localhost.", hint="Choose one: --port.")


async def listen_openly(settings: MetricsSettings) -> list[socket.socket]:
    """Listen where everybody may read the metrics, if anywhere. Raises ConfigError."""
    if settings.port is None:
        return []
    try:
        return await listen_at(settings.host, settings.port)
    except ConfigError as error:
        hint = "Choose another metrics.port, or another metrics.host."
        raise ConfigError(f"metrics.port: {error.detail}", hint=hint) from error


async def _addresses(host: str, port: int) -> list[str]:
    name = host.removeprefix("[").removesuffix("]").lower()
    if name in _LOCALHOST:
        return list(_LOCALHOST[name])
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    # However it is spelt, such as 0:0:0:0:0:0:0:1.
    return list(_LOCALHOST.get(addresses[0], addresses)) if len(addresses) == 1 else addresses


def _listening(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Not beside another that listens: only past connections that have not ended (tcp(7), TIME_WAIT).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        # Now: until then another socket may be bound to the same port, and listen first.
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def cannot_listen(host: str, port: int, error: OSError, *, is_beside: bool = False) -> ConfigError:
    """Return the error for an address that cannot be listened on: one of `listen.host`, or the other of localhost."""
    where = url_of(host, port).removeprefix("http://")
    if error.errno == errno.EADDRINUSE:
        also = " `localhost` may lead there, so slproxy has to hold it." if is_beside else ""
        return ConfigError(
            f"{where} is in use.{also}",
            hint=f"Stop the other program, or choose another port, such as --port {port + 8} (make demo: PORT=...).",
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"{where}: this machine has no such address.", hint="Set listen.host to one of its own.")
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return ConfigError(f"{where} cannot be listened on ({reason}).", hint="Choose another port, above 1023.")


def listen_at_path(path: Path, mode: int) -> socket.socket:
    """Listen on a Unix socket with ``mode`` from its first moment; replace one that a dead process left behind."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # bind(2) creates the file with the umask's rights; a chmod afterwards would leave a gap.
    umask = os.umask(0o777 & ~mode)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode) and not _is_live(path):
                path.unlink()
        sock.bind(str(path))
        sock.listen(BACKLOG)
        sock.setblocking(False)
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
