"""The command line: what a person types, and what they are told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from slproxy.cli import doctor
from slproxy.cli import login as commands
from slproxy.cli.doctor import diagnose, print_findings
from slproxy.cli.output import DONE, print_error
from slproxy.cli.parser import SERVES, Command, build_parser
from slproxy.cli.process import open_standard_streams, run_in_loop
from slproxy.cli.sandbox import run_sandbox
from slproxy.cli.serve import serve
from slproxy.cli.settings import load_settings, warn_of_unknown_profile
from slproxy.errors import ConfigError, SlproxyError
from slproxy.observe import logs as journal

if TYPE_CHECKING:
    pass


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code: 0 done, 1 failed, 2 bad usage or configuration, 3 login needed."""
    open_standard_streams()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    args = build_parser().parse_args(argv)
    command: Command = args.run
    for name in SERVES - args.takes:
        if getattr(args, name) is not None:
            # It stood before the command: left aside in silence, `--sandbox whoami` would ask the real SalesLoft.
            args.refuse(f"--{name.replace('_', '-')} is a flag of serve, and this command does not take it")
    try:
        settings = load_settings(args, args.profile, Path.cwd())
        if command not in (commands.log_in, run_sandbox) and not args.sandbox:
            warn_of_unknown_profile(settings, args)
        # The other commands say themselves what failed.
        level = settings.log.level if command is serve else "error"
        args.journal = journal.start(level=level, form=settings.log.format)
        return run_in_loop(command(settings, args))
    except ConfigError as error:
        if command is diagnose:
            print_findings([doctor.of_error("config", error)], as_json=args.json)
        else:
            print_error(error)
        return error.exit_code
    except SlproxyError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone (`slproxy config | head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
