"""The command line: what a person types, and what they are told."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import http.client
import json
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import slproxy
from slproxy import commands, config, doctor, journal, login, oauth, probe, status
from slproxy.app import App
from slproxy.commands import complain, say
from slproxy.errors import ConfigError, LoginRequired, SlproxyError
from slproxy.settings import Auth, Secret, Settings
from slproxy.settings import Store as StoreRules
from slproxy.store import MemoryStore, Record, TokenStore

if TYPE_CHECKING:
    from slproxy.sandbox import Options, Sandbox

STDIN, STDERR = 0, 2
DONE, FAILED = 0, 1

log = logging.getLogger("slproxy")

# How often the files that hold secrets are looked at, in seconds.
WATCH = 2.0
# How many objects may be new before cycles among them are looked for.
GARBAGE = 10_000
# Where the fake SalesLoft listens, unless told otherwise.
SANDBOX_HOST, SANDBOX_PORT = "127.0.0.1", 8643

Command = Callable[[Settings, argparse.Namespace], Awaitable[int]]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code: 0 done, 1 failed, 2 bad usage or configuration, 3 login needed."""
    _open_standard_streams()
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def _open_standard_streams() -> None:
    """Open what was closed at the start (``slproxy login <&-``): the next file would take its place."""
    for descriptor in range(STDIN, STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def run(argv: Sequence[str]) -> int:
    """Run a command and return its exit code."""
    args = _parser().parse_args(argv)
    command: Command = args.run
    for name in _SERVES - args.takes:
        if getattr(args, name) is not None:
            # It stood before the command: left aside in silence, `--sandbox whoami` would ask the real SalesLoft.
            args.refuse(f"--{name.replace('_', '-')} is a flag of serve, and this command does not take it")
    try:
        settings = _settings(args, args.profile, Path.cwd())
        if command not in (commands.log_in, _sandbox) and not args.sandbox:
            _doubt_profile(settings, args)
        # The other commands say themselves what failed.
        level = settings.log.level if command is _serve else "error"
        args.journal = journal.start(level=level, form=settings.log.format)
        return _in_a_loop(command(settings, args))
    except ConfigError as error:
        if command is _doctor:
            _diagnosed([doctor.of_error("config", error)], as_json=args.json)
        else:
            complain(error)
        return error.exit_code
    except SlproxyError as error:
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone (`slproxy config | head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _in_a_loop(work: Coroutine[object, object, int] | Awaitable[int]) -> int:
    """Run in an event loop: uvloop's, where the extra is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415  # optional: the extra `uvloop`

        factory = uvloop.new_event_loop

    # While the loop is made and taken down a signal would be a traceback: there it waits.
    ends = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    async def working() -> int:
        task = asyncio.current_task()
        assert task is not None
        ended_by: list[int] = []

        def end(number: int) -> None:
            # Once: on the way down a renewal is waited for, and a second signal must not cut that short.
            if not ended_by:
                ended_by.append(number)
                task.cancel()

        for number in ends:
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
        try:
            return await work
        except asyncio.CancelledError:
            if not ended_by:
                raise
            return 128 + ended_by[0]
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(working())


# The commands, in the order of the help.


async def _serve(settings: Settings, args: argparse.Namespace) -> int:
    stop, at_once, hup = asyncio.Event(), asyncio.Event(), asyncio.Event()
    # nohup(1) has the signal ignored: then the end of the terminal is not ours.
    ends_with_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def ask_to_stop() -> None:
        (at_once if stop.is_set() else stop).set()

    def hang_up() -> None:
        # The same signal says that the terminal was closed: then whoever started the proxy there has gone.
        (stop if ends_with_terminal and not _has_terminal() else hup).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask_to_stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
    _allow_open_files()
    seen = _stamps(settings)
    async with contextlib.AsyncExitStack() as stack:
        store: TokenStore | None = None
        fit: Callable[[Settings], Settings] = _as_given
        if args.sandbox is not None:
            fit, store = await stack.enter_async_context(_against_a_sandbox(settings))
        app = await stack.enter_async_context(App(fit(settings), store=store, journal=args.journal))
        await app.listen()
        load = functools.partial(_settings, args, settings.profile, Path.cwd())
        reloading = asyncio.create_task(_keep_reloading(app, lambda: fit(load()), hup, seen))
        await _announce(app, sandbox=args.sandbox is not None)
        # All that is here stays, and a request leaves no cycle behind: to look for them at every 700th new object, as
        # Python does by itself, takes some percent of a request's time (benchmarks/README.md).
        gc.freeze()
        gc.set_threshold(GARBAGE)
        await stop.wait()
        reloading.cancel()
        await asyncio.wait({reloading})
        await app.drain(at_once=at_once)
    return DONE


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _as_given(settings: Settings) -> Settings:
    return settings


def _settings(args: argparse.Namespace, profile: str | None, cwd: Path) -> Settings:
    return config.load(config=args.config, profile=profile, flags=_flags(args), environ=os.environ, cwd=cwd)


def _doubt_profile(settings: Settings, args: argparse.Namespace) -> None:
    """Tell of a profile that nothing is known of: a misspelt one would just have no login."""
    if settings.store.kind != "file" or settings.was_given("store.path"):
        return  # whose logins are kept in another place is not known
    if args.config is not None and not args.config.is_file():
        return  # a pipe is read once
    known = config.profiles(config=args.config, environ=os.environ, cwd=Path.cwd())
    if settings.profile not in known:
        nothing = f"the profile {settings.profile} has neither settings nor a login"
        say(f"slproxy: warning: {nothing}; known are: {', '.join(known)}")


Stamps = dict[str, tuple[int, int, int] | None]


async def _keep_reloading(app: App, load: Callable[[], Settings], hup: asyncio.Event, seen: Stamps) -> None:
    """Read the settings again at SIGHUP, and when a file that holds a secret is not as it was ``seen``."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH):
                await hup.wait()
        # Before the files are read: what changes meanwhile is seen the next time.
        now = _stamps(app.settings)
        asked = hup.is_set()
        hup.clear()
        if now == seen and not asked:
            continue
        try:
            # In a thread that nobody waits for at the end: what is mounted may hang.
            changed, later = await app.reload(await commands.in_a_daemon(load))
        except SlproxyError as error:
            log.error("the settings stay as they were: %s %s", error.detail, error.hint)  # noqa: TRY400  # says it all
            # What is wrong with the settings changes when they do; what is wrong with the store may be over soon.
            seen = now if isinstance(error, ConfigError) else seen
        except Exception:
            # The outermost frame of this task: without it a defect would end the reloading, and say nothing.
            log.exception("a defect in slproxy, while reading the settings again")
            seen = now
        else:
            if changed or asked:
                log.info("settings read again; changed: %s", ", ".join(changed) or "none")
            if later:
                log.warning("these want a new start of the proxy: %s", ", ".join(later))
            # A file that was not looked at before may have changed since it was read: another look costs nothing.
            seen = {path: now.get(path) for path in _stamps(app.settings)}


def _stamps(settings: Settings) -> Stamps:
    """Return what tells whether the files that hold secrets have changed."""
    stamps: Stamps = {}
    for origin in settings.origins.values():
        if origin.path:
            with contextlib.suppress(OSError):
                stat = os.stat(origin.path)  # noqa: PTH116  # a path is a text here
                stamps[origin.path] = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
    return stamps


def _allow_open_files() -> None:
    """Let the process open as many files as it may: a thousand clients do not fit into the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS says no to its own "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _SandboxLogin(MemoryStore):
    """A login at the sandbox; in the place of one that is dead comes another, where a person would log in again."""

    def __init__(self, sandbox: Sandbox, profile: str) -> None:
        self._sandbox, self._profile = sandbox, profile
        super().__init__(self._login(1))

    def _login(self, number: int) -> Record:
        pair, now = self._sandbox.issue(), time.time()
        token = oauth.Token(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            obtained_at=now,
            expires_at=now + self._sandbox.options.token_lifetime,
        )
        return Record(
            client_id=self._sandbox.options.client_id,
            accounts_url=self._sandbox.url,
            profile=self._profile,
            token=token,
            login=number,
        )

    async def write(self, record: Record) -> None:
        await super().write(self._login(record.login + 1) if record.refused else record)


@asynccontextmanager
async def _against_a_sandbox(
    settings: Settings,
) -> AsyncIterator[tuple[Callable[[Settings], Settings], TokenStore]]:
    """Run a sandbox, and give what fits settings to it, and a store in which nothing real is left."""
    from slproxy.sandbox import Options, Sandbox  # noqa: PLC0415  # only this command wants it

    options = Options()
    sandbox = Sandbox(options)
    await sandbox.start()
    try:
        store = _SandboxLogin(sandbox, settings.profile)

        def fit(settings: Settings) -> Settings:
            return replace(
                settings,
                upstream=replace(settings.upstream, api_url=sandbox.url, accounts_url=sandbox.url),
                # Always the same, so that no reload takes the real one.
                store=StoreRules(kind="memory", path=Path("none")),
                auth=Auth(
                    grant="authorization_code",
                    client_id=options.client_id,
                    client_secret=Secret(options.client_secret),
                    leeway=settings.auth.leeway,
                ),
            )

        yield fit, store
    finally:
        await sandbox.stop()


async def _announce(app: App, *, sandbox: bool) -> None:
    """Say where the proxy listens and, against the sandbox, make the first call through it."""
    where, upstream = app.urls[0], app.settings.upstream.api_url
    if sandbox:
        say(f"slproxy {slproxy.__version__}: SANDBOX, no real data. A fake SalesLoft at {upstream}.")
        try:
            answered, body = await asyncio.to_thread(
                probe.ask, probe.reachable(where), "/v2/me.json", key=app.settings.listen.key
            )
            print(f"Authenticated as: {login.identity_in(answered, body)}", flush=True)
        except (OSError, http.client.HTTPException, SlproxyError) as error:
            say(f"  The first call through it failed: {error}")
    else:
        say(f"slproxy {slproxy.__version__}: forwarding to {upstream}.")
        choice = app.credentials.choice
        say(f"  Way in: {choice.grant or 'none'}, since {choice.why}.")
        if isinstance(problem := app.credentials.problem(), LoginRequired):
            say(f"  Not ready: {problem.detail} {problem.hint}")
        elif app.credentials.choice.grant == "authorization_code":
            say(f"  The token is kept in {app.store.description}, {app.store.encryption}.")
    if app.settings.listen.allow_unauthenticated and app.settings.listen.key is None:
        say("  WARNING: whoever reaches this address uses your SalesLoft token: no local key is set.")
    key = ' -H "X-Slproxy-Key: $KEY"' if app.settings.listen.key is not None else ""
    unix = f" --unix-socket {where.removeprefix('unix:')}" if where.startswith("unix:") else ""
    base = "http://localhost" if unix else probe.reachable(where)
    print(f"Listening on {where}. Try: curl{key}{unix} {base}/v2/me.json", flush=True)


async def _doctor(settings: Settings, args: argparse.Namespace) -> int:
    return _diagnosed([finding async for finding in doctor.examine(settings)], as_json=args.json)


def _diagnosed(findings: Sequence[doctor.Finding], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([finding.fields() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.state:<8} {finding.check:<12} {finding.detail}")
            if finding.remedy and finding.state in ("warning", "broken"):
                print(f"{'':<21} -> {finding.remedy}")
    return FAILED if any(finding.state == "broken" for finding in findings) else DONE


async def _sandbox(settings: Settings, args: argparse.Namespace) -> int:  # noqa: ARG001
    from slproxy.sandbox import Sandbox  # noqa: PLC0415  # only this command wants it

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = _sandbox_options(args)
    sandbox = Sandbox(options)
    host, port = args.host or SANDBOX_HOST, SANDBOX_PORT if args.port is None else args.port
    try:
        await sandbox.start(host, port)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}.", hint="Choose another --port."
        ) from error
    try:
        _tell_about_sandbox(sandbox, options)
        await stop.wait()
    finally:
        await sandbox.stop()
    return DONE


def _sandbox_options(args: argparse.Namespace) -> Options:
    from slproxy.sandbox import Options  # noqa: PLC0415  # only this command wants it

    given = {
        "client_id": args.client_id,
        "redirect_uris": tuple(args.redirect_uri) if args.redirect_uri else None,
        "token_lifetime": args.token_lifetime,
        "rotation": args.rotation,
        "budget": args.budget,
    }
    return replace(Options(), **{name: value for name, value in given.items() if value is not None})


def _tell_about_sandbox(sandbox: Sandbox, options: Options) -> None:
    say(f"slproxy {slproxy.__version__}: a fake SalesLoft, with no real data. Point a proxy at it with:\n")
    for name, value in (
        ("SLPROXY_UPSTREAM__API_URL", sandbox.url),
        ("SLPROXY_UPSTREAM__ACCOUNTS_URL", sandbox.url),
        ("SALESLOFT_CLIENT_ID", options.client_id),
        # No secrets: they open nothing but the sandbox.
        ("SALESLOFT_CLIENT_SECRET", options.client_secret),
    ):
        say(f"  export {name}={value}")
    say(f"\nand then: slproxy serve. Or, instead of the client: export SALESLOFT_API_KEY={options.api_key}\n")
    print(f"Listening on {sandbox.url}", flush=True)


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


def _parser() -> _Parser:
    parser = _Parser(
        prog="slproxy",
        description="A local reverse proxy for the SalesLoft API that keeps the token. Without a command it serves.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"slproxy {slproxy.__version__}")
    parser.set_defaults(run=_serve, takes=_SERVES, config=None, profile=None, json=False)
    parser.set_defaults(**dict.fromkeys(_SERVES))
    _add_common(parser)
    _add_serving(parser)
    parsers = parser.add_subparsers(metavar="COMMAND", title="commands")

    serve = _command(parsers, "serve", _serve, "run the proxy (the default)", takes=_SERVES)
    _add_serving(serve)
    logging_in = _command(parsers, "login", commands.log_in, "log in once, in the browser")
    logging_in.add_argument("--no-browser", action="store_true", help="print the address and take the pasted answer")
    logging_in.add_argument("--replace", action="store_true", help="replace the login of somebody else, unasked")
    logging_out = _command(parsers, "logout", commands.log_out, "revoke the token at SalesLoft, then forget it")
    logging_out.add_argument("--all", action="store_true", help="log out of every profile")
    _command(parsers, "whoami", commands.who_am_i, "ask SalesLoft who the token belongs to", facts=True)
    telling = _command(
        parsers, "status", status.status, "tell about the grant, the token and the proxy", facts=True, takes=_ADDRESS
    )
    _add_address(telling, "the proxy listens")
    _command(parsers, "token", commands.token, "print a valid access token, for scripts", facts=True)
    looking = _command(
        parsers, "doctor", _doctor, "look for what is wrong, and say what to do", facts=True, takes=_ADDRESS
    )
    _add_address(looking, "the proxy listens, or would")
    _command(
        parsers, "config", commands.show_config, "print the settings in force and where each came from", facts=True
    )
    _command(parsers, "profiles", commands.profiles, "list the profiles and their logins", facts=True)
    summary = "move a login to another store, or change its key"
    store = parsers.add_parser("store", help=summary, description=_sentence(summary))
    of_store = store.add_subparsers(metavar="COMMAND", title="commands", required=True)
    moving = _command(of_store, "move", commands.move, "move the login to another kind of store")
    kinds = ("file", "keyring", "redis")
    moving.add_argument("--to", choices=kinds, required=True, help="where it goes")
    moving.add_argument("--from", dest="source", choices=kinds, help="where it is (default: store.kind)")
    rekeying = _command(of_store, "rekey", commands.rekey, "seal the login with another key")
    rekeying.add_argument(
        "--new-key-file", type=Path, metavar="FILE", help="file that holds it (default: a new one in the keyring)"
    )

    _add_sandbox(parsers)
    return parser


# Where each flag goes among the settings.
_FLAGS = {"host": "listen.host", "port": "listen.port", "uds": "listen.uds", "read_only": "policy.read_only"}
# What says where a proxy is, and all that serve takes; before the command or after it.
_ADDRESS = frozenset({"host", "port", "uds"})
_SERVES = _ADDRESS | {"read_only", "sandbox"}


def _flags(args: argparse.Namespace) -> dict[str, object]:
    if args.run is _sandbox:
        return {}  # its address is not the proxy's
    return {key: getattr(args, name) for name, key in _FLAGS.items()}


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
    sandbox = _command(parsers, "sandbox", _sandbox, "run only the fake SalesLoft", takes=frozenset({"host", "port"}))
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
