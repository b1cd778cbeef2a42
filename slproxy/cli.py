"""The command line: what a person types, and what they are told."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import resource
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import slproxy
from slproxy import config, journal, login, oauth, probe
from slproxy.app import App
from slproxy.errors import ConfigError, LoginError, LoginRequired, Problem, SlproxyError
from slproxy.settings import Auth, Secret, Settings, effective
from slproxy.store import MemoryStore, Record, TokenStore

if TYPE_CHECKING:
    from slproxy.sandbox import Options, Sandbox

STDIN, STDERR = 0, 2
DONE, FAILED, USAGE, LOGIN_NEEDED = 0, 1, 2, 3

T = TypeVar("T")

# How long a login waits for a browser in the terminal to be left, in seconds.
BROWSER_LEAVES = 1.0
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
    try:
        settings = config.load(
            config=args.config, profile=args.profile, flags=_flags(args), environ=os.environ, cwd=Path.cwd()
        )
        # The other commands say themselves what failed.
        level = settings.log.level if command is _serve else "error"
        args.journal = journal.start(level=level, form=settings.log.format)
        return _in_a_loop(command(settings, args))
    except SlproxyError as error:
        _complain(error)
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

    async def working() -> int:
        task = asyncio.current_task()
        assert task is not None
        ended_by: list[int] = []

        def end(number: int) -> None:
            # Once: on the way down a renewal is waited for, and a second signal must not cut that short.
            if not ended_by:
                ended_by.append(number)
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
        try:
            return await work
        except asyncio.CancelledError:
            if not ended_by:
                raise
            return 128 + ended_by[0]

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(working())


def _complain(error: SlproxyError) -> None:
    _say(f"slproxy: {error.detail}" + (f"\n  {error.hint}" if error.hint else ""))


def _say(text: str) -> None:
    """Tell a person something that is not the command's result."""
    print(text, file=sys.stderr, flush=True)


# The commands, in the order of the help.


async def _serve(settings: Settings, args: argparse.Namespace) -> int:
    stop, at_once = asyncio.Event(), asyncio.Event()

    def ask_to_stop() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask_to_stop)
    _allow_open_files()
    async with contextlib.AsyncExitStack() as stack:
        store: TokenStore | None = None
        if args.sandbox:
            settings, store = await stack.enter_async_context(_against_a_sandbox(settings))
        app = await stack.enter_async_context(App(settings, store=store, journal=args.journal))
        await app.listen()
        await _announce(app, sandbox=args.sandbox)
        await stop.wait()
        await app.drain(at_once=at_once)
    return DONE


