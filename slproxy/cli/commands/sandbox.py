"""``slproxy sandbox``: runs only the fake SalesLoft."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from dataclasses import replace

import slproxy
from slproxy.cli.output import DONE, print_note
from slproxy.cli.parser import SANDBOX_HOST, SANDBOX_PORT
from slproxy.config import Settings
from slproxy.errors import ConfigError
from slproxy.sandbox import Options, Sandbox


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy sandbox``."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = _options(args)
    sandbox = Sandbox(options)
    host, port = args.host or SANDBOX_HOST, SANDBOX_PORT if args.port is None else args.port
    try:
        await sandbox.start(host, port)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.", hint="Choose another --port."
        ) from error
    try:
        _announce(sandbox, options)
        await stop.wait()
    finally:
        await sandbox.stop()
    return DONE


def _options(args: argparse.Namespace) -> Options:
    given = {
        "client_id": args.client_id,
        "redirect_uris": tuple(args.redirect_uri) if args.redirect_uri else None,
        "token_lifetime": args.token_lifetime,
        "rotation": args.rotation,
        "budget": args.budget,
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
    print(f"Listening on {sandbox.url}", flush=True)
