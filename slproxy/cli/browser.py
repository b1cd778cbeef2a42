"""Browser: whether one can be opened, and how, without what is secret in this process' environment."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping

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


def open_browser(url: str, environment: Mapping[str, str]) -> Callable[[], bool]:
    """Start a browser. What is returned waits for the end of its command, and returns whether it was opened."""
    command = [sys.executable, "-I", "-c", _OPEN, url]
    quiet = subprocess.DEVNULL
    env = browser_environment(environment)
    try:
        # Here and not in the thread that waits: until it is another program, the new process holds our sockets.
        process = subprocess.Popen(  # noqa: S603  # no shell, and an address of our own
            command, env=env, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
    except OSError:
        return lambda: False
    return lambda: process.wait() == 0
