"""The program: from a command line to an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine, Sequence

from slproxy.cli import flags, held_signals
from slproxy.cli.output import DONE, FAILED, flushed, open_standard_streams, print_error, print_note, print_result
from slproxy.cli.parser import DOCTOR, HEALTHCHECK, Command, parse
from slproxy.cli.usage import UsageError
from slproxy.errors import ConfigError, SlproxyError

# Runs a command in an event loop; the second argument tells whether it serves until a signal ends it.
InLoop = Callable[[Coroutine[object, object, int], bool], int]


def run_as_process(argv: Sequence[str]) -> int:
    """Run a command as this process, with its signals, which are held so far; return its exit code."""
    held_signals.end_at_once(ends_well=False)
    open_standard_streams()
    code = run(argv, in_loop=_in_loop, parsed=_let_signals_end)
    # From here on they would only be a traceback, or another exit code: the interpreter ends within a moment.
    held_signals.ignore()
    return flushed(code)


def _let_signals_end(serves: bool) -> None:
    held_signals.end_at_once(ends_well=serves)
    held_signals.release()


def _in_loop(work: Coroutine[object, object, int], serves: bool) -> int:
    from slproxy.cli.process import run_in_loop  # noqa: PLC0415  # asyncio takes longer to load than a help to show

    return run_in_loop(work, serves=serves)


def _ignore(serves: bool) -> None:
    pass


def run(argv: Sequence[str], *, in_loop: InLoop, parsed: Callable[[bool], None] = _ignore) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad usage or configuration, 3 login needed.

    ``parsed`` is told, before the command begins, whether it serves until a signal ends it.
    """
    try:
        args = parse(argv)
        command: Command = args.command
        for name in flags.SERVE - command.takes:
            if getattr(args, name) is not None:
                # It stood before the command: if ignored, `--sandbox whoami` would ask the real SalesLoft.
                args.refuse(f"--{name.replace('_', '-')} is a flag of serve; this command does not take it")
        parsed(command.serves)
        if command is HEALTHCHECK:
            from slproxy.cli.commands import healthcheck  # noqa: PLC0415  # which reads no settings but a few

            return healthcheck.run(args)
        return _run(command, args, in_loop)
    except SystemExit as end:  # --help or --version
        return int(end.code or DONE)
    except UsageError as error:
        print_note(error.text(argv))
        return error.exit_code
    except SlproxyError as error:
        print_error(error)
        return error.exit_code
    except BrokenPipeError:
        return FAILED  # whoever read our output has gone (`slproxy config | head`), and knows


def _run(command: Command, args: argparse.Namespace, in_loop: InLoop) -> int:
    if command.is_text:
        print_result(command.text(args))
        return DONE
    from slproxy.cli.settings import load_settings, warn_of_unknown_profile  # noqa: PLC0415  # no help needs them
    from slproxy.observe import start_logging  # noqa: PLC0415  # as above

    try:
        settings = load_settings(args, args.profile)
        asked = args.log_level is not None
        args.listeners = start_logging(
            level=settings.log.level if command.logs or asked else flags.QUIET,
            form=settings.log.format,
            background=command.logs or (command.runs and asked),
        )
        if command.warns_of_unknown_profile and not args.sandbox:
            warn_of_unknown_profile(settings, args)
        if command is not DOCTOR:
            for warning in settings.warnings:
                print_note(f"slproxy: warning: {warning}")
        return in_loop(command.load()(settings, args), command.serves)
    except ConfigError as error:
        if command is not DOCTOR:
            raise
        # A mistake in the settings is a finding like any other.
        from slproxy.cli.commands import doctor  # noqa: PLC0415  # takes long to load
        from slproxy.cli.finding import finding_from  # noqa: PLC0415  # the same

        doctor.print_findings([finding_from("config", error)], as_json=args.json)
        return error.exit_code
