"""The command-line parser: every command and its flags."""

from __future__ import annotations

import argparse
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import slproxy
from slproxy.cli.config import show_config
from slproxy.cli.doctor import diagnose
from slproxy.cli.login import log_in
from slproxy.cli.logout import log_out
from slproxy.cli.profiles import profiles
from slproxy.cli.sandbox import SANDBOX_HOST, SANDBOX_PORT, run_sandbox
from slproxy.cli.serve import serve
from slproxy.cli.status import status
from slproxy.cli.store import move, rekey
from slproxy.cli.token import token
from slproxy.cli.whoami import who_am_i
from slproxy.config import Settings

if TYPE_CHECKING:
    pass


Command = Callable[[Settings, argparse.Namespace], Awaitable[int]]


# What can be typed.


class _Parser(argparse.ArgumentParser):
    """Complains without repeating a value: it may be a secret, and standard error is often kept."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2, naming flags only."""
        known, _, given = message.partition("unrecognized arguments: ")
        if given:
            flags = [word.partition("=")[0] if word.startswith("--") else word[:2] for word in given.split()]
            message = " ".join([f"{known}unrecognized arguments:", *(flag for flag in flags if flag[0] == "-"), "..."])
        message = re.sub(r"(invalid choice|invalid \w+ value|explicit argument):? '.*'(?= \(|$)", r"\1", message)
        super().error(re.sub(r"=.* could match", " could match", message))


_EPILOG = """\
Settings come from flags, the environment, .env and slproxy.toml: see config.example.toml.

exit codes:
  0 done, 1 failed, 2 bad usage or configuration, 3 login needed

example:
  export SALESLOFT_API_KEY=...
  slproxy serve &
  curl http://localhost:8642/v2/me.json
"""


def build_parser() -> _Parser:
    parser = _Parser(
        prog="slproxy",
        description="A local reverse proxy for the SalesLoft API that keeps the token. Without a command it serves.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"slproxy {slproxy.__version__}")
    parser.set_defaults(run=serve, takes=SERVES, config=None, profile=None, json=False)
    parser.set_defaults(**dict.fromkeys(SERVES))
    _add_common(parser)
    _add_serving(parser)
    parsers = parser.add_subparsers(metavar="COMMAND", title="commands")

    serving = _command(parsers, "serve", serve, "run the proxy (the default)", takes=SERVES)
    _add_serving(serving)
    logging_in = _command(parsers, "login", log_in, "log in once, in the browser")
    logging_in.add_argument("--no-browser", action="store_true", help="print the address and take the pasted answer")
    logging_in.add_argument("--replace", action="store_true", help="replace the login of somebody else, unasked")
    logging_out = _command(parsers, "logout", log_out, "revoke the token at SalesLoft, then forget it")
    logging_out.add_argument("--all", action="store_true", help="log out of every profile")
    _command(parsers, "whoami", who_am_i, "ask SalesLoft who the token belongs to", facts=True)
    telling = _command(
        parsers, "status", status, "tell about the grant, the token and the proxy", facts=True, takes=_ADDRESS
    )
    _add_address(telling, "the proxy listens")
    _command(parsers, "token", token, "print a valid access token, for scripts", facts=True)
    looking = _command(
        parsers, "doctor", diagnose, "look for what is wrong, and say what to do", facts=True, takes=_ADDRESS
    )
    _add_address(looking, "the proxy listens, or would")
    _command(parsers, "config", show_config, "print the settings in force and where each came from", facts=True)
    _command(parsers, "profiles", profiles, "list the profiles and their logins", facts=True)
    summary = "move a login to another store, or change its key"
    store = parsers.add_parser("store", help=summary, description=_sentence(summary))
    of_store = store.add_subparsers(metavar="COMMAND", title="commands", required=True)
    moving = _command(of_store, "move", move, "move the login to another kind of store")
    kinds = ("file", "keyring", "redis")
    moving.add_argument("--to", choices=kinds, required=True, help="where it goes")
    moving.add_argument("--from", dest="source", choices=kinds, help="where it is (default: store.kind)")
    rekeying = _command(of_store, "rekey", rekey, "seal the login with another key")
    rekeying.add_argument(
        "--new-key-file", type=Path, metavar="FILE", help="file that holds it (default: a new one in the keyring)"
    )

    _add_sandbox(parsers)
    return parser


# What says where a proxy is, and all that serve takes; before the command or after it.
_ADDRESS = frozenset({"host", "port", "uds"})
SERVES = _ADDRESS | {"read_only", "sandbox"}


def _command(
    parsers: argparse._SubParsersAction[_Parser],
    name: str,
    command: Command,
    summary: str,
    *,
    facts: bool = False,
    takes: frozenset[str] = frozenset(),
) -> _Parser:
    parser = parsers.add_parser(name, help=summary, description=_sentence(summary))
    parser.set_defaults(run=command, takes=takes, refuse=parser.error)
    _add_common(parser)
    if facts:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_sandbox(parsers: argparse._SubParsersAction[_Parser]) -> None:
    sandbox = _command(
        parsers, "sandbox", run_sandbox, "run only the fake SalesLoft", takes=frozenset({"host", "port"})
    )
    sandbox.epilog = "Its pages under /_sandbox/ arm faults, move its clock and more; /_sandbox/ itself lists them."
    unset = argparse.SUPPRESS
    sandbox.add_argument("--host", default=unset, help=f"address to listen on (default: {SANDBOX_HOST})")
    sandbox.add_argument("--port", type=int, default=unset, help=f"port to listen on (default: {SANDBOX_PORT}; 0: any)")
    # The defaults are those of its Options, which take too long to load for a help.
    sandbox.add_argument("--client-id", help="the one OAuth client that it knows (default: sandbox-client)")
    sandbox.add_argument(
        "--redirect-uri",
        action="append",
        metavar="URI",
        help="a redirect URI of that client; may be repeated (default: http://localhost:3000/callback)",
    )
    sandbox.add_argument(
        "--token-lifetime", type=float, metavar="SECONDS", help="how long an access token lives (default: 7200)"
    )
    sandbox.add_argument(
        "--rotation",
        choices=("immediate", "on-use"),
        help="when a renewal ends the old pair: at once, or when the new access token is first used"
        " (default: immediate)",
    )
    sandbox.add_argument(
        "--budget", type=int, metavar="COST", help="cost that the team may spend per clock minute (default: 600)"
    )


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="settings file (default: ./slproxy.toml)"
    )
    parser.add_argument(
        "--profile", metavar="NAME", default=argparse.SUPPRESS, help="profile whose settings and token to use"
    )


def _add_address(parser: argparse.ArgumentParser, whose: str) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument("--host", default=unset, help=f"address on which {whose} (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=unset, help="its port (default: 8642)")
    parser.add_argument("--uds", metavar="PATH", default=unset, help="its Unix socket instead")


def _add_serving(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument("--host", default=unset, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=unset, help="port to listen on (default: 8642; 0: any)")
    parser.add_argument("--uds", metavar="PATH", default=unset, help="Unix socket to listen on instead")
    parser.add_argument("--read-only", action="store_true", default=unset, help="let only GET, HEAD and OPTIONS pass")
    parser.add_argument(
        "--sandbox", action="store_true", default=unset, help="serve against the built-in fake SalesLoft"
    )
