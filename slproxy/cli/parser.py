"""Command-line parser: every command, its flags and its help.

A new command is a file in ``cli/commands`` that has ``async def run(settings, args) -> int``, or ``text(args) -> str``
where no setting has a part in it, and an entry in ``COMMANDS`` (``Command`` says what it can declare). Its file is
named like it: ``store move`` is ``store_move.py``. Its flags are added in ``flags``.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, NamedTuple

import slproxy
from slproxy.cli import flags
from slproxy.cli.usage import Parser

if TYPE_CHECKING:
    from types import ModuleType

    from slproxy.config import Settings

    Run = Callable[[Settings, argparse.Namespace], Coroutine[object, object, int]]


class Command(NamedTuple):
    """One command. What it does is ``run`` in ``cli/commands/<name>.py``, which is loaded only when it is called.

    It is no dataclass, nor is a path made one before it is needed: a help would load for half as long again.
    """

    name: str
    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None] = flags.add_nothing
    # It prints facts, so it takes --json.
    facts: bool = False
    # Which flags of serve it takes.
    takes: frozenset[str] = frozenset()
    # It works on the profile's settings and login, so a profile that has neither is worth a warning.
    warns_of_unknown_profile: bool = True
    # It logs what log.level asks for; the others say themselves what failed.
    logs: bool = False
    # It serves until SIGTERM or Ctrl-C, and ends well by them; they are held until it handles them, and releases them.
    serves: bool = False
    # Its --host and --port are settings of the proxy.
    flags_are_settings: bool = True
    # It runs a program, as a client by rules of its own.
    runs: bool = False
    # It prints what no setting has a part in, which its module's ``text(args)`` returns; there is no ``run``.
    is_text: bool = False

    def load(self) -> Run:
        """Import the command's module and return what runs it."""
        run: Run = self._module().run
        return run

    def text(self, args: argparse.Namespace) -> str:
        """Import the command's module and return what it prints."""
        text: str = self._module().text(args)
        return text

    def _module(self) -> ModuleType:
        return importlib.import_module(f"slproxy.cli.commands.{self.name.replace(' ', '_')}")


SERVE = Command(
    name="serve",
    summary="run the proxy (the default)",
    add_flags=flags.add_serve_flags,
    takes=flags.SERVE,
    logs=True,
    serves=True,
)
DOCTOR = Command(
    name="doctor",
    summary="diagnose problems and suggest fixes",
    add_flags=flags.add_address_flags,
    facts=True,
    takes=flags.ADDRESS,
)
HEALTHCHECK = Command(
    name="healthcheck",
    summary="tell whether the proxy is up, or ready",
    add_flags=flags.add_healthcheck_flags,
    takes=flags.ADDRESS,
)
COMMANDS = (
    SERVE,
    Command(
        name="run",
        summary="run a program behind a proxy of its own",
        add_flags=flags.add_run_flags,
        takes=frozenset({"sandbox"}),
        runs=True,
    ),
    Command(
        name="login",
        summary="log in with the browser, once",
        add_flags=flags.add_login_flags,
        warns_of_unknown_profile=False,
    ),
    Command(
        name="logout", summary="revoke the token at SalesLoft, then delete it here", add_flags=flags.add_logout_flags
    ),
    Command(name="whoami", summary="show who the token belongs to", facts=True),
    Command(
        name="status",
        summary="show the grant, the token, the proxy and its budget",
        add_flags=flags.add_status_flags,
        facts=True,
        takes=flags.ADDRESS,
    ),
    Command(
        name="inspect",
        summary="open the running proxy's inspector in the browser",
        add_flags=flags.add_inspect_flags,
        takes=flags.ADDRESS,
    ),
    Command(name="token", summary="print a valid access token, for scripts", facts=True),
    DOCTOR,
    HEALTHCHECK,
    Command(
        name="config",
        summary="print the effective settings and where each came from",
        add_flags=flags.add_config_flags,
        facts=True,
        takes=flags.ADDRESS | {"read_only"},
    ),
    Command(name="key", summary="print a fresh random local key", is_text=True),
    Command(name="skill", summary="print how an AI agent is to use this proxy", is_text=True),
    Command(
        name="profiles",
        summary="list the profiles and their logins",
        add_flags=flags.add_profiles_flags,
        facts=True,
    ),
    Command(name="store move", summary="move the login to another kind of store", add_flags=flags.add_store_move_flags),
    Command(
        name="store rekey", summary="change the key that encrypts the login", add_flags=flags.add_store_rekey_flags
    ),
    Command(
        name="completion",
        summary="print a script for the shell, which completes commands and flags",
        add_flags=flags.add_completion_flags,
        is_text=True,
    ),
    Command(
        name="sandbox",
        summary="run only the fake SalesLoft",
        add_flags=flags.add_sandbox_flags,
        takes=frozenset({"host", "port"}),
        warns_of_unknown_profile=False,
        logs=True,
        serves=True,
        flags_are_settings=False,
    ),
)
# Commands of more than one word, and what the first of them is for.
GROUPS = {"store": "move the login to another store, or change its encryption key"}

_EPILOG = """\
Precedence of settings: flags, environment, .env, slproxy.toml, defaults (see config.example.toml).

exit codes:
  0 done, 1 failed, 2 bad usage or configuration, 3 login needed

example:
  export SALESLOFT_API_KEY=...
  slproxy serve &
  curl http://localhost:8642/v2/me.json
"""


def build_parser() -> Parser:
    """Return the parser of the whole command line; ``command`` in what it parses is the Command."""
    parser = Parser(
        prog="slproxy",
        description="A local reverse proxy for the SalesLoft API that adds the token. The default command is serve.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"slproxy {slproxy.__version__}")
    unset = dict.fromkeys(("config", "profile", "log_level", *flags.SERVE))
    parser.set_defaults(command=SERVE, refuse=parser.error, unknown=parser.unknown, json=False, **unset)
    flags.add_serve_flags(parser)
    flags.add_common_flags(parser)
    # Named, since argparse loads much to find out the same.
    top = parser.add_subparsers(metavar="COMMAND", title="commands", prog=parser.prog)
    groups: dict[str, argparse._SubParsersAction[Parser]] = {}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group and group not in groups:
            described = top.add_parser(group, help=GROUPS[group], description=_sentence(GROUPS[group]))
            groups[group] = described.add_subparsers(
                metavar="COMMAND", title="commands", required=True, prog=described.prog
            )
        _add_command(groups[group] if group else top, name, command)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return what a command line says. Raises UsageError, and SystemExit after a help."""
    args, unknown = build_parser().parse_known_args(words)
    if unknown:
        args.unknown(unknown)
    return args


def _add_command(parsers: argparse._SubParsersAction[Parser], name: str, command: Command) -> None:
    parser = parsers.add_parser(
        name,
        help=command.summary,
        description=_sentence(command.summary),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command, refuse=parser.error, unknown=parser.unknown)
    command.add_flags(parser)
    flags.add_common_flags(parser, facts=command.facts)


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."