def _allow_open_files() -> None:
    """Let the process open as many files as it may: a thousand clients do not fit into the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS says no to its own "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def _against_a_sandbox(settings: Settings) -> AsyncIterator[tuple[Settings, TokenStore]]:
    """Run a sandbox, and give settings and a store in which nothing real is left."""
    from slproxy.sandbox import Options, Sandbox  # noqa: PLC0415  # only this command wants it

    options = Options()
    sandbox = Sandbox(options)
    await sandbox.start()
    try:
        now = time.time()
        pair = sandbox.issue()
        token = oauth.Token(
            access_token=pair.access_token,
            refresh_token=pair.refresh_token,
            obtained_at=now,
            expires_at=now + options.token_lifetime,
        )
        store = MemoryStore(
            Record(client_id=options.client_id, accounts_url=sandbox.url, profile=settings.profile, token=token)
        )
        yield (
            replace(
                settings,
                upstream=replace(settings.upstream, api_url=sandbox.url, accounts_url=sandbox.url),
                auth=Auth(
                    grant="authorization_code",
                    client_id=options.client_id,
                    client_secret=Secret(options.client_secret),
                    leeway=settings.auth.leeway,
                ),
            ),
            store,
        )
    finally:
        await sandbox.stop()


async def _announce(app: App, *, sandbox: bool) -> None:
    """Say where the proxy listens and, against the sandbox, make the first call through it."""
    where, upstream = app.urls[0], app.settings.upstream.api_url
    if sandbox:
        _say(f"slproxy {slproxy.__version__}: SANDBOX, no real data. A fake SalesLoft at {upstream}.")
        try:
            status, body = await asyncio.to_thread(
                probe.ask, probe.reachable(where), "/v2/me.json", key=app.settings.listen.key
            )
            print(_authenticated_as(status, body), flush=True)
        except (OSError, http.client.HTTPException, SlproxyError) as error:
            _say(f"  The first call through it failed: {error}")
    else:
        _say(f"slproxy {slproxy.__version__}: forwarding to {upstream}.")
        choice = app.credentials.choice
        _say(f"  Way in: {choice.grant or 'none'}, since {choice.why}.")
        if isinstance(problem := app.credentials.problem(), LoginRequired):
            _say(f"  Not ready: {problem.detail} {problem.hint}")
        elif app.settings.store.kind == "file" and app.credentials.choice.grant == "authorization_code":
            _say(f"  The token is kept in {app.settings.store.path}, mode 0600, not encrypted.")
    if app.settings.listen.allow_unauthenticated and app.settings.listen.key is None:
        _say("  WARNING: whoever reaches this address uses your SalesLoft token: no local key is set.")
    key = ' -H "X-Slproxy-Key: $KEY"' if app.settings.listen.key is not None else ""
    unix = f" --unix-socket {where.removeprefix('unix:')}" if where.startswith("unix:") else ""
    base = "http://localhost" if unix else probe.reachable(where)
    print(f"Listening on {where}. Try: curl{key}{unix} {base}/v2/me.json", flush=True)


async def _login(settings: Settings, args: argparse.Namespace) -> int:
    # Whoever logs in beside an API key wants to know who the login is, not the key.
    settings = replace(settings, auth=replace(settings.auth, grant="authorization_code"))
    async with App(settings) as app:
        attempt = login.begin(settings)
        if args.no_browser:
            _say(f"Open this address in any browser, and allow access:\n\n  {attempt.url}\n")
            _say("Then paste the address that the browser ends on, even if its page does not load:")
            code = login.code_in_paste(attempt, await _in_a_daemon(_pasted_line))
            print(await _logged_in(app, attempt, code))
            return DONE
        async with login.callback(attempt) as callback:
            _say(f"Opening the browser to log in to SalesLoft. If it does not open, go to:\n\n  {attempt.url}\n")
            # Some browsers run in the terminal, and this call lasts as long as they do.
            browser = asyncio.ensure_future(_in_a_daemon(lambda: webbrowser.open(attempt.url)))
            code = await callback.code()
            try:
                told = await _logged_in(app, attempt, code)
            except SlproxyError as error:
                callback.show("Not logged in", f"{error.detail} {error.hint}")
                raise
            callback.show("Logged in", f"{told} You can close this tab and go back to the terminal.")
            await asyncio.wait({browser}, timeout=BROWSER_LEAVES)
        print(told)
    return DONE


def _pasted_line() -> str:
    """Read a line from standard input, past Python's buffer: its lock would be held when Ctrl-C ends the program."""
    line = b""
    while not line.endswith(b"\n") and (character := os.read(STDIN, 1)):
        line += character
    return line.decode("utf-8", "replace")


