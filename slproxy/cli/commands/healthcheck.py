"""``slproxy healthcheck``: asks the proxy that these settings describe whether it is up, or ready.

Containers run it every few seconds, so it loads next to nothing: neither the parser of the command line, where there is
nothing to say about that, nor the schema of the settings. On a proxy that is well it says nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slproxy.cli import held_signals
from slproxy.cli.listening import Listening, listening

if TYPE_CHECKING:
    import argparse

# How long the proxy may take to answer, in seconds: less than the timeout of a probe, so that the reason is told.
TIMEOUT = 3.0
# The largest reply that is read, in bytes: what listens there may be anything.
MAX_REPLY = 64 * 1024
# The flags that say which proxy is meant.
WHICH = ("host", "port", "uds", "config", "profile")
# Whatever listens on every address listens on this machine's own.
EVERY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # to be asked, not to listen on
# Of the first process of a container: its words, each with a NUL behind it (proc(5)).
FIRST = Path("/proc/1/cmdline")


def run_words(words: Sequence[str]) -> int | None:
    """Run the command on the words behind its name; return the exit code, ``None`` where they need the real parser."""
    flags = _flags([word for word in words if word != "--ready"])
    if flags is None:
        return None
    held_signals.end_at_once(ends_well=False)
    held_signals.release()
    return check(flags, ready="--ready" in words)


def run(args: argparse.Namespace) -> int:
    """Run the command as the parser has understood it."""
    return check(_given(args), ready=args.ready)


def check(flags: Mapping[str, str], *, ready: bool) -> int:
    """Ask the proxy that flags and settings describe; print a line and return 1 where it is not up, or not ready."""
    try:
        where = listening(flags or _flags_of_container(), os.environ, Path.cwd())
        reason = _trouble(where, ready=ready)
    except ValueError as error:
        reason = str(error)
    except OSError as error:
        reason = f"the folder that this was started in cannot be used: {os.strerror(error.errno or 0)}"
    if not reason:
        return 0
    from slproxy.cli.output import open_standard_streams, print_note  # noqa: PLC0415  # all is well, mostly

    open_standard_streams()
    print_note(f"slproxy: {' '.join(reason.split())}")
    return 1


def _flags(words: Sequence[str]) -> dict[str, str] | None:
    """Return what the words say of which proxy is meant; ``None`` where they are not plain enough to tell."""
    flags: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if name.removeprefix("--") not in WHICH or not name.startswith("--") or not (value := value or next(rest, "")):
            return None
        flags[name.removeprefix("--")] = value
    return flags


def _given(args: argparse.Namespace) -> dict[str, str]:
    return {name: str(value) for name in WHICH if (value := getattr(args, name)) is not None}


def _flags_of_container() -> dict[str, str]:
    """Return the flags of the proxy that is the first process here, as in a container.

    An image has one health check, whatever flags its user gives to `serve`.
    """
    try:
        words = FIRST.read_text("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return {}
    at = next((i for i, word in enumerate(words) if Path(word).name in ("slproxy", "proxy.py")), len(words))
    words = words[at + 1 :]
    flags = _flags(words[1:] if words[:1] == ["serve"] else words)
    if flags is None:
        from slproxy.cli.parser import SERVE, build_parser  # noqa: PLC0415  # takes as long to load as all else

        try:
            args = build_parser().parse_args(words)
        except SystemExit:
            return {}
        return _given(args) if args.command is SERVE else {}
    return flags


def _trouble(where: Listening, *, ready: bool) -> str:
    """Return why the proxy is not up, or not ready; nothing where it is."""
    host, port = where["host"].strip("[]"), where["port"]
    shown = f"unix:{where['uds']}" if "uds" in where else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if "uds" not in where and not (port.isdecimal() and 0 < int(port) < 65536):
        shown = port if port.isdecimal() and len(port) <= 9 else "no number"  # else it may be a secret
        return f"listen.port is {shown}, which names no port to ask: say which, with --port"
    page, deadline = "/_slproxy/readyz" if ready else "/_slproxy/healthz", time.monotonic() + TIMEOUT
    try:
        reply = _ask(where, page, deadline)
    except TimeoutError:
        return f"no answer at {shown} within {TIMEOUT:g} s"
    except (OSError, UnicodeError) as error:
        number = (isinstance(error, OSError) and error.errno) or 0  # of a name that cannot be resolved it is negative
        return f"not running at {shown}: {os.strerror(number) if number > 0 else 'its name cannot be resolved'}"
    head, _, body = reply.partition(b"\r\n\r\n")
    if b"\nproxy-status: slproxy" not in head.lower():
        return f"another program answers at {shown}"
    status = head[len("HTTP/1.1 ") :][:3].decode("ascii", "replace")
    return "" if status == "200" else _reason(status, body)


def _ask(where: Listening, page: str, deadline: float) -> bytes:
    """Return the reply, head and body. Raises OSError."""
    reply = b""
    with _connected(where, deadline) as connection:
        connection.sendall(f"GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        while len(reply) < MAX_REPLY and (chunk := connection.recv(MAX_REPLY)):
            reply += chunk
            connection.settimeout(max(0.001, deadline - time.monotonic()))
    return reply


def _connected(where: Listening, deadline: float) -> socket.socket:
    host = where["host"].strip("[]")
    if host in EVERY:
        host = EVERY[host]
    timeout = max(0.001, deadline - time.monotonic())
    if "uds" not in where and not (":" in host or host[-1:].isdigit()):
        return socket.create_connection((host, int(where["port"])), timeout)  # which loads much for a name
    family = socket.AF_UNIX if "uds" in where else socket.AF_INET6 if ":" in host else socket.AF_INET
    connection = socket.socket(family)
    try:
        connection.settimeout(timeout)
        connection.connect(where["uds"] if "uds" in where else (host, int(where["port"])))
    except BaseException:
        connection.close()
        raise
    return connection


def _reason(status: str, body: bytes) -> str:
    from slproxy.untrusted import parse_json  # noqa: PLC0415  # all is well, mostly

    try:
        problem = parse_json(body)
    except ValueError:
        problem = None
    told = [str(problem.get(name, "")) for name in ("detail", "hint")] if isinstance(problem, dict) else []
    return " ".join([f"not ready ({status}):", *told])
