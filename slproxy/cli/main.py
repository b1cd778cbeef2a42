"""The entry of the program: first of all the signals that end it are held, and then the rest is imported."""

from __future__ import annotations

import sys

from slproxy.cli import held_signals


def main(argv: list[str] | None = None) -> None:
    """Run a command as this process, with its signals, and exit with its code."""
    if sys.platform == "win32":
        # Nothing of what it stands on is there: POSIX signals, owners and modes of files, Unix sockets.
        sys.exit("slproxy: Windows is not supported. Run it under WSL: https://learn.microsoft.com/windows/wsl")
    held_signals.hold()
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["healthcheck"]:
        from slproxy.cli.commands.healthcheck import run_words  # noqa: PLC0415  # the signals come first

        if (code := run_words(words[1:])) is not None:
            held_signals.ignore()
            sys.exit(code)
    from slproxy.cli.program import run_as_process  # noqa: PLC0415  # as above

    sys.exit(run_as_process(words))