async def _in_a_daemon(work: Callable[[], T]) -> T:
    """Do blocking work that must not hold up the end of the program, as a thread of asyncio's executor would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Future[T]) -> None:
        if not done.done():
            try:
                done.set_result(outcome.result())
            except Exception as error:  # noqa: BLE001  # whatever it was, who waits gets it
                done.set_exception(error)

    def thread() -> None:
        outcome: Future[T] = Future()
        try:
            outcome.set_result(work())
        except Exception as error:  # noqa: BLE001  # as above
            outcome.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            loop.call_soon_threadsafe(tell, outcome)

    threading.Thread(target=thread, daemon=True).start()
    return await done


async def _logged_in(app: App, attempt: login.Attempt, code: str) -> str:
    """Turn a code into a stored token, and say who it is."""
    try:
        await login.finish(app.settings, attempt, code, ask=app.upstream.ask, store=app.store, now=time.time)
    except LoginRequired as error:
        raise LoginError(
            "SalesLoft did not accept the code: it was used before, is too old, or belongs to another redirect URI.",
            hint="Run slproxy login again; SALESLOFT_REDIRECT_URI must equal one registered with the app.",
        ) from error
    await app.credentials.load()
    try:
        return _authenticated_as(*await app.ask("/v2/me.json"))
    except SlproxyError as error:
        return f"Logged in. Who it is could not be asked: {error.detail}"


def _authenticated_as(status: int, body: bytes) -> str:
    """Return the line that names who a token belongs to. Raises SlproxyError when the API did not say."""
    try:
        me = json.loads(body)["data"]
        return f"Authenticated as: {me['name']} ({me['email']})"
    except (ValueError, KeyError, TypeError):
        raise SlproxyError(
            f"SalesLoft answered {status} to the question who this token belongs to.",
            hint="Check SALESLOFT_API_KEY, or log in again: slproxy login",
        ) from None


async def _logout(settings: Settings, args: argparse.Namespace) -> int:  # noqa: ARG001
    # Under the lock: a proxy that renews meanwhile would leave a newer token alive.
    async with App(settings) as app, app.store.lock():
        record = await app.store.read()
        client_id = settings.auth.client_id or (record.client_id if record is not None else "")
        accounts_url, profile = settings.upstream.accounts_url, settings.profile
        if record is None or not record.belongs_to(client_id, accounts_url, profile):
            print("There is no login of this client to forget.")
            return DONE
        revoked = await _revoked(app, record)
        await app.store.forget()
    if revoked:
        print("Logged out: the token was revoked at SalesLoft and forgotten here.")
    else:
        print("Forgotten here, but SalesLoft could not be told: the token was not revoked there.")
        _say("  Revoke it in SalesLoft's settings, or wait for the access token to expire.")
    return DONE


async def _revoked(app: App, record: Record) -> bool:
    """Revoke a login at SalesLoft, and tell whether that worked."""
    auth = app.settings.auth
    secret = auth.client_secret.reveal() if auth.client_secret is not None else None
    client = oauth.Client(id=record.client_id, secret=secret)
    revoked = True
    # The refresh token first: it is the one that lives on.
    for token in (record.token.refresh_token, record.token.access_token):
        if token:
            try:
                answer = await app.upstream.ask(oauth.revocation(client, token=token))
                revoked = revoked and 200 <= answer.status < 300
            except Problem:
                revoked = False
    return revoked


async def _whoami(settings: Settings, args: argparse.Namespace) -> int:
    async with App(settings) as app:
        status, body = await app.ask("/v2/me.json")
    line = _authenticated_as(status, body)
    print(body.decode().rstrip() if args.json else line)
    return DONE


async def _status(settings: Settings, args: argparse.Namespace) -> int:
    async with App(settings) as app:
        problem = app.credentials.problem()
        # A token that has expired, or was never asked for, is no fault: it is renewed when it is wanted.
        needs_login = isinstance(problem, LoginRequired)
        token = app.credentials.snapshot()
    proxy = await asyncio.to_thread(probe.status_of, settings.listen)
    if args.json:
        facts = {"profile": settings.profile, "token": token, "login_needed": needs_login, "proxy": proxy}
        print(json.dumps(facts, indent=2))
        return LOGIN_NEEDED if needs_login else DONE
    rows = [
        ("profile", settings.profile),
        ("grant", f"{token['grant'] or 'none'}: {token['why']}"),
        ("token", _told_token(token) if not needs_login or problem is None else f"{problem.detail} {problem.hint}"),
        ("kept in", str(token["store"])),
        ("proxy", _told_proxy(proxy, settings)),
    ]
    for name, value in rows:
        print(f"{name:<8} {value}")
    return LOGIN_NEEDED if needs_login else DONE


def _told_token(token: dict[str, object]) -> str:
    if token["grant"] == "api_key":
        return "an API key; it does not expire"
    expires_in = token["expires_in"]
    if not isinstance(expires_in, float | int):
        return "none yet; it is asked for when it is wanted" if token["generation"] is None else "does not expire"
    if expires_in <= 0:
        return f"expired, generation {token['generation']}; it is renewed when it is wanted"
    minutes, seconds = divmod(int(expires_in), 60)
    return f"valid for {minutes // 60} h {minutes % 60} min {seconds} s, generation {token['generation']}"


def _told_proxy(proxy: dict[str, object] | None, settings: Settings) -> str:
    where = f"unix:{settings.listen.uds}" if settings.listen.uds else f"{settings.listen.host}:{settings.listen.port}"
    if proxy is None:
        return f"none answers at {where}"
    if "version" not in proxy:
        return f"something answers at {where}, but not with its status: {proxy.get('detail', 'is it another program?')}"
    reason, budget, token = (proxy.get(name) for name in ("reason", "budget", "token"))
    told = [f"up at {where}"]
    told.append(f"not ready: {reason.get('detail')} {reason.get('hint')}" if isinstance(reason, dict) else "ready")
    if isinstance(token, dict):
        told.append(f"by {token.get('grant')}")
    if isinstance(budget, dict):
        told.append(f"{budget.get('remaining')} of this minute's budget left")
    return ", ".join(told)


async def _token(settings: Settings, args: argparse.Namespace) -> int:
    async with App(settings) as app:
        bearer = await app.credentials.bearer()
    print(json.dumps({"access_token": bearer.token}) if args.json else bearer.token)
    return DONE


async def _config(settings: Settings, args: argparse.Namespace) -> int:
    rows = effective(settings)
    if args.json:
        print(json.dumps({row.key: {"value": row.value, "origin": row.origin} for row in rows}, indent=2))
        return DONE
    key_width = max(len(row.key) for row in rows)
    value_width = min(max(len(row.value) for row in rows), 48)
    for row in rows:
        print(f"{row.key:<{key_width}}  {row.value:<{value_width}}  {row.origin}")
    return DONE


async def _sandbox(settings: Settings, args: argparse.Namespace) -> int:  # noqa: ARG001
    from slproxy.sandbox import Sandbox  # noqa: PLC0415  # only this command wants it

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = _sandbox_options(args)
    sandbox = Sandbox(options)
    try:
        await sandbox.start(args.host, args.port)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {args.host}:{args.port}: {os.strerror(error.errno or 0)}.", hint="Choose another --port."
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
    _say(f"slproxy {slproxy.__version__}: a fake SalesLoft, with no real data. Point a proxy at it with:\n")
    for name, value in (
        ("SLPROXY_UPSTREAM__API_URL", sandbox.url),
        ("SLPROXY_UPSTREAM__ACCOUNTS_URL", sandbox.url),
        ("SALESLOFT_CLIENT_ID", options.client_id),
        # No secrets: they open nothing but the sandbox.
        ("SALESLOFT_CLIENT_SECRET", options.client_secret),
    ):
        _say(f"  export {name}={value}")
    _say(f"\nand then: slproxy serve. Or, instead of the client: export SALESLOFT_API_KEY={options.api_key}\n")
    print(f"Listening on {sandbox.url}", flush=True)


# What can be typed.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="slproxy",
        description="A local reverse proxy for the SalesLoft API that holds the token. Without a command it serves.",
        epilog="Settings come from flags, the environment, .env and slproxy.toml: see config.example.toml.",
    )
    parser.add_argument("--version", action="version", version=f"slproxy {slproxy.__version__}")
    parser.set_defaults(run=_serve, config=None, profile=None, json=False, sandbox=False)
    for name in _FLAGS:
        parser.set_defaults(**{name: None})
    _add_common(parser)
    _add_listening(parser)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    serve = _command(commands, "serve", _serve, "run the proxy (the default)")
    _add_listening(serve)
    logging_in = _command(commands, "login", _login, "log in once, in the browser")
    logging_in.add_argument("--no-browser", action="store_true", help="print the address and take the pasted answer")
    _command(commands, "logout", _logout, "revoke the token at SalesLoft, then forget it")
    _command(commands, "whoami", _whoami, "ask SalesLoft who the token belongs to", facts=True)
    _command(commands, "status", _status, "tell about the grant, the token and the proxy", facts=True)
    _command(commands, "token", _token, "print a valid access token, for scripts", facts=True)
    _command(commands, "config", _config, "print the settings in force and where each came from", facts=True)

    sandbox = _command(commands, "sandbox", _sandbox, "run only the fake SalesLoft")
    sandbox.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    sandbox.add_argument("--port", type=int, default=8643, help="port to listen on (default: %(default)s; 0: any)")
    sandbox.add_argument("--client-id", help="the one OAuth client that it knows")
    sandbox.add_argument("--redirect-uri", action="append", help="a redirect URI of that client; may be repeated")
    sandbox.add_argument("--token-lifetime", type=float, metavar="SECONDS", help="how long an access token lives")
    sandbox.add_argument("--rotation", choices=("immediate", "on-use"), help="when a renewal ends the old pair")
    sandbox.add_argument("--budget", type=int, metavar="COST", help="cost that the team may spend per clock minute")
    return parser


# Where each flag goes among the settings.
_FLAGS = {"host": "listen.host", "port": "listen.port", "uds": "listen.uds", "read_only": "policy.read_only"}


def _flags(args: argparse.Namespace) -> dict[str, object]:
    if args.run is not _serve:
        return {}
    return {key: getattr(args, name) for name, key in _FLAGS.items()}


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Command,
    summary: str,
    *,
    facts: bool = False,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(run=command)
    _add_common(parser)
    if facts:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="settings file (default: ./slproxy.toml)"
    )
    parser.add_argument(
        "--profile", metavar="NAME", default=argparse.SUPPRESS, help="profile whose settings and token to use"
    )


def _add_listening(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument("--host", default=unset, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=unset, help="port to listen on (default: 8642; 0: any)")
    parser.add_argument("--uds", metavar="PATH", default=unset, help="Unix socket to listen on instead")
    parser.add_argument("--read-only", action="store_true", default=unset, help="let only GET, HEAD and OPTIONS pass")
    parser.add_argument(
        "--sandbox", action="store_true", default=unset, help="serve against the built-in fake SalesLoft"
    )
