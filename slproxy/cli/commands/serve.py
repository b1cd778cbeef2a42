"""``slproxy serve``: starts the proxy, says where it listens, and drains it at the end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import logging
from collections.abc import Callable
from pathlib import Path

import slproxy
from slproxy import config
from slproxy.app import App
from slproxy.cli import running_proxy
from slproxy.cli.announcement import print_if_read
from slproxy.cli.describe import describe_other_users, describe_rules
from slproxy.cli.end_signals import EndSignals
from slproxy.cli.output import DONE, print_note
from slproxy.cli.reload import keep_reloading, stamps
from slproxy.cli.settings import load_settings
from slproxy.cli.verification import keep_verifying
from slproxy.config import OWN_PAGES, Settings
from slproxy.errors import ConfigError, LoginRequired
from slproxy.sockets import reachable
from slproxy.store import TokenStore

log = logging.getLogger("slproxy")

# How many objects may be new before cycles among them are looked for.
GARBAGE_THRESHOLD = 10_000


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy serve``."""
    config.check_listening(settings)
    signals = EndSignals()
    # Before anything is awaited: what changes from now on is seen.
    seen = stamps(settings)
    async with contextlib.AsyncExitStack() as stack:
        store: TokenStore | None = None
        point: Callable[[Settings], Settings] = _as_they_are
        if args.sandbox is not None:
            from slproxy.cli.builtin_sandbox import running_sandbox  # noqa: PLC0415  # not part of a real proxy

            point, store = await stack.enter_async_context(running_sandbox(settings))
        app = await stack.enter_async_context(App(point(settings), store=store, listeners=args.listeners))
        await _listen(app)
        load = functools.partial(load_settings, args, settings.profile, Path.cwd())
        reloading = asyncio.create_task(keep_reloading(app, lambda: point(load()), signals.reload, seen))
        _announce(app, sandbox=args.sandbox is not None)
        verifying = asyncio.create_task(keep_verifying(app), name="slproxy: verify the token")
        # All that is here stays, and a request leaves no cycle behind: to look for them at every 700th new object, as
        # Python does by itself, takes some percent of a request's time (benchmarks/README.md).
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        await signals.stop.wait()
        for task in (reloading, verifying):
            task.cancel()
        await asyncio.wait({reloading, verifying})
        await app.drain(at_once=signals.at_once, again=signals.again)
        if not app.credentials.is_settled:
            log.warning("waiting for the token to be renewed; %s again stops now, and may lose it", signals.again)
    return DONE


async def _listen(app: App) -> None:
    """Listen; where the address is taken, tell of the slproxy that has it. Raises ConfigError."""
    try:
        await app.listen()
    except ConfigError as error:
        listen = app.settings.reach
        there = await running_proxy.status_of(listen)
        if there is None or not (known := running_proxy.described(listen, there)):
            raise
        pid, other = there.get("pid"), "--uds" if listen.uds else f"port, such as --port {listen.port + 8}"
        stop = f"stop it (kill {pid}), " if type(pid) is int and pid > 1 else ""
        hint = error.hint if "uid" in there else f"Use that one, {stop}or choose another {other}."
        raise ConfigError(f"{error.detail} {known}", hint=hint) from error


def _as_they_are(settings: Settings) -> Settings:
    return settings


def _announce(app: App, *, sandbox: bool) -> None:
    """Say where the proxy listens, and how it authenticates."""
    where, upstream = app.urls[0], app.settings.upstream.api_url
    if sandbox:
        print_note(f"slproxy {slproxy.__version__}: SANDBOX, no real data. A fake SalesLoft at {upstream}.")
    else:
        print_note(f"slproxy {slproxy.__version__}: forwarding to {upstream}.")
        selection = app.credentials.selection
        print_note(f"  Auth: {selection.grant or 'none'} ({selection.why})")
        if isinstance(problem := app.credentials.problem(), LoginRequired):
            print_note(f"  Not ready: {problem.detail} {problem.hint}")
        elif app.credentials.selection.grant == "authorization_code":
            print_note(f"  Token: stored in {app.store.description}, {app.store.encryption}")
    if policy := describe_rules(vars(app.settings.policy)):
        print_note(f"  Policy: {policy}")
    for name, client in app.settings.clients.items():
        print_note(f"  Client {name}: {describe_rules(vars(client)) or 'all that the policy lets through'}")
    if app.settings.log.audit is not None:
        print_note(f"  Audit: {app.settings.log.audit}")
    if app.open_urls:
        print_note(f"  Metrics and probes, for everybody who reaches it: {reachable(app.open_urls[0])}/metrics")
    if app.settings.reach.allow_unauthenticated and app.settings.reach.key is None:
        print_note("  WARNING: anyone who can reach this address uses your SalesLoft token: no local key is set.")
    elif app.server is not None and (risk := describe_other_users(app.settings.reach, app.server.peers.why_unknown)):
        print_note(f"  WARNING: {risk} Set listen.key to keep them out.")
    if app.settings.inspect.enabled and app.settings.reach.uds is None:
        print_note(f"  Inspector: {reachable(where)}{OWN_PAGES}")
    key = ' -H "X-Slproxy-Key: $KEY"' if app.settings.reach.key is not None else ""
    unix = f" --unix-socket {where.removeprefix('unix:')}" if where.startswith("unix:") else ""
    base = "http://localhost" if unix else reachable(where)
    print_if_read(f"Listening on {where}. Try: curl{key}{unix} {base}/v2/me.json")
