"""``slproxy sandbox``: runs only the fake SalesLoft."""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import math
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import slproxy
from slproxy.cli import held_signals
from slproxy.cli.announcement import print_if_read
from slproxy.cli.flags import SANDBOX_HOST, SANDBOX_PORT
from slproxy.cli.output import DONE, print_note
from slproxy.config import Settings, holds_api_key
from slproxy.errors import ConfigError
from slproxy.observe import Exchange, Listener, loggable_path
from slproxy.sandbox import Options, Sandbox


@dataclass(frozen=True)
class _Flag:
    """What a flag takes: text that ``form`` matches and, where there are bounds, a number within them."""

    expected: str
    form: str
    low: float = -math.inf
    high: float = math.inf

    def accepts(self, text: str) -> bool:
        if re.fullmatch(self.form, text) is None:
            return False
        return self.low == -math.inf or self.low <= float(text) <= self.high


# Up to 65535.
_PORT = r"([0-9]{1,4}|[1-5][0-9]{4}|6([0-4][0-9]{3}|5([0-4][0-9]{2}|5([0-2][0-9]|3[0-5]))))"
_TEXT, _INTEGER, _NUMBER = r"[!-~]+", r"[0-9]{1,9}", r"[0-9]{1,9}(\.[0-9]{1,9})?"
_FLAGS: Mapping[str, _Flag] = MappingProxyType(
    {
        # A name that has an empty part, or one of more than 63 characters, cannot even be looked up.
        "host": _Flag("an address or a name of this machine", rf"(?!\.|.*\.\.|.*[^.]{{64}}){_TEXT}"),
        "port": _Flag("an integer from 0 to 65535", _INTEGER, 0, 65535),
        "client_id": _Flag("visible ASCII characters", _TEXT),
        "redirect_uri": _Flag(
            "an absolute http or https URL without fragment, such as http://localhost:3000/callback",
            rf"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:{_PORT})?([/?][!-\"$-~]*)?",
        ),
        "token_lifetime": _Flag("a number of seconds from 1 to 31536000", _NUMBER, 1, 31_536_000),
        "budget": _Flag("an integer from 1 to 1000000", _INTEGER, 1, 1_000_000),
    }
)


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy sandbox``."""
    _check(args)
    stop = asyncio.Event()
    for number in held_signals.ENDS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    held_signals.release()
    options = _options(args)
    sandbox = Sandbox(options, answered=functools.partial(_log, args.listeners))
    host, port = args.host or SANDBOX_HOST, SANDBOX_PORT if args.port is None else int(args.port)
    try:
        await sandbox.start(host, port)
    except OSError as error:
        # From Python 3.13 on, asyncio tells no errno where it could bind to no address at all.
        unknown = isinstance(error, socket.gaierror) or error.errno in (None, errno.EADDRNOTAVAIL)
        reason = "this machine has no such address" if unknown else os.strerror(error.errno or 0)
        remedy = "--host" if unknown else "--port"
        raise ConfigError(f"Cannot listen on {host}:{port}: {reason}.", hint=f"Choose another {remedy}.") from error
    try:
        _announce(sandbox, options)
        await stop.wait()
    finally:
        await sandbox.stop()
    return DONE


def _check(args: argparse.Namespace) -> None:
    """Hold each flag to what it takes. Raises ConfigError."""
    for name, flag in _FLAGS.items():
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and (not flag.accepts(str(value)) or holds_api_key(str(value))):
                raise ConfigError(
                    f"argument --{name.replace('_', '-')}: expected {flag.expected}.", hint="Fix or remove it."
                )


def _log(listeners: Sequence[Listener], method: str, target: str, status: int | None, seconds: float) -> None:
    exchange = Exchange(
        method=method,
        path=loggable_path(target),
        began=0.0,
        ended=seconds,
        status=status or 0,
        aborted="cut off" if status is None else "",
    )
    for listener in listeners:
        listener.request_ended(exchange)


def _options(args: argparse.Namespace) -> Options:
    given = {
        "client_id": args.client_id,
        "redirect_uris": tuple(args.redirect_uri) if args.redirect_uri else None,
        "token_lifetime": None if args.token_lifetime is None else float(args.token_lifetime),
        "rotation": args.rotation,
        "budget": None if args.budget is None else int(args.budget),
    }
    return replace(Options(), **{name: value for name, value in given.items() if value is not None})


def _announce(sandbox: Sandbox, options: Options) -> None:
    print_note(f"slproxy {slproxy.__version__}: a fake SalesLoft, with no real data. Point a proxy at it with:\n")
    for name, value in (
        ("SLPROXY_UPSTREAM__API_URL", sandbox.url),
        ("SLPROXY_UPSTREAM__ACCOUNTS_URL", sandbox.url),
        ("SALESLOFT_CLIENT_ID", options.client_id),
        # No secrets: they open nothing but the sandbox.
        ("SALESLOFT_CLIENT_SECRET", options.client_secret),
    ):
        print_note(f"  export {name}={value}")
    print_note(f"\nand then: slproxy serve. Or, instead of the client: export SALESLOFT_API_KEY={options.api_key}\n")
    print_if_read(f"Listening on {sandbox.url}")
