"""Reload: loads the settings again when asked to (``serve`` does at SIGHUP), and when a file with a secret changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from slproxy.app import App
from slproxy.cli.process import in_daemon_thread
from slproxy.config import Settings
from slproxy.errors import ConfigError, SlproxyError

log = logging.getLogger("slproxy")

# How often the files that hold secrets are looked at, in seconds.
POLL_INTERVAL = 2.0

# What tells whether a file has changed: modification time, inode and size, by path.
Stamps = dict[str, tuple[int, int, int]]


def stamps(settings: Settings) -> Stamps:
    """Return the stamps of the files that hold secrets."""
    found: Stamps = {}
    for origin in settings.origins.values():
        if origin.path:
            with contextlib.suppress(OSError):
                stat = os.stat(origin.path)  # noqa: PTH116  # a path is a text here
                found[origin.path] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    return found


async def keep_reloading(app: App, load: Callable[[], Settings], hup: asyncio.Event, seen: Stamps) -> None:
    """Reload whenever ``hup`` is set or a file that holds a secret is not as it was ``seen``."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL):
                await hup.wait()
        # Before the files are read: what changes meanwhile is seen the next time.
        now = stamps(app.settings)
        asked = hup.is_set()
        hup.clear()
        if asked and app.listeners.audit is not None:
            # Whatever becomes of the settings: logrotate asks as well, and has moved the file away.
            app.listeners.audit.reopen()
        if now == seen and not asked:
            continue
        try:
            # In a thread that nobody waits for at the end: what is mounted may hang.
            changed, later = await app.reload(await in_daemon_thread(load))
        except SlproxyError as error:
            log.error("reload failed, settings unchanged: %s", error.sentence)  # noqa: TRY400  # says it all
            # What is wrong with the settings changes when they do; what is wrong with the store may be over soon.
            seen = now if isinstance(error, ConfigError) else seen
        except Exception:
            # The outermost frame of this task: without it a defect would end the reloading, and say nothing.
            log.exception("a defect in slproxy, while reloading the settings")
            seen = now
        else:
            if changed or asked:
                log.info("settings reloaded; changed: %s", ", ".join(changed) or "none")
                for warning in app.settings.warnings:
                    log.warning("%s", warning)
            if later:
                log.warning("restart the proxy to apply: %s", ", ".join(later))
            # A file that was not looked at before may have changed since it was read: another look costs nothing.
            seen = {path: now[path] for path in stamps(app.settings) if path in now}
