"""Browser: whether one can be opened, and how, without what is secret in this process' environment."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping

# Without the folder in which it is started (-I), where anybody may have put a `webbrowser.py`.
_OPEN = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.argv[1]))"
_SECRET = re.compile(
    r"^(SALESLOFT|SLPROXY)_|SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE
)
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def can_open(environment: Mapping[str, str], platform: str) -> bool:
    """Return whether a browser can be opened where the person sees it."""
    if environment.get("BROWSER") or any(environment.get(each) for each in _DISPLAYS):
        return True
    remote = any(environment.get(each) for each in ("SSH_CONNECTION", "SSH_TTY"))
    return platform in ("darwin", "win32", "cygwin") and not remote


def browser_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment less what is secret; without TERM, no browser is taken that runs in the terminal."""
    return {name: value for name, value in environment.items() if name != "TERM" and not _SECRET.search(name)}


def open_browser(url: str, environment: Mapping[str, str]) -> bool:
    """Open a browser, and return whether that worked; this lasts as long as its command does."""
    command = [sys.executable, "-I", "-c", _OPEN, url]
    quiet = subprocess.DEVNULL
    try:
        opened = subprocess.run(  # noqa: S603  # no shell, and an address of our own
            command,
            env=browser_environment(environment),
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
            check=False,
        )
    except OSError:
        return False
    return opened.returncode == 0
