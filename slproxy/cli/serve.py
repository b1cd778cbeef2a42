"""``slproxy serve``: start, announce, reload, drain."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import http.client
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import slproxy
from slproxy.app import App
from slproxy.auth import parse_identity
from slproxy.cli import probe
from slproxy.cli.output import DONE, print_note
from slproxy.cli.process import allow_open_files, has_terminal, in_a_daemon
from slproxy.cli.sandbox import sandboxed
from slproxy.cli.settings import load_settings
from slproxy.config import Settings
from slproxy.errors import ConfigError, LoginRequired, SlproxyError
from slproxy.server import reachable
from slproxy.store import TokenStore

if TYPE_CHECKING:
    pass


log = logging.getLogger("slproxy")

# How often the files that hold secrets are looked at, in seconds.
WATCH = 2.0
# How many objects may be new before cycles among them are looked for.
GARBAGE = 10_000


async def serve(settings: Settings, args: argparse.Namespace) -> int:
    stop, at_once, hup = asyncio.Event(), asyncio.Event(), asyncio.Event()
    # nohup(1) has the signal ignored: then the end of the terminal is not ours.
    ends_with_terminal = has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def ask_to_stop() -> None:
        (at_once if stop.is_set() else stop).set()

    def hang_up() -> None:
        # The same signal says that the terminal was closed: then whoever started the proxy there has gone.
        (stop if ends_with_terminal and not has_terminal() else hup).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask_to_stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
    allow_open_files()
    seen = _stamps(settings)
    async with contextlib.AsyncExitStack() as stack:
        store: TokenStore | None = None
        fit: Callable[[Settings], Settings] = _as_given
        if args.sandbox is not None:
            fit, store = await stack.enter_async_context(sandboxed(settings))
        app = await stack.enter_async_context(App(fit(settings), store=store, journal=args.journal))
        await app.listen()
        load = functools.partial(load_settings, args, settings.profile, Path.cwd())
        reloading = asyncio.create_task(_keep_reloading(app, lambda: fit(load()), hup, seen))
        await _announce(app, sandbox=args.sandbox is not None)
        # All that is here stays, and a request leaves no cycle behind: to look for them at every 700th new object, as
        # Python does by itself, takes some percent of a request's time (benchmarks/README.md).
        gc.freeze()
        gc.set_threshold(GARBAGE)
        await stop.wait()
        reloading.cancel()
        await asyncio.wait({reloading})
        await app.drain(at_once=at_once)
    return DONE


def _as_given(settings: Settings) -> Settings:
    return settings


Stamps = dict[str, tuple[int, int, int] | None]


async def _keep_reloading(app: App, load: Callable[[], Settings], hup: asyncio.Event, seen: Stamps) -> None:
    """Read the settings again at SIGHUP, and when a file that holds a secret is not as it was ``seen``."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH):
                await hup.wait()
        # Before the files are read: what changes meanwhile is seen the next time.
        now = _stamps(app.settings)
        asked = hup.is_set()
        hup.clear()
        if now == seen and not asked:
            continue
        try:
            # In a thread that nobody waits for at the end: what is mounted may hang.
            changed, later = await app.reload(await in_a_daemon(load))
        except SlproxyError as error:
            log.error("the settings stay as they were: %s %s", error.detail, error.hint)  # noqa: TRY400  # says it all
            # What is wrong with the settings changes when they do; what is wrong with the store may be over soon.
            seen = now if isinstance(error, ConfigError) else seen
        except Exception:
            # The outermost frame of this task: without it a defect would end the reloading, and say nothing.
            log.exception("a defect in slproxy, while reading the settings again")
            seen = now
        else:
            if changed or asked:
                log.info("settings read again; changed: %s", ", ".join(changed) or "none")
            if later:
                log.warning("these want a new start of the proxy: %s", ", ".join(later))
            # A file that was not looked at before may have changed since it was read: another look costs nothing.
            seen = {path: now.get(path) for path in _stamps(app.settings)}


def _stamps(settings: Settings) -> Stamps:
    """Return what tells whether the files that hold secrets have changed."""
    stamps: Stamps = {}
    for origin in settings.origins.values():
        if origin.path:
            with contextlib.suppress(OSError):
                stat = os.stat(origin.path)  # noqa: PTH116  # a path is a text here
                stamps[origin.path] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    return stamps


async def _announce(app: App, *, sandbox: bool) -> None:
    """Say where the proxy listens and, against the sandbox, make the first call through it."""
    where, upstream = app.urls[0], app.settings.upstream.api_url
    if sandbox:
        print_note(f"slproxy {slproxy.__version__}: SANDBOX, no real data. A fake SalesLoft at {upstream}.")
        try:
            answered, body = await asyncio.to_thread(
                probe.ask, reachable(where), "/v2/me.json", key=app.settings.listen.key
            )
            print(f"Authenticated as: {parse_identity(answered, body)}", flush=True)
        except (OSError, http.client.HTTPException, SlproxyError) as error:
            print_note(f"  The first call through it failed: {error}")
    else:
        print_note(f"slproxy {slproxy.__version__}: forwarding to {upstream}.")
        selection = app.credentials.selection
        print_note(f"  Way in: {selection.grant or 'none'}, since {selection.why}.")
        if isinstance(problem := app.credentials.problem(), LoginRequired):
            print_note(f"  Not ready: {problem.detail} {problem.hint}")
        elif app.credentials.selection.grant == "authorization_code":
            print_note(f"  The token is kept in {app.store.description}, {app.store.encryption}.")
    if app.settings.listen.allow_unauthenticated and app.settings.listen.key is None:
        print_note("  WARNING: whoever reaches this address uses your SalesLoft token: no local key is set.")
    key = ' -H "X-Slproxy-Key: $KEY"' if app.settings.listen.key is not None else ""
    unix = f" --unix-socket {where.removeprefix('unix:')}" if where.startswith("unix:") else ""
    base = "http://localhost" if unix else reachable(where)
    print(f"Listening on {where}. Try: curl{key}{unix} {base}/v2/me.json", flush=True)
