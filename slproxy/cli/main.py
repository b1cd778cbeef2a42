"""The program: from a command line to an exit code."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import NoReturn

from slproxy.cli.output import DONE, FAILED, flushed, print_error, print_note
from slproxy.cli.parser import DOCTOR, SERVE_FLAGS, Command, build_parser
from slproxy.cli.process import open_standard_streams, run_in_loop
from slproxy.cli.settings import load_settings, warn_of_unknown_profile
from slproxy.errors import ConfigError, SlproxyError
from slproxy.observe import start_logging


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command as this process, with its signals, and exit with its code."""
    open_standard_streams()
    sys.exit(flushed(run(sys.argv[1:] if argv is None else argv, in_loop=run_in_loop)))


def run(argv: Sequence[str], *, in_loop: Callable[[Coroutine[object, object, int]], int] = asyncio.run) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad usage or configuration, 3 login needed."""
    try:
        args = build_parser().parse_args(argv)
        command: Command = args.command
        for name in SERVE_FLAGS - command.takes:
            if getattr(args, name) is not None:
                # It stood before the command: if ignored, `--sandbox whoami` would ask the real SalesLoft.
                args.refuse(f"--{name.replace('_', '-')} is a flag of serve; this command does not take it")
        return _run(command, args, in_loop)
    except SystemExit as end:  # --help, --version, or wrong usage
        return int(end.code or DONE)
    except SlproxyError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        return FAILED  # whoever read our output has gone (`slproxy config | head`), and knows


def _run(command: Command, args: argparse.Namespace, in_loop: Callable[[Coroutine[object, object, int]], int]) -> int:
    try:
        settings = load_settings(args, args.profile)
        args.listeners = start_logging(
            level=settings.log.level if command.logs else "error", form=settings.log.format, background=command.logs
        )
        if command.warns_of_unknown_profile and not args.sandbox:
            warn_of_unknown_profile(settings, args)
        if command is not DOCTOR:
            for warning in settings.warnings:
                print_note(f"slproxy: warning: {warning}")
        return in_loop(command.load()(settings, args))
    except ConfigError as error:
        if command is not DOCTOR:
            raise
        # A mistake in the settings is a finding like any other.
        from slproxy.cli.commands import doctor  # noqa: PLC0415  # takes long to load

        doctor.print_findings([doctor.finding_from("config", error)], as_json=args.json)
        return error.exit_code
