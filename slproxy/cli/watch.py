"""Watch: shows the running proxy again and again, until Ctrl-C, whether it is up or restarts meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time

from slproxy.cli import running_proxy
from slproxy.cli.output import DONE, full_screen, print_result
from slproxy.cli.watch_text import Lines, screen
from slproxy.config import Settings

# How often the proxy is asked, in seconds.
EVERY = 1.0


async def watch(settings: Settings, *, as_json: bool) -> int:
    """Draw on the terminal, or print what is new, a line each, where there is none."""
    try:
        if as_json:
            while True:
                print_result(json.dumps(await _look(settings)))
                await asyncio.sleep(EVERY)
        if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            await _draw(settings)
        await _tell(settings)
    except asyncio.CancelledError:
        pass  # Ctrl-C is how it ends
    return DONE


async def _look(settings: Settings) -> dict[str, object] | None:
    """Return what the proxy says of itself, and what has happened last as ``recent``."""
    proxy = await running_proxy.status_of(settings.reach)
    if proxy is None or "version" not in proxy:
        return proxy
    return proxy | {"recent": await running_proxy.recent_of(settings.reach)}


async def _draw(settings: Settings) -> None:
    with full_screen() as draw:
        while True:
            proxy = await _look(settings)
            size = shutil.get_terminal_size()
            draw(screen(proxy, settings, at=time.time(), width=size.columns, height=size.lines))
            await asyncio.sleep(EVERY)


async def _tell(settings: Settings) -> None:
    lines = Lines(settings)
    while True:
        proxy = await _look(settings)
        for line in lines.news(proxy, at=time.time()):
            print_result(line)
        await asyncio.sleep(EVERY)
