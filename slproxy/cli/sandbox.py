"""``slproxy sandbox``, and ``serve --sandbox``."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import slproxy
from slproxy.cli.output import DONE, print_note
from slproxy.config import AuthSettings, Secret, Settings, StoreSettings
from slproxy.errors import ConfigError
from slproxy.store import MemoryStore, Record, Token, TokenStore

if TYPE_CHECKING:
    from slproxy.sandbox import Options, Sandbox

# Where the fake SalesLoft listens, unless told otherwise.
SANDBOX_HOST, SANDBOX_PORT = "127.0.0.1", 8643


class _SandboxLogin(MemoryStore):
    """A login at the sandbox; in the place of one that is dead comes another, where a person would log in again."""

    def __init__(self, sandbox: Sandbox, profile: str) -> None:
        self.run_sandbox, self._profile = sandbox, profile
        super().__init__(self._login(1))

    def _login(self, number: int) -> Record:
        pair, now = self.run_sandbox.issue(), time.time()
        token = Token(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            obtained_at=now,
            expires_at=now + self.run_sandbox.options.token_lifetime,
        )
        return Record(
            client_id=self.run_sandbox.options.client_id,
            accounts_url=self.run_sandbox.url,
            profile=self._profile,
            token=token,
            login=number,
        )

    async def write(self, record: Record) -> None:
        await super().write(self._login(record.login + 1) if record.refused else record)


@asynccontextmanager
async def sandboxed(
    settings: Settings,
) -> AsyncIterator[tuple[Callable[[Settings], Settings], TokenStore]]:
    """Run a sandbox, and give what fits settings to it, and a store in which nothing real is left."""
    from slproxy.sandbox import Options, Sandbox  # noqa: PLC0415  # only this command wants it

    options = Options()
    sandbox = Sandbox(options)
    await sandbox.start()
    try:
        store = _SandboxLogin(sandbox, settings.profile)

        def fit(settings: Settings) -> Settings:
            return replace(
                settings,
                upstream=replace(settings.upstream, api_url=sandbox.url, accounts_url=sandbox.url),
                # Always the same, so that no reload takes the real one.
                store=StoreSettings(kind="memory", path=Path("none")),
                auth=AuthSettings(
                    grant="authorization_code",
                    client_id=options.client_id,
                    client_secret=Secret(options.client_secret),
                    leeway=settings.auth.leeway,
                ),
            )

        yield fit, store
    finally:
        await sandbox.stop()


async def run_sandbox(settings: Settings, args: argparse.Namespace) -> int:  # noqa: ARG001
    from slproxy.sandbox import Sandbox  # noqa: PLC0415  # only this command wants it

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = _sandbox_options(args)
    sandbox = Sandbox(options)
    host, port = args.host or SANDBOX_HOST, SANDBOX_PORT if args.port is None else args.port
    try:
        await sandbox.start(host, port)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.", hint="Choose another --port."
        ) from error
    try:
        _tell_about_sandbox(sandbox, options)
        await stop.wait()
    finally:
        await sandbox.stop()
    return DONE


def _sandbox_options(args: argparse.Namespace) -> Options:
    from slproxy.sandbox import Options  # noqa: PLC0415  # only this command wants it

    given = {
        "client_id": args.client_id,
        "redirect_uris": tuple(args.redirect_uri) if args.redirect_uri else None,
        "token_lifetime": args.token_lifetime,
        "rotation": args.rotation,
        "budget": args.budget,
    }
    return replace(Options(), **{name: value for name, value in given.items() if value is not None})


def _tell_about_sandbox(sandbox: Sandbox, options: Options) -> None:
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
