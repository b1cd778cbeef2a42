"""Command-line parser: every command, its flags and its help.

A new command is a file in ``cli/commands`` that has ``async def run(settings, args) -> int``, or ``text(args) -> str``
where no setting has a part in it, and an entry in ``COMMANDS`` (``Command`` says what it can declare). Its file is
named like it: ``store move`` is ``store_move.py``.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import slproxy
from slproxy.cli import held_signals
from slproxy.cli.output import print_result

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from _typeshed import SupportsWrite

    from slproxy.config import Settings

    Run = Callable[[Settings, argparse.Namespace], Coroutine[object, object, int]]

# Where the fake SalesLoft listens by default.
SANDBOX_HOST, SANDBOX_PORT = "127.0.0.1", 8643
# The flags that say where a proxy is, and all flags of serve. They may stand before the command as well.
_ADDRESS = frozenset({"host", "port", "uds"})
SERVE_FLAGS = _ADDRESS | {"read_only", "sandbox"}
_STORES = ("file", "keyring", "redis")


def _path(text: str) -> Path:
    from pathlib import Path  # noqa: PLC0415  # see Command

    return Path(text)


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    pass


class Command(NamedTuple):
    """One command. What it does is ``run`` in ``cli/commands/<name>.py``, which is loaded only when it is called.

    It is no dataclass, nor is a path made one before it is needed: a help would load for half as long again.
    """

    name: str
    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None] = _add_nothing
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


def _add_serve_flags(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument("--host", default=unset, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=unset, help="port to listen on (default: 8642; 0: any)")
    parser.add_argument("--uds", metavar="PATH", default=unset, help="Unix socket to listen on instead")
    parser.add_argument("--read-only", action="store_true", default=unset, help="allow only GET, HEAD and OPTIONS")
    parser.add_argument(
        "--sandbox", action="store_true", default=unset, help="serve against the built-in fake SalesLoft"
    )


def _add_address_flags(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument(
        "--host", default=unset, help="address on which the proxy listens, or would (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=unset, help="its port (default: 8642)")
    parser.add_argument("--uds", metavar="PATH", default=unset, help="its Unix socket instead")


def _add_healthcheck_flags(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "It exits with 0 if so, else with 1 and a line with the reason. For Docker and Kubernetes."
    parser.add_argument("--ready", action="store_true", help="ask whether it can get a token, too")
    _add_address_flags(parser)


def _add_status_flags(parser: argparse.ArgumentParser) -> None:
    _add_address_flags(parser)
    parser.add_argument("--watch", action="store_true", help="show the proxy, its budget and requests until Ctrl-C")


def _add_login_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-browser", action="store_true", help="print the URL, and ask for the redirect URL")
    parser.add_argument("--replace", action="store_true", help="replace another user's login without asking")


def _add_inspect_flags(parser: argparse.ArgumentParser) -> None:
    _add_address_flags(parser)
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def _add_logout_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="log out of every profile")


def _add_store_move_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", choices=_STORES, required=True, help="where to move it")
    parser.add_argument("--from", dest="source", choices=_STORES, help="where it is now (default: store.kind)")


def _add_store_rekey_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new-key-file",
        type=_path,
        metavar="FILE",
        help="file with the new key (default: a random key in the keyring)",
    )


def _add_sandbox_flags(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.epilog = "Its pages under /_sandbox/ inject faults, move its clock and more; /_sandbox/ lists them."
    parser.add_argument("--host", default=unset, help=f"address to listen on (default: {SANDBOX_HOST})")
    parser.add_argument("--port", default=unset, help=f"port to listen on (default: {SANDBOX_PORT}; 0: any)")
    # `commands/sandbox.py` checks what they are given. The defaults are those of the sandbox's Options, which take too
    # long to load for a help.
    parser.add_argument("--client-id", help="the OAuth client id that it accepts (default: sandbox-client)")
    parser.add_argument(
        "--redirect-uri",
        action="append",
        metavar="URI",
        help="a redirect URI of that client; may be repeated (default: http://localhost:3000/callback)",
    )
    parser.add_argument("--token-lifetime", metavar="SECONDS", help="lifetime of an access token (default: 7200)")
    parser.add_argument(
        "--rotation",
        choices=("immediate", "on-use"),
        help="when a renewal invalidates the old tokens: at once, or when the new access token is first used"
        " (default: immediate)",
    )
    parser.add_argument("--budget", metavar="COST", help="cost that the team may spend a minute (default: 600)")


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [rules] -- CMD [ARGS ...]"
    parser.epilog = (
        "CMD finds the proxy's address in SALESLOFT_BASE_URL and SLPROXY_URL, and a key for it, which is worth nothing"
        " elsewhere, in SALESLOFT_API_KEY and SLPROXY_KEY. Its exit code is that of this command."
    )
    # Rules of the one client, and no settings of the proxy's.
    parser.add_argument("--read-only", dest="only_reads", action="store_true", help="allow only GET, HEAD and OPTIONS")
    parser.add_argument("--accept-path", action="append", metavar="PATH", help="forward only this; may be repeated")
    parser.add_argument("--reject-path", action="append", metavar="PATH", help="do not forward this; may be repeated")
    parser.add_argument("--budget", metavar="COST", help="cost that it may spend a minute")
    parser.add_argument("--name", help="what the log calls it; the rules of [client.NAME] are its own (default: run)")
    parser.add_argument(
        "--sandbox", action="store_true", default=argparse.SUPPRESS, help="run it against the built-in fake SalesLoft"
    )
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD", help="the program, and what it is given")


SERVE = Command(
    name="serve",
    summary="run the proxy (the default)",
    add_flags=_add_serve_flags,
    takes=SERVE_FLAGS,
    logs=True,
    serves=True,
)
DOCTOR = Command(
    name="doctor",
    summary="diagnose problems and suggest fixes",
    add_flags=_add_address_flags,
    facts=True,
    takes=_ADDRESS,
)
HEALTHCHECK = Command(
    name="healthcheck",
    summary="tell whether the proxy is up, or ready",
    add_flags=_add_healthcheck_flags,
    takes=_ADDRESS,
)
COMMANDS = (
    SERVE,
    Command(
        name="run",
        summary="run a program behind a proxy of its own",
        add_flags=_add_run_flags,
        takes=frozenset({"sandbox"}),
        runs=True,
    ),
    Command(
        name="login",
        summary="log in with the browser, once",
        add_flags=_add_login_flags,
        warns_of_unknown_profile=False,
    ),
    Command(name="logout", summary="revoke the token at SalesLoft, then delete it here", add_flags=_add_logout_flags),
    Command(name="whoami", summary="show who the token belongs to", facts=True),
    Command(
        name="status",
        summary="show the grant, the token, the proxy and its budget",
        add_flags=_add_status_flags,
        facts=True,
        takes=_ADDRESS,
    ),
    Command(
        name="inspect",
        summary="open the running proxy's inspector in the browser",
        add_flags=_add_inspect_flags,
        takes=_ADDRESS,
    ),
    Command(name="token", summary="print a valid access token, for scripts", facts=True),
    DOCTOR,
    HEALTHCHECK,
    Command(name="config", summary="print the effective settings and where each came from", facts=True),
    Command(name="key", summary="print a fresh random local key", is_text=True),
    Command(name="skill", summary="print how an AI agent is to use this proxy", is_text=True),
    Command(name="profiles", summary="list the profiles and their logins", facts=True),
    Command(name="store move", summary="move the login to another kind of store", add_flags=_add_store_move_flags),
    Command(name="store rekey", summary="change the key that encrypts the login", add_flags=_add_store_rekey_flags),
    Command(
        name="sandbox",
        summary="run only the fake SalesLoft",
        add_flags=_add_sandbox_flags,
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


class Parser(argparse.ArgumentParser):
    """Names no value in its errors: a value may be a secret, and standard error is often kept."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2, naming flags only."""
        super().error(_reworded(message))

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print a help like any result: argparse says nothing where it could not write."""
        held_signals.release()  # whoever reads it may have stalled
        if file is sys.stdout:
            print_result(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)


def _reworded(message: str) -> str:
    known, _, given = message.partition("unrecognized arguments: ")
    if given:
        words = given.split()
        flags = [word.partition("=")[0] if word.startswith("--") else word[:2] for word in words if word[0] == "-"]
        unknown = f"unknown: {' '.join(flags)}" if flags else "there is a word too many, which is no flag"
        return f"{known}{unknown} (--help shows what there is)"
    if choice := re.search(r"^argument (.*?): invalid choice: (.*) \(choose from (.*)\)$", message, re.DOTALL):
        import difflib  # noqa: PLC0415  # only for a typo

        names = re.findall(r"[\w-]+", choice[3])
        near = difflib.get_close_matches(choice[2].strip("'\""), names, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        return f"argument {choice[1]}: {meant}It is one of {', '.join(names)}"
    message = re.sub(r"invalid (int|float) value: .*", r"expected a number", message, flags=re.DOTALL)
    message = re.sub(r"ignored explicit argument .*", "takes no value", message, flags=re.DOTALL)
    return re.sub(r"=.* could match", " could match", message, flags=re.DOTALL)


def build_parser() -> Parser:
    """Return the parser of the whole command line; ``command`` in what it parses is the Command."""
    parser = Parser(
        prog="slproxy",
        description="A local reverse proxy for the SalesLoft API that adds the token. The default command is serve.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"slproxy {slproxy.__version__}")
    parser.set_defaults(command=SERVE, config=None, profile=None, json=False, **dict.fromkeys(SERVE_FLAGS))
    _add_common_flags(parser)
    _add_serve_flags(parser)
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


def _add_command(parsers: argparse._SubParsersAction[Parser], name: str, command: Command) -> None:
    parser = parsers.add_parser(name, help=command.summary, description=_sentence(command.summary))
    parser.set_defaults(command=command, refuse=parser.error)
    _add_common_flags(parser)
    if command.facts:
        parser.add_argument("--json", action="store_true", help="print JSON")
    command.add_flags(parser)


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument(
        "--config", type=_path, metavar="FILE", default=unset, help="settings file (default: ./slproxy.toml)"
    )
    parser.add_argument("--profile", metavar="NAME", default=unset, help="profile whose settings and token to use")


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."
