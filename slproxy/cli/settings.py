"""The settings of a command: flags, environment and files together."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from slproxy import config
from slproxy.cli.output import print_note
from slproxy.cli.parser import Command
from slproxy.config import Settings
from slproxy.errors import ConfigError

# How `run` calls a program that --name does not name.
DEFAULT_NAME = "run"
# Flags that are settings: of how much is logged, and of the proxy.
_LOGGED: Mapping[str, str] = MappingProxyType({"log_level": "log.level"})
FLAGS: Mapping[str, str] = MappingProxyType(
    {**_LOGGED, "host": "listen.host", "port": "listen.port", "uds": "listen.uds", "read_only": "policy.read_only"}
)


def load_settings(args: argparse.Namespace, profile: str | None, cwd: Path | None = None) -> Settings:
    """Return the settings in force. Raises ConfigError."""
    command: Command = args.command
    names = FLAGS if command.flags_are_settings else _LOGGED
    flags = {key: getattr(args, name) for name, key in names.items()}
    if command.runs:
        flags |= own_client(args)
    return config.load(
        config=args.config,
        profile=profile,
        flags=flags,
        environ=os.environ,
        cwd=cwd or _working_folder(),
        # To run a fake SalesLoft takes no credentials.
        sandbox=bool(args.sandbox) or not command.flags_are_settings,
    )


def own_client(args: argparse.Namespace) -> dict[str, object]:
    """Return the settings of the one client that ``run`` has, by its flags; its key is made here, and kept nowhere."""
    args.name, args.key = args.name or DEFAULT_NAME, secrets.token_urlsafe(32)
    given = {
        "key": args.key,
        "read_only": args.only_reads or None,
        "accept_paths": args.accept_path and tuple(args.accept_path),
        "reject_paths": args.reject_path and tuple(args.reject_path),
        "budget": args.budget,
    }
    return {f"client.{args.name}.{name}": value for name, value in given.items()}


def profile_names(args: argparse.Namespace) -> list[str]:
    """Return the profiles that have settings or a login. Raises ConfigError."""
    return config.profiles(config=args.config, environ=os.environ, cwd=_working_folder())


def warn_of_unknown_profile(settings: Settings, args: argparse.Namespace) -> None:
    """Warn when the profile has neither settings nor a login: a misspelt one would only seem logged out."""
    if settings.store.kind != "file" or settings.is_set("store.path"):
        return  # only the default folder can be listed
    if args.config is not None and not args.config.is_file():
        return  # a pipe is read once
    known = profile_names(args)
    if settings.profile not in known:
        nothing = f"the profile {settings.profile} has neither settings nor a login"
        print_note(f"slproxy: warning: {nothing}; known are: {', '.join(known)}")


def _working_folder() -> Path:
    try:
        folder = Path.cwd()
        Path(os.curdir).stat()  # what it holds may be looked at: after `sudo -u` it often may not
    except OSError as error:
        raise ConfigError(
            f"The folder that this was started in cannot be used: {os.strerror(error.errno or 0)}.",
            hint="Change to another, with cd.",
        ) from error
    return folder
