"""Flags: what each command takes, and what they all do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Where the fake SalesLoft listens by default.
SANDBOX_HOST, SANDBOX_PORT = "127.0.0.1", 8643
# The flags that say where a proxy is, and all flags of serve. They may stand before the command as well.
ADDRESS = frozenset({"host", "port", "uds"})
SERVE = ADDRESS | {"read_only", "sandbox"}
# What -v and -q stand for, and --log-level takes, from much to little.
VERBOSE, QUIET = "debug", "error"
LEVELS = (VERBOSE, "info", "warning", QUIET)
_STORES = ("file", "keyring", "redis")


def path(text: str) -> Path:
    """Return what a flag names as a path; the module that makes one is loaded only then."""
    from pathlib import Path  # noqa: PLC0415  # see Command

    return Path(text)


def add_nothing(parser: argparse.ArgumentParser) -> None:
    """Add no flag."""


def add_common_flags(parser: argparse.ArgumentParser, *, facts: bool = False) -> None:
    """Add what every command takes; with ``facts`` also --json."""
    unset = argparse.SUPPRESS
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--config", type=path, metavar="FILE", default=unset, help="settings file (default: ./slproxy.toml)"
    )
    group.add_argument("--profile", metavar="NAME", default=unset, help="profile whose settings and token to use")
    if facts:
        group.add_argument("--json", action="store_true", help="print JSON")
    for names, const, text in (
        (("-v", "--verbose"), VERBOSE, "log more: the level debug"),
        (("-q", "--quiet"), QUIET, "log only errors"),
    ):
        group.add_argument(*names, action="store_const", const=const, dest="log_level", default=unset, help=text)
    group.add_argument(
        "--log-level",
        type=str.lower,
        choices=LEVELS,
        metavar="LEVEL",
        default=unset,
        help=f"lowest level that is logged: {', '.join(LEVELS[:-1])} or {LEVELS[-1]}",
    )


def add_serve_flags(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument("--host", default=unset, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("-p", "--port", type=int, default=unset, help="port to listen on (default: 8642; 0: any)")
    parser.add_argument("--uds", metavar="PATH", default=unset, help="Unix socket to listen on instead")
    parser.add_argument("--read-only", action="store_true", default=unset, help="allow only GET, HEAD and OPTIONS")
    parser.add_argument(
        "--sandbox", action="store_true", default=unset, help="serve against the built-in fake SalesLoft"
    )


def add_address_flags(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument(
        "--host", default=unset, help="address on which the proxy listens, or would (default: 127.0.0.1)"
    )
    parser.add_argument("-p", "--port", type=int, default=unset, help="its port (default: 8642)")
    parser.add_argument("--uds", metavar="PATH", default=unset, help="its Unix socket instead")


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    add_address_flags(parser)
    parser.add_argument(
        "--read-only", action="store_true", default=argparse.SUPPRESS, help="as serve takes it: what comes of it"
    )


def add_healthcheck_flags(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "It exits with 0 if so, else with 1 and a line with the reason. For Docker and\nKubernetes."
    parser.add_argument("--ready", action="store_true", help="ask whether it can get a token, too")
    add_address_flags(parser)


def add_status_flags(parser: argparse.ArgumentParser) -> None:
    add_address_flags(parser)
    parser.add_argument("--watch", action="store_true", help="show the proxy, its budget and requests until Ctrl-C")


def add_login_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-browser", action="store_true", help="print the URL, and ask for the redirect URL")
    parser.add_argument("--replace", action="store_true", help="replace another user's login without asking")


def add_inspect_flags(parser: argparse.ArgumentParser) -> None:
    add_address_flags(parser)
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def add_completion_flags(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """\
in ~/.bashrc or ~/.zshrc (bash, zsh), or ~/.config/fish/config.fish:
  eval "$(slproxy completion bash)"
  eval "$(slproxy completion zsh)"
  slproxy completion fish | source
"""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell it is for")


def add_profiles_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--names", action="store_true", help="print only their names, without a look at the logins")


def add_logout_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="log out of every profile")


def add_store_move_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", choices=_STORES, required=True, help="where to move it")
    parser.add_argument("--from", dest="source", choices=_STORES, help="where it is now (default: store.kind)")


def add_store_rekey_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--new-key-file",
        type=path,
        metavar="FILE",
        help="file with the new key (default: a random key in the keyring)",
    )


def add_sandbox_flags(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.epilog = "Its pages under /_sandbox/ inject faults, move its clock and more; /_sandbox/ lists\nthem."
    parser.add_argument("--host", default=unset, help=f"address to listen on (default: {SANDBOX_HOST})")
    parser.add_argument("-p", "--port", default=unset, help=f"port to listen on (default: {SANDBOX_PORT}; 0: any)")
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


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [options] [rules] -- CMD [ARGS ...]"
    parser.epilog = """\
CMD finds the proxy's address in SALESLOFT_BASE_URL and SLPROXY_URL, and a key for
it, which is worth nothing elsewhere, in SALESLOFT_API_KEY and SLPROXY_KEY. No
other secret of slproxy's is in its environment. Its exit code is that of this
command; the proxy ends with it.

examples:
  slproxy run -- python report.py
  slproxy run --read-only --reject-path /v2/users --budget 100 -- claude
"""
    parser.add_argument(
        "--sandbox", action="store_true", default=argparse.SUPPRESS, help="run it against the built-in fake SalesLoft"
    )
    # Rules of the one client, and no settings of the proxy's.
    rules = parser.add_argument_group("rules of what CMD may do")
    rules.add_argument("--read-only", dest="only_reads", action="store_true", help="allow only GET, HEAD and OPTIONS")
    rules.add_argument("--accept-path", action="append", metavar="PATH", help="forward only this; may be repeated")
    rules.add_argument("--reject-path", action="append", metavar="PATH", help="do not forward this; may be repeated")
    rules.add_argument("--budget", metavar="COST", help="cost that it may spend a minute")
    rules.add_argument("--name", help="what the log calls it; the rules of [client.NAME] are its own (default: run)")
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD", help="the program, and what it is given")
