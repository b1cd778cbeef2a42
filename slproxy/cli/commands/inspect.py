"""``slproxy inspect``: opens the inspector of the running proxy in the browser."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from slproxy.cli import running_proxy
from slproxy.cli.browser import can_open, open_browser
from slproxy.cli.output import DONE, print_note, print_result
from slproxy.cli.own_request import address
from slproxy.cli.process import in_daemon_thread
from slproxy.config import OWN_PAGES, Settings
from slproxy.errors import SlproxyError
from slproxy.sockets import reachable, url_of

NOT_FOUND = 404
# How long it may take until a browser says that it could not be opened, in seconds.
BROWSER_TIMEOUT = 3.0


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy inspect``. Raises SlproxyError: there is no inspector to open."""
    listen = settings.reach
    there = await running_proxy.status_of(listen)
    if there is None:
        raise SlproxyError(f"No proxy is running at {address(listen)}.", hint="Start one with: slproxy serve")
    if "version" not in there:
        # One with another local key is one for all that; the browser will ask for it.
        known = running_proxy.described(listen, there)
        raise SlproxyError(known or f"What answers at {address(listen)} is no slproxy.", hint="Check listen.port.")
    if listen.uds is not None:
        raise SlproxyError(
            "A browser cannot open a Unix socket.", hint="Serve at a port: slproxy serve --host 127.0.0.1"
        )
    status, _ = await running_proxy.ask(listen, OWN_PAGES)
    if status == NOT_FOUND:
        raise SlproxyError("The inspector is off.", hint="Set inspect.enabled = true, and reload the proxy (SIGHUP).")
    # Without the key: what is in an address is in the browser's history, and in the list of processes.
    url = reachable(url_of(listen.host, listen.port)) + OWN_PAGES
    if listen.key is not None:
        print_note(
            "The browser asks for a user and a password: any user, and the local key (listen.key) as the password."
        )
    if args.no_browser or not can_open(os.environ, sys.platform):
        print_result(url)
        return DONE
    opening = asyncio.create_task(in_daemon_thread(open_browser(url, os.environ)))
    # Some browsers run until they are closed.
    await asyncio.wait({opening}, timeout=BROWSER_TIMEOUT)
    if opening.done() and not opening.result():
        print_note("The browser could not be opened.")
        print_result(url)
    else:
        print_note(f"Opened {url}")
    return DONE
