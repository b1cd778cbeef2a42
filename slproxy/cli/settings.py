"""The settings of a command: flags, environment and files together."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from slproxy import config
from slproxy.cli.output import print_note
from slproxy.cli.sandbox import run_sandbox
from slproxy.config import Settings

if TYPE_CHECKING:
    pass


def load_settings(args: argparse.Namespace, profile: str | None, cwd: Path) -> Settings:
    return config.load(config=args.config, profile=profile, flags=_flags(args), environ=os.environ, cwd=cwd)


def warn_of_unknown_profile(settings: Settings, args: argparse.Namespace) -> None:
    """Tell of a profile that nothing is known of: a misspelt one would just have no login."""
    if settings.store.kind != "file" or settings.is_set("store.path"):
        return  # whose logins are kept in another place is not known
    if args.config is not None and not args.config.is_file():
        return  # a pipe is read once
    known = config.profiles(config=args.config, environ=os.environ, cwd=Path.cwd())
    if settings.profile not in known:
        nothing = f"the profile {settings.profile} has neither settings nor a login"
        print_note(f"slproxy: warning: {nothing}; known are: {', '.join(known)}")


# Where each flag goes among the settings.
_FLAGS = {"host": "listen.host", "port": "listen.port", "uds": "listen.uds", "read_only": "policy.read_only"}


def _flags(args: argparse.Namespace) -> dict[str, object]:
    if args.run is run_sandbox:
        return {}  # its address is not the proxy's
    return {key: getattr(args, name) for name, key in _FLAGS.items()}
