"""Secrets never show: marked ones go in everywhere, and all that comes out is searched (docs/contract.md, Promises).

1. Each secret holds a core of letters and digits that stands nowhere else. It is looked for in pieces, so that half of
   one is found as well, in any case, and whole in base64 and hex; what quoting does to other characters hides none.
2. Searched is what the program says, its log, its pages and refusals, the page of a login, its command line, and the
   name and content of every file that it leaves.
3. The commands are those that the parser knows: one that comes later is driven as well.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import html
import json
import logging
import re
import socket
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from keyrings.alt.file import PlaintextKeyring
from redis.asyncio import Redis

from slproxy import config
from slproxy.app import App
from slproxy.auth.callback import parse_callback
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.auth.pasted import parse_pasted
from slproxy.cli.parser import build_parser
from slproxy.cli.settings import FLAGS
from slproxy.config import SCHEMA, AuthSettings, Secret, StoreSettings
from slproxy.errors import SlproxyError
from slproxy.store import MemoryStore, Record, Token, TokenStore, token_store
from slproxy.store.record_format import FORMAT, serialize_record
from tests.support.clock import FakeTime
from tests.support.collector import Collector
from tests.support.commands import free_port, pointed_at, run_here, token_file
from tests.support.marks import PIECE, Marks, core, secret
from tests.support.programs import spawn
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, raw, reply
from tests.support.redis import redis_server
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

# Processes at a time: the machine that runs this has two cores.
AT_A_TIME = 3

CLIENT_SECRET = secret("client secret", "cs+/{}=&%~'\"<>")  # what no quoting leaves as it is
API_KEY, V2_API_KEY = secret("api key", "ak_{}"), secret("v2 api key", "v2_ak_{}")
ACCESS, REFRESH = secret("access token", "at-{}"), secret("refresh token", "rt-{}")
CODE = secret("code")
LOCAL_KEY, STORE_KEY, NEW_STORE_KEY = secret("local key"), secret("store key"), secret("new store key")
REDIS_PASSWORD = secret("redis password")
# What is in a token reply of SalesLoft besides the token (docs/salesloft.md, OAuth).
REPLY_SECRET, TENANT = secret("secret of a token reply"), secret("tenant")
TYPED = secret("what a person types where no secret belongs")

NAMES = (
    *("client secret", "api key", "v2 api key", "access token", "refresh token", "code", "local key"),
    *("store key", "new store key", "redis password", "secret of a token reply", "tenant"),
    "what a person types where no secret belongs",
)
TOKENS = frozenset({"access token", "refresh token"})
CLIENT_ID = "a-client"
JANE = {"id": 1, "name": "Jane Smith", "email": "jane@company.com", "team": {"id": 7, "name": "Company Inc."}}


# What searches.


@dataclass
class Evidence:
    """All that came out, and what of it may be in there."""

    marks: Marks = field(default_factory=lambda: Marks(NAMES))
    texts: list[tuple[str, str | bytes, frozenset[str]]] = field(default_factory=list)

    def note(self, where: str, text: str | bytes, *, may_hold: Iterable[str] = ()) -> None:
        self.texts.append((where, text, frozenset(may_hold)))

    def shown(self) -> list[str]:
        """Return which secret showed where, once all of them are known."""
        return [
            f"{where} shows the {name}: {line.strip()[:500]!r}"
            for where, text, may_hold in self.texts
            if self.marks.found_in(text) - may_hold
            for line in [line for line in text.splitlines() if self.marks.found_in(line)] or [text]
            for name in sorted(self.marks.found_in(line) - may_hold)
        ]

    def where(self, name: str) -> set[str]:
        """Return the kinds of places that a secret showed in: the last word of each."""
        return {where.split()[-1] for where, text, _ in self.texts if name in self.marks.found_in(text)}


# The upstream, which says more than it should.


def token_reply(number: int = 0, **more: object) -> bytes:
    """Return a token reply with all that such a reply has ever carried."""
    return json.dumps(
        {
            "access_token": f"{ACCESS}-{number}",
            "refresh_token": f"{REFRESH}-{number}",
            "token_type": "bearer",
            "expires_in": 7200,
            "secret": REPLY_SECRET,
            "tenant_id": TENANT,
            "scope": "",
            **more,
        }
    ).encode()


def echoed(message: Message) -> str:
    """Return what a careless server says back: all that it was sent, read and as it came."""
    form = {name: values[0] for name, values in parse_qs(message.body.decode()).items()}
    said = [message.body.decode(), *form.values(), message.head.get("Authorization") or "", REPLY_SECRET, TENANT]
    return " ".join(said)


def refused(error: str) -> Callable[[Message], bytes]:
    def answer(message: Message) -> bytes:
        body = {"error": error, "error_description": f"Bad: {echoed(message)}", "secret": REPLY_SECRET}
        return reply("400 Bad Request", json.dumps(body).encode(), "Content-Type: application/json")

    return answer


def one_line(message: Message) -> str:
    return quote(echoed(message), safe=" ")[:4000]


# How a token endpoint answers. All but the first give no token.
TOKEN_ANSWERS: Mapping[str, Callable[[Message], bytes]] = {
    "grants": lambda message: reply("200 OK", token_reply()),
    "invalid_grant": refused("invalid_grant"),
    "invalid_client": refused("invalid_client"),
    "invalid_scope": refused("invalid_scope"),
    "an error that is a secret": refused(CLIENT_SECRET),
    "an error of a secret's letters": refused("".join(filter(str.isalpha, core("client secret")))),
    "HTML with 200": lambda message: reply("200 OK", f"<p>{html.escape(echoed(message))}</p>".encode()),
    "HTML with 500": lambda message: reply("500 Oops", f"<p>{echoed(message)}</p>".encode()),
    "JSON that breaks off": lambda message: reply("200 OK", token_reply()[:-20]),
    "no bearer token": lambda message: reply("200 OK", token_reply(token_type=f"mac {CLIENT_SECRET}")),
    "a token with a line break": lambda message: reply("200 OK", token_reply(access_token=f"{ACCESS}\r\n{REFRESH}")),
    "a redirect": lambda message: reply("302 Found", b"", f"Location: http://127.0.0.1:9/?{one_line(message)}"),
    "a status line that is none": lambda message: f"HTTP/1.1 {one_line(message)}\r\n\r\n".encode(),
    "a header that is none": lambda message: f"HTTP/1.1 200 OK\r\n{one_line(message)}\r\n\r\n".encode(),
    "a reason that says it": lambda message: reply(f"400 {one_line(message)}", b"no"),
    "a chunk that is none": lambda message: (
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{one_line(message)}\r\n".encode()
    ),
    "a compression that is none": lambda message: reply("200 OK", echoed(message).encode(), "Content-Encoding: gzip"),
}


@dataclass
class SalesLoft:
    """The accounts host and the API in one, with marked tokens."""

    answer: Callable[[Message], bytes] = TOKEN_ANSWERS["grants"]
    verifiers: list[str] = field(default_factory=list)
    api: Callable[[Message], bytes] | None = None
    revocation: Callable[[Message], bytes] = lambda message: reply()

    async def script(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/oauth/token":
            self.verifiers += parse_qs(message.body.decode()).get("code_verifier", [])
            writer.write(self.answer(message))
        elif message.head.target == "/oauth/revoke":
            writer.write(self.revocation(message))
        elif self.api is not None:
            writer.write(self.api(message))
        elif re.fullmatch(r"Bearer (at-|ak_|v2_ak_).*", message.head.get("Authorization") or ""):
            writer.write(reply(body=json.dumps({"data": JANE}).encode()))
        else:
            writer.write(reply("401 Unauthorized", b'{"error": "Invalid Bearer token"}'))


# What drives the commands.


def stored(accounts_url: str, *, profile: str = "default", lifetime: float = 7200.0) -> Record:
    now = time.time()
    token = Token(access_token=ACCESS, refresh_token=REFRESH, obtained_at=now, expires_at=now + lifetime)
    return Record(
        client_id=CLIENT_ID,
        accounts_url=accounts_url,
        api_url=accounts_url,
        profile=profile,
        token=token,
        user_id=1,
        team_id=7,
    )


async def keep(path: Path, record: Record, *, key: str | None = STORE_KEY) -> None:
    """Leave a login in a file, as slproxy does."""
    rules = StoreSettings(
        path=path, key=None if key is None else Secret(key), encryption="off" if key is None else "key"
    )
    store = token_store(replace(settings_for("http://127.0.0.1:9"), store=rules))
    await store.write(record)
    await store.close()


@dataclass(kw_only=True)
class Scene:
    """A home, an environment with secrets in it, and what shall happen to the commands there."""

    name: str
    home: Path
    env: Mapping[str, str]
    evidence: Evidence
    salesloft: SalesLoft
    # What the browser brings to the redirect URI, made of the address that it was sent to.
    brings: Callable[[str], Sequence[str]] = lambda address: [callback(address)]
    # What a file that is left may hold.
    files_may_hold: frozenset[str] = frozenset()
    # A program that is forked has the command line of what it was forked off.
    fresh: bool = False


def callback(address: str, **changes: str) -> str:
    """Return where SalesLoft sends a browser that was sent to ``address``."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    fields = {"code": CODE, "state": query["state"], **changes}
    return query["redirect_uri"] + "?" + "&".join(f"{name}={quote(value)}" for name, value in fields.items())


def command_line(pid: int) -> bytes:
    """Return what ``ps`` shows of a process to everybody, where there is a /proc."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes() if path.exists() else b""


async def drive(scene: Scene, *line: str) -> int:
    """Run a command as a person does, up to its end, and keep all that comes out of it."""
    where = f"{scene.name}: slproxy {' '.join(line)}:"
    note = scene.evidence.note
    process = await spawn(line, scene.home, scene.env, stdin=asyncio.subprocess.PIPE, fresh=scene.fresh)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    note(f"{where} its cmdline", command_line(process.pid))
    out, err = bytearray(), bytearray()

    async def read_out(stream: asyncio.StreamReader) -> None:
        while piece := await stream.readline():
            out.extend(piece)
            if piece.startswith(b"Listening on ") and line[0] == "serve":
                await visit(scene, where, piece.split()[2].rstrip(b".").decode())
            if piece.startswith(b"Listening on ") or "--watch" in line:
                process.terminate()

    async def read_err(stream: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        while piece := await stream.readline():
            found = re.search(rb"https?://\S+/oauth/authorize\?\S+", piece)
            # The person must have it; it is what ties the answer to this login, and shows nowhere else.
            err.extend(piece.replace(found[0], b"[the address]") if found else piece)
            if found:
                await answer_login(scene, where, found[0].decode(), None if "--no-browser" not in line else answers)

    if line[0] != "login":
        process.stdin.close()
    try:
        async with asyncio.timeout(2 * PATIENCE):
            await asyncio.gather(read_out(process.stdout), read_err(process.stderr, process.stdin))
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process.stdin.close()
    note(f"{where} its stdout", bytes(out), may_hold={"access token"} if line[0] == "token" else ())
    note(f"{where} its stderr", bytes(err))
    for verifier in scene.salesloft.verifiers:
        scene.evidence.marks.add("verifier", verifier)
    sweep(scene, where)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return process.returncode


async def answer_login(scene: Scene, where: str, address: str, paste: asyncio.StreamWriter | None) -> None:
    """Do what the browser does, or the person who copies its address."""
    scene.evidence.marks.add("state", parse_qs(urlsplit(address).query)["state"][0])
    if paste is not None:
        paste.write(scene.brings(address)[-1].encode() + b"\n")
        return
    for url in scene.brings(address):
        parts = urlsplit(url)
        page = await raw(f"http://127.0.0.1:{parts.port}", get(f"{parts.path}?{parts.query}"))
        scene.evidence.note(f"{where} its login page", page.head.raw + page.body)


# What is given to an option that wants a file, and is none of the settings'.
NEW_KEY_FILE = "new-key"
# What a person wrote.
WRITTEN = frozenset({NEW_KEY_FILE, ".env", "slproxy.toml"})
# A keyring without a desktop, and its file, which hides nothing: what is in there is the keyring's affair.
KEYRING, KEYRING_FILE = "keyrings.alt.file.PlaintextKeyring", "keyring_pass.cfg"


def sweep(scene: Scene, where: str) -> None:
    """Search what is left: the name of every file, and what is in it."""
    for path in sorted(scene.home.rglob("*")):
        scene.evidence.note(f"{where} left the name", str(path.relative_to(scene.home)))
        if path.is_file() and path.name not in (*WRITTEN, KEYRING_FILE):
            scene.evidence.note(f"{where} left {path.name}, a file", path.read_bytes(), may_hold=scene.files_may_hold)


# The local key in the three ways that it may be shown; and what a request can do wrong with secrets in it.
KEY_HEADER = f"X-Slproxy-Key: {LOCAL_KEY}"
BASIC = base64.b64encode(f"me:{LOCAL_KEY}".encode()).decode()
WRONG_BASIC = base64.b64encode(f"me:{TYPED}".encode()).decode()
PAGES = ("healthz", "readyz", "status.json", "metrics", "", "no-such-page")
REQUESTS = (
    *(get(f"/_slproxy/{page}", KEY_HEADER) for page in PAGES),
    *(get("/v2/me.json", header) for header in (KEY_HEADER, f"Authorization: Basic {BASIC}")),
    get("/v2/me.json", f"Authorization: Bearer {LOCAL_KEY}"),
    get("/v2/me.json"),
    get("/v2/me.json", f"X-Slproxy-Key: {TYPED}"),
    get("/v2/me.json", f"Authorization: Bearer {TYPED}"),
    get("/v2/me.json", f"Authorization: Basic {WRONG_BASIC}"),
    get(f"/v2/people?api_key={TYPED}", KEY_HEADER),
    get(f"/v2/../x?api_key={TYPED}", KEY_HEADER),
    get("/oauth/token", KEY_HEADER, method="POST", body=f"client_secret={TYPED}".encode()),
    get(f"http://me:{TYPED}@elsewhere.test/v2/me.json", KEY_HEADER),
    get("/v2/me.json", KEY_HEADER, host=f"{TYPED}.test"),
    get("/v2/me.json", KEY_HEADER, f"Origin: https://{TYPED}.test"),
    get("/v2/me.json", KEY_HEADER, method="TRACE"),
    get("/v2/me.json", KEY_HEADER, f"X-Bad : {TYPED}"),
    get("/v2/me.json", KEY_HEADER, f"Transfer-Encoding: {TYPED}", method="POST"),
    get("/v2/me.json", KEY_HEADER, f"Cookie: {TYPED}", f"X-Long: {'x' * 70_000}"),
    get("/v2/me.json", KEY_HEADER, "X-Slproxy-Retry: off"),
)


async def visit(scene: Scene, where: str, url: str) -> None:
    """Ask a running proxy for all that it answers itself, and for a bit of what SalesLoft does."""
    for request in REQUESTS:
        # Too long a header: the connection may end before all of it was sent.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            answer = await raw(url, request)
            # A reply of SalesLoft's is the client's, whatever is in it; all others have this header (RFC 9209).
            if answer.head.get("Proxy-Status") or scene.salesloft.api is None:
                scene.evidence.note(f"{where} its answer", answer.head.raw + answer.body)


Command = tuple[str, ...]


def commands(parser: argparse.ArgumentParser, words: Command = ()) -> Iterator[tuple[Command, argparse.ArgumentParser]]:
    """Yield each command of a parser, as its words, and what parses the rest of its line."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from commands(child, (*words, name))
    if not below:
        yield words, parser


# What every command has, and what a scene's settings say.
COMMON = frozenset({"help", "config", "profile", "log_level", "version", "host", "port", "uds"})


def lines() -> list[Command]:
    """Return the command lines to try: each command bare, with each of its switches, and with each of its choices."""
    found: list[Command] = []
    for words, parser in commands(build_parser()):
        # The sandbox's port is its own, and not among the settings.
        start = (*words, "--port", "0") if words == ("sandbox",) else words
        end = ("--", "true") if words == ("run",) else ()
        needed: list[Command] = [()]
        optional: list[Command] = []
        for action in parser._actions:
            flag = tuple(action.option_strings[:1])
            if action.dest in COMMON or action.nargs == argparse.REMAINDER:
                continue
            if action.nargs == 0:
                given: list[Command] = [flag]
            elif action.choices is not None:
                given = [(*flag, str(choice)) for choice in action.choices]
            elif "file" in action.dest:
                given = [(*flag, NEW_KEY_FILE)]
            else:
                assert not action.required, f"what to give {action.dest} of {words} is not known here"
                continue
            if action.required:
                needed = [(*before, *each) for before in needed for each in given]
            elif words != ("sandbox",):
                optional += given
        found += [(*start, *each, *end) for each in needed]
        found += [(*start, *needed[0], *each, *end) for each in optional]
    return found


class Stage:
    """Sets scenes up, and drives commands in them, a few at a time."""

    def __init__(self, folder: Path) -> None:
        self.evidence = Evidence()
        self._folder = folder
        self._template = folder / "template.json"
        self._gate = asyncio.Semaphore(AT_A_TIME)
        self._numbers = iter(range(1000))

    @asynccontextmanager
    async def scene(
        self,
        name: str,
        env: Mapping[str, str] | None = None,
        *,
        answer: str = "grants",
        lifetime: float = 7200.0,
    ) -> AsyncIterator[Scene]:
        """Give a home with a login in it, and every kind of secret in the environment."""
        home = self._folder / str(next(self._numbers))
        (home / "tmp").mkdir(parents=True)
        (home / NEW_KEY_FILE).write_text(NEW_STORE_KEY + "\n")
        salesloft = SalesLoft(TOKEN_ANSWERS[answer])
        async with self._gate, ScriptedUpstream(salesloft.script) as upstream:
            await keep(token_file(home), stored(upstream.url, lifetime=lifetime))
            # A busy port of the proxy's own would be another error than the one that is meant.
            variables = pointed_at(
                upstream.url,
                SALESLOFT_CLIENT_ID=CLIENT_ID,
                SALESLOFT_CLIENT_SECRET=CLIENT_SECRET,
                SALESLOFT_REDIRECT_URI=f"http://127.0.0.1:{free_port()}/callback",
                SLPROXY_STORE__KEY=STORE_KEY,
                SLPROXY_LISTEN__KEY=LOCAL_KEY,
                SLPROXY_LOG__LEVEL="debug",
                SLPROXY_LOG__AUDIT=str(home / "audit"),
                SLPROXY_RETRY__ATTEMPTS="1",
                BROWSER="/nonexistent",
                PYTHON_KEYRING_BACKEND=KEYRING,
                TMPDIR=str(home / "tmp"),
            )
            yield Scene(
                name=name,
                home=home,
                env={name: value for name, value in {**variables, **(env or {})}.items() if value},
                evidence=self.evidence,
                salesloft=salesloft,
            )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


# The searcher finds what there is to find.


@pytest.mark.parametrize(
    "disguise",
    [
        pytest.param(lambda text: text, id="as it is"),
        pytest.param(str.upper, id="in capitals"),
        pytest.param(lambda text: text[10:20], id="the middle of it"),
        pytest.param(lambda text: text[: PIECE + 8] + "…", id="cut short"),
        pytest.param(quote, id="percent-encoded"),
        pytest.param(html.escape, id="escaped for HTML"),
        pytest.param(json.dumps, id="as JSON"),
        pytest.param(repr, id="as Python shows it"),
        pytest.param(lambda text: text.encode().hex(), id="in hex"),
        pytest.param(lambda text: base64.b64encode(text.encode()).decode(), id="in base64"),
        pytest.param(lambda text: base64.b64encode(f"x:{text}".encode()).decode(), id="in Basic credentials"),
        pytest.param(lambda text: base64.urlsafe_b64encode(f"x{text}??".encode()).decode(), id="in base64 for URLs"),
        pytest.param(
            lambda text: base64.encodebytes(b"x" * 40 + text.encode()).decode(), id="in base64 of short lines"
        ),
        pytest.param(lambda text: text[::-1], id="backwards"),
    ],
)
def test_a_secret_is_found_in_any_form(disguise: Callable[[str], str]) -> None:
    marks = Marks(NAMES)
    for name, text in (("client secret", CLIENT_SECRET), ("api key", API_KEY), ("access token", ACCESS)):
        assert marks.found_in(f"before {disguise(text)} after") == {name}
    assert marks.found_in("before and after, and nothing between") == set()


async def test_what_shows_is_found_wherever_it_shows(stage: Stage) -> None:
    """The control: what is no secret and must show, marked as one, is seen in each of the places that are searched."""
    profile, person, mode, left = (core(f"a control: {name}") for name in ("profile", "person", "mode", "left"))
    for name in ("profile", "person", "mode", "left"):
        stage.evidence.marks.add(name, core(f"a control: {name}"))
    async with stage.scene("control") as scene:
        scene.salesloft.api = lambda message: reply(body=json.dumps({"data": {**JANE, "name": person}}).encode())
        (scene.home / "tmp" / "x").write_text(left)
        scene.fresh = True
        for command in ("login", "serve"):
            assert await drive(scene, command, "--profile", profile) == 0
        assert await drive(replace(scene, env={**scene.env, "SLPROXY_PACE__MODE": mode}), "config") == 2
    assert stage.evidence.where("profile") >= {"cmdline", "answer", "name"}
    assert stage.evidence.where("person") == {"stdout", "stderr", "page"}
    assert stage.evidence.where("mode") == {"stderr"}
    assert stage.evidence.where("left") == {"file"}


# The commands.


def test_the_commands_that_are_driven_are_those_of_the_parser() -> None:
    helped = build_parser().format_help()
    driven = {line[0] for line in lines()}
    assert driven == set(re.findall(r"^    ([a-z]+) ", helped, re.MULTILINE))
    assert driven >= {"serve", "login", "logout", "whoami", "status", "token", "config", "sandbox"}
    assert {("login", "--no-browser"), ("whoami", "--json"), ("token", "--json"), ("serve", "--sandbox")} <= set(
        lines()
    )


@pytest.mark.parametrize("form", ["json", "pretty"])
async def test_no_command_shows_a_secret(stage: Stage, form: str) -> None:
    async def one(line: Command) -> tuple[Command, int]:
        async with stage.scene("well", {"SLPROXY_LOG__FORMAT": form}) as scene:
            return line, await drive(scene, *line)

    # The form of the log is the concern of what logs; the other commands say the same in both.
    tried = lines() if form == "json" else [("serve",), ("login",)]
    codes = dict(await asyncio.gather(*map(one, tried)))
    assert stage.evidence.shown() == []
    # They were not searched for their refusals alone. No proxy is up for those that ask one.
    failed = {line for line, code in codes.items() if code != 0 and line[0] not in ("store", "inspect", "healthcheck")}
    assert failed == set()
    if form == "json":
        assert codes["store", "rekey", "--new-key-file", NEW_KEY_FILE] == 0
        assert codes["store", "move", "--to", "keyring"] == 0


async def test_no_command_shows_an_api_key_but_token(stage: Stage) -> None:
    async def one(key: str, *line: str) -> int:
        async with stage.scene("an API key", {"SALESLOFT_API_KEY": key, "SLPROXY_STORE__KEY": ""}) as scene:
            token_file(scene.home).unlink()
            return await drive(scene, *line)

    tried = [(API_KEY, "serve"), (API_KEY, "status"), (API_KEY, "doctor"), (API_KEY, "config", "--json")]
    tried += [(V2_API_KEY, "whoami", "--json"), (V2_API_KEY, "config"), (V2_API_KEY, "serve")]
    assert set(await asyncio.gather(*(one(*each) for each in tried))) == {0}
    assert stage.evidence.shown() == []
    await one(API_KEY, "token")
    (shown,) = stage.evidence.shown()
    assert "slproxy token: its stdout shows the api key" in shown


async def test_no_trace_holds_a_secret(stage: Stage) -> None:
    async with Collector() as collector, stage.scene("traced", collector.environment) as scene:
        assert await drive(scene, "serve") == 0
        for message in collector.seen:
            stage.evidence.note("a trace", message.head.raw + message.body)
    assert {each.kind for each in collector.spans} >= {"server", "client"}
    assert stage.evidence.shown() == []


async def test_token_prints_the_access_token_and_nothing_else(stage: Stage) -> None:
    async with stage.scene("well") as scene:
        await drive(scene, "token")
        await drive(scene, "token", "--json")
    said = [text for where, text, _ in stage.evidence.texts if where.endswith("stdout")]
    assert said[0] == f"{ACCESS}\n".encode()
    assert json.loads(said[1]) == {"access_token": ACCESS}


# What goes wrong.

Driven = Callable[[Stage], Awaitable[None]]


def with_token_answer(answer: str, *commands: str) -> Driven:
    async def driven(stage: Stage) -> None:
        async with stage.scene(answer, answer=answer, lifetime=-1.0) as scene:
            for command in commands:
                assert await drive(scene, *command.split()) != 0 or command in ("serve", "doctor")

    return driven


def with_settings(*commands: str, env: Mapping[str, str] | None = None, toml: str = "") -> Driven:
    async def driven(stage: Stage) -> None:
        async with stage.scene(f"{', '.join(env or ())} {toml!r}", env) as scene:
            (scene.home / "slproxy.toml").write_text(toml)
            for command in commands:
                assert await drive(scene, *command.split()) != 0

    return driven


async def with_another_store_key(stage: Stage) -> None:
    async with stage.scene("another store key", {"SLPROXY_STORE__KEY": TYPED}) as scene:
        for command in ("whoami", "serve", "login --no-browser"):
            await drive(scene, *command.split())


async def with_a_damaged_store(stage: Stage) -> None:
    async with stage.scene("a damaged store") as scene:
        # What was damaged here is what is set aside: only names, and what is said of it, may not tell.
        scene.files_may_hold = frozenset({*TOKENS, "secret of a token reply"})
        write_damaged(token_file(scene.home), DAMAGED["cut short"])
        assert await drive(scene, "whoami") == 1


_DOCUMENT = json.loads(serialize_record(stored("http://127.0.0.1:9"))) | {"secret": REPLY_SECRET}
DAMAGED = {
    "cut short": json.dumps(_DOCUMENT)[:-30],
    "a token for a number": json.dumps(_DOCUMENT | {"expires_at": REFRESH}),
    "a token for a count": json.dumps(_DOCUMENT | {"generation": ACCESS}),
    "a token for a format": json.dumps(_DOCUMENT | {"format": ACCESS}),
    "a token for a name": json.dumps(_DOCUMENT | {"profile": {ACCESS: REFRESH}}),
    "nothing but a secret": json.dumps({"format": FORMAT, "secret": REPLY_SECRET}),
    "a sealed one with a token for its salt": json.dumps(
        {"format": "slproxy-sealed-1", "key": "store.key", "salt": ACCESS, "sealed": REFRESH}
    ),
    "a sealed one with a token for its key": json.dumps(
        {"format": "slproxy-sealed-1", "key": ACCESS, "salt": "c2FsdA==", "sealed": REFRESH}
    ),
}


def write_damaged(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    path.write_text(content)
    path.chmod(0o600)


async def with_a_login_that_is_denied(stage: Stage) -> None:
    async with stage.scene("denied") as scene:
        scene.brings = lambda address: [callback(address, error="access_denied", error_description=TYPED)]
        assert await drive(scene, "login") == 1
        assert await drive(scene, "login", "--no-browser") == 1


async def with_a_callback_of_another_login(stage: Stage) -> None:
    async with stage.scene("a wrong state") as scene:
        scene.brings = lambda address: [callback(address, state=TYPED)]
        assert await drive(scene, "login", "--no-browser") == 1
        scene.brings = lambda address: [callback(address, state=TYPED), callback(address)]
        assert await drive(scene, "login") == 0
        scene.brings = lambda address: [callback(address, code="")]
        assert await drive(scene, "login") == 1
        scene.brings = lambda address: [CODE]  # bare
        assert await drive(scene, "login", "--no-browser") == 0


async def with_a_busy_port(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = {
            "SLPROXY_LISTEN__PORT": str(port),
            "SALESLOFT_REDIRECT_URI": f"http://127.0.0.1:{port}/callback",
        }
        async with stage.scene("a busy port", busy) as scene:
            assert await drive(scene, "login") == 2
            assert await drive(scene, "serve") == 2


async def with_an_api_that_says_too_much(stage: Stage) -> None:
    """The client gets what SalesLoft answers; the log, a command and the proxy's own answers do not repeat it."""
    async with stage.scene("an API that says too much") as scene:
        for answer in (
            reply("401 Unauthorized", json.dumps({"error": f"bad token {ACCESS}"}).encode(), f"X-Token: {ACCESS}"),
            f"HTTP/1.1 200 OK\r\n{ACCESS}\r\n\r\n".encode(),
        ):
            scene.salesloft.api = always(answer)
            assert await drive(scene, "whoami") == 1
        await drive(scene, "serve")


def always(answer: bytes) -> Callable[[Message], bytes]:
    return lambda message: answer


async def with_somebody_else(stage: Stage) -> None:
    async with stage.scene("somebody else") as scene:
        scene.salesloft.api = always(reply(body=json.dumps({"data": {**JANE, "id": 2}}).encode()))
        scene.salesloft.revocation = refused("invalid_client")
        assert await drive(scene, "login") == 1
        assert await drive(scene, "logout") == 0


async def with_nobody_there(stage: Stage) -> None:
    async with ScriptedUpstream() as gone:
        url = gone.url
    async with stage.scene("nobody there", pointed_at(url)) as scene:
        await keep(token_file(scene.home), stored(url, lifetime=-1.0))
        for command in ("whoami", "logout"):
            await drive(scene, command)


def redis(url: str) -> dict[str, str]:
    return {"SLPROXY_STORE__KIND": "redis", "SLPROXY_STORE__REDIS_URL": url}


# Addresses that a person gets wrong, most of them by a password that was not percent-encoded.
BAD_REDIS_URLS = {
    "only the password": REDIS_PASSWORD,
    "another scheme": f"http://:{REDIS_PASSWORD}@127.0.0.1:6379/0",
    "no scheme": f":{REDIS_PASSWORD}@127.0.0.1:6379/0",
    "no port": f"redis://:{REDIS_PASSWORD}@127.0.0.1:x/0",
    "too high a port": f"redis://:{REDIS_PASSWORD}@127.0.0.1:99999/0",
    "a slash in the password": f"redis://:{REDIS_PASSWORD}/x@127.0.0.1:6379/0",
    "a question mark in the password": f"redis://:{REDIS_PASSWORD}?x@127.0.0.1:6379/0",
    "a password in the place of the host": f"redis://{REDIS_PASSWORD}/x@127.0.0.1:6379/0",
    "a password in the place of the host, and a question mark": f"redis://{REDIS_PASSWORD}?x@127.0.0.1:6379/0",
    "a bracket in the password": f"redis://:[{REDIS_PASSWORD}@127.0.0.1:6379/0",
    "a wrong option": f"redis://127.0.0.1:1/0?password={REDIS_PASSWORD}&socket_timeout={REDIS_PASSWORD}",
    "nobody there": f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0",
}

ERRORS: Mapping[str, Driven] = {
    "credentials refused": with_token_answer("invalid_client", "whoami", "login", "serve"),
    "a dead refresh token": with_token_answer("invalid_grant", "token", "status --json", "login --no-browser"),
    "a token endpoint with HTML": with_token_answer("HTML with 200", "whoami", "login"),
    "a token endpoint with no HTTP": with_token_answer("a status line that is none", "whoami", "login"),
    "an error that is a secret": with_token_answer("an error that is a secret", "whoami"),
    "another store key": with_another_store_key,
    "a damaged store": with_a_damaged_store,
    "denied": with_a_login_that_is_denied,
    "a wrong state": with_a_callback_of_another_login,
    "a busy port": with_a_busy_port,
    "an API that says too much": with_an_api_that_says_too_much,
    "somebody else": with_somebody_else,
    "nobody there": with_nobody_there,
    "a Redis that is none": with_settings("status", env=redis(BAD_REDIS_URLS["nobody there"])),
    "no address of a Redis": with_settings("status", env=redis(BAD_REDIS_URLS["a slash in the password"])),
    "a secret's file that is none": with_settings(
        "whoami", env={"SLPROXY_LISTEN__KEY": "", "SLPROXY_LISTEN__KEY_FILE": "/"}
    ),
    "a secret twice": with_settings("whoami", env={"SALESLOFT_CLIENT_SECRET_FILE": "/dev/null"}),
    "a variable that is none": with_settings(
        "config", "serve", env={"SLPROXY_API_KEY": API_KEY, "SLPROXY_KEY": LOCAL_KEY}
    ),
    "a line that is no TOML": with_settings("config", toml=f"[auth]\napi_key = {API_KEY}\n"),
}


async def test_no_error_shows_a_secret(stage: Stage) -> None:
    async def named(name: str, driven: Driven) -> None:
        try:
            await driven(stage)
        except BaseException as error:
            error.add_note(f"in the scene: {name}")
            raise

    await asyncio.gather(*(named(name, driven) for name, driven in ERRORS.items()))
    assert stage.evidence.shown() == []


async def test_no_secret_shows_in_the_development_mode_of_python(stage: Stage) -> None:
    # As `python -X dev`, and asyncio's own: it shows what its tasks and futures hold.
    env = {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1"}

    async def one(line: tuple[str, ...], answer: str) -> None:
        async with stage.scene(f"development, {answer}", env, answer=answer, lifetime=-1.0) as scene:
            scene.fresh = True
            await drive(scene, *line)

    tried = (("serve",), ("login",), ("login", "--no-browser"))
    await asyncio.gather(*(one(line, answer) for line in tried for answer in ("grants", "HTML with 200")))
    assert stage.evidence.shown() == []


async def test_a_login_that_is_kept_in_the_open_holds_the_token_and_no_other_secret(stage: Stage) -> None:
    async with stage.scene("in the open", {"SLPROXY_STORE__KEY": "", "SLPROXY_STORE__ENCRYPTION": "off"}) as scene:
        scene.files_may_hold = TOKENS
        token_file(scene.home).unlink()
        assert await drive(scene, "login") == 0
        kept = token_file(scene.home).read_bytes()
    assert stage.evidence.shown() == []
    # Two that the searcher finds where they must be.
    assert stage.evidence.marks.found_in(kept) == TOKENS


async def test_what_redis_is_given_shows_no_secret_and_neither_does_its_password(stage: Stage) -> None:
    with redis_server() as address:
        client: Redis = Redis.from_url(address)
        await client.config_set("requirepass", REDIS_PASSWORD)
        await client.aclose()
        url = address.replace("redis://", f"redis://:{REDIS_PASSWORD}@")
        async with stage.scene("Redis", redis(url)) as scene:
            assert await drive(scene, "store", "move", "--from", "file", "--to", "redis") == 0
            for command in ("login", "status --json", "doctor", "serve", f"store rekey --new-key-file {NEW_KEY_FILE}"):
                assert await drive(scene, *command.split()) == 0, command
            wrong = {**scene.env, **redis(address.replace("redis://", f"redis://:{TYPED}@"))}
            assert await drive(replace(scene, env=wrong), "status") == 1
        client = Redis.from_url(url)
        keys = [key async for key in client.scan_iter()]
        for key in keys:
            stage.evidence.note("what is in Redis", b" ".join([key, await client.dump(key) or b""]))
        await client.aclose()
    assert b"slproxy:token:default" in keys
    assert stage.evidence.shown() == []


async def test_the_key_that_the_keyring_holds_shows_nowhere_else(stage: Stage) -> None:
    async with stage.scene("a keyring", {"SLPROXY_STORE__KEY": "", "SLPROXY_STORE__ENCRYPTION": "keyring"}) as scene:
        path = token_file(scene.home)
        path.unlink()
        ring = PlaintextKeyring()
        ring.file_path = str(scene.home / ".local/share/python_keyring" / KEYRING_FILE)
        for command in ("login", "store rekey", "serve"):
            assert await drive(scene, *command.split()) == 0, command
            if command in ("login", "store rekey"):
                key = ring.get_password("slproxy", json.loads(path.read_text())["key"])
                assert key is not None
                stage.evidence.marks.add("keyring's key", key)
    assert stage.evidence.shown() == []


# What is typed.


def test_no_flag_takes_a_secret() -> None:
    for words, parser in commands(build_parser()):
        for action in (*parser._actions, *build_parser()._actions):
            name = action.dest.replace("-", "_")
            suspicious = re.search(r"secret|token|password|phrase|(^|_)key|verifier|code|redis_url", name)
            harmless = name.endswith(("_file", "_lifetime")) or action.nargs == 0
            assert not suspicious or harmless, f"slproxy {' '.join(words)} {action.option_strings}"
    # And none of those that go among the settings names one that is secret.
    assert [key for key in FLAGS.values() if SCHEMA[key].secret] == []


USAGES = {
    "a flag that is none": ("--client-secret", TYPED),
    "a flag that is none, with =": (f"--api-key={TYPED}",),
    "a flag that is none, of one letter": (f"-k{TYPED}",),
    "an argument too many": (TYPED,),
    "a number that is none": ("--port", TYPED),
    "a switch with a value": (f"--json={TYPED}",),
    "a flag cut short": (f"--h={TYPED}",),
    "after the end of the flags": ("--", TYPED),
}


@pytest.mark.parametrize("arguments", USAGES.values(), ids=USAGES)
async def test_a_secret_that_is_typed_where_none_belongs_is_not_repeated(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    marks = Marks(NAMES)
    for words in ((), *(words for words, _ in commands(build_parser()))):
        if words == ("run",) and arguments[0] in (TYPED, "--"):
            continue  # it is a program
        code, out, err = await run_here(*words, *arguments, home=tmp_path)
        assert code == 2, words
        assert marks.found_in(out + err) == set(), out + err


# What is raised, whatever becomes of it: a traceback tells the causes as well.


def told(error: BaseException) -> str:
    """Return all that Python would say of an error."""
    said = "".join(traceback.format_exception(error))
    causes: list[BaseException | None] = [error]
    while (cause := causes.pop()) is not None:
        said += repr(cause) + repr(getattr(cause, "__notes__", ""))
        causes.append(cause.__cause__)
    return said


@pytest.mark.parametrize("answer", TOKEN_ANSWERS)
async def test_no_answer_of_the_token_endpoint_gets_into_an_error_or_the_log(
    answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    evidence, salesloft = Evidence(), SalesLoft(TOKEN_ANSWERS[answer])
    auth = AuthSettings(client_id=CLIENT_ID, client_secret=Secret(CLIENT_SECRET), grant="authorization_code")
    async with ScriptedUpstream(salesloft.script) as upstream:
        settings = settings_for(upstream.url, auth=auth)
        store: TokenStore = MemoryStore(stored(upstream.url, lifetime=-1.0))
        with everything_slow(asyncio.get_running_loop()):
            async with proxy(settings, store=store, clock=FakeTime(now=time.time()).clock()) as app:
                first = await raw(app.urls[0], get("/v2/me.json"))
                problem = app.credentials.problem()
                evidence.note("a repr", repr([app.settings, await store.read(), app.own_pages.state()]))
    evidence.note("the answer", first.head.raw + first.body)
    assert (problem is None) == (first.head.status == 200) == (answer == "grants")
    if problem is not None:
        evidence.note("the problem", told(problem))
    assert "asyncio" in caplog.text, "nothing of its debugging was seen"
    evidence.note("the log", caplog.text)
    assert evidence.shown() == []


@contextlib.contextmanager
def everything_slow(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let asyncio show every callback and what it holds, as it does in debug mode of those that take long."""
    before = loop.slow_callback_duration
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    try:
        yield
    finally:
        loop.set_debug(False)
        loop.slow_callback_duration = before


_TOML = (
    f"api_key = {TYPED}",
    f'api_key = "{TYPED}',
    f'api_key = "{TYPED}\\q"',
    f'api_key = "a"\napi_key = "{TYPED}"',
    f'"{TYPED}" = 1 1',
    f'api_key = ["{TYPED}"]',
    f'api_key = {{ value = "{TYPED}" }}',
    f'apikey = "{TYPED}"',
    f'client_secret.value = "{TYPED}"',
    f'leeway = "me:{TYPED}@x"',
    f'[store]\nkind = "redis"\nredis_url = ["{TYPED}"]',
    f'api_key = """\n{TYPED}\n"""',
)

CONFIGURATIONS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    **{f"a Redis: {name}": (redis(url), {}) for name, url in BAD_REDIS_URLS.items()},
    "variables that are none": ({"SLPROXY_API_KEY": API_KEY, "SLPROXY_AUTH__CLIENTSECRET": CLIENT_SECRET}, {}),
    "a file that is a folder": ({"SALESLOFT_API_KEY_FILE": "/dev", "SLPROXY_LISTEN__KEY": LOCAL_KEY}, {}),
    "a file that is too large": ({"SALESLOFT_API_KEY_FILE": "mounted"}, {"mounted": API_KEY * 3000}),
    "a file with two lines": ({"SALESLOFT_API_KEY_FILE": "mounted"}, {"mounted": f"{API_KEY}\nmore"}),
    "a value and a file": ({"SALESLOFT_API_KEY_FILE": "mounted", "SALESLOFT_API_KEY": API_KEY}, {"mounted": API_KEY}),
    "two names of one setting": ({"SALESLOFT_API_KEY": API_KEY, "SLPROXY_AUTH__API_KEY": V2_API_KEY}, {}),
    "a secret with a space": ({"SALESLOFT_CLIENT_SECRET": f"{CLIENT_SECRET} {CLIENT_SECRET}"}, {}),
    "a secret without its client": ({"SALESLOFT_CLIENT_SECRET": CLIENT_SECRET}, {}),
    "a key that is not used": ({"SLPROXY_STORE__KEY": STORE_KEY, "SLPROXY_STORE__ENCRYPTION": "off"}, {}),
    "an address with a password": ({"SLPROXY_UPSTREAM__API_URL": f"https://me:{TYPED}@api.test"}, {}),
    "a .env that does not parse": ({}, {".env": f"A=1\nSALESLOFT_API_KEY='{API_KEY}\n"}),
    "a .env with a name that is none": ({}, {".env": f"SLPROXY_APIKEY={API_KEY}\n"}),
    **{
        f"a line that is wrong: {line.replace(TYPED, 'SECRET')!r}": ({}, {"slproxy.toml": f"[auth]\n{line}\n"})
        for line in _TOML
    },
}


@pytest.mark.parametrize(("env", "files"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
async def test_no_mistake_in_the_settings_gets_a_secret_into_an_error(
    tmp_path: Path, env: Mapping[str, str], files: Mapping[str, str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    evidence = Evidence()

    async def start() -> None:
        settings = config.load(config=None, profile=None, flags={}, environ=env, cwd=tmp_path)
        evidence.note("the settings", repr(settings) + repr(config.effective(settings)))
        store = token_store(settings)
        evidence.note("the store", repr(store) + store.description + store.encryption)
        try:
            await store.read()  # an address of a Redis that is understood: nobody is there
        finally:
            await store.close()

    with pytest.raises(SlproxyError) as caught:
        await start()
    evidence.note("the error", told(caught.value))
    assert evidence.shown() == []


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
async def test_no_error_of_a_store_shows_what_is_in_it(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    evidence, path = Evidence(), tmp_path / "folder" / "token.json"
    write_damaged(path, content)
    with pytest.raises(SlproxyError) as caught:
        await keep(path, stored("http://127.0.0.1:9"))
    evidence.note("the error", told(caught.value))
    # A proxy that finds it so when it wants to renew writes the cause into its log.
    path.unlink(missing_ok=True)
    async with ScriptedUpstream(SalesLoft().script) as upstream:
        auth = AuthSettings(client_id=CLIENT_ID, client_secret=Secret(CLIENT_SECRET), grant="authorization_code")
        await keep(path, stored(upstream.url, lifetime=-1.0), key=None)
        async with App(settings_for(upstream.url, auth=auth, path=path)) as app:
            # It has read a good one, and renews from now on.
            write_damaged(path, content)
            await app.listen()
            answer = await raw(app.urls[0], get("/v2/me.json"))
        evidence.note("the answer", answer.head.raw + answer.body)
    evidence.note("the log", caplog.text)
    assert "renewing the token failed" in caplog.text or "It was moved to" in caplog.text
    assert evidence.shown() == []


def test_no_error_of_a_login_shows_what_came_back() -> None:
    evidence = Evidence()
    state, verifier = (core(name) for name in ("state", "verifier"))
    evidence.marks.add("state", state)
    evidence.marks.add("verifier", verifier)
    attempt = LoginAttempt(
        url=f"http://x/{state}", redirect_uri="http://localhost/callback", state=state, verifier=verifier
    )
    evidence.note("the attempt", repr(attempt))
    for query in (f"code={CODE}", f"code={CODE}&state={TYPED}", f"state={state}", f"state={state}&error={TYPED}"):
        for take in (parse_callback, parse_pasted):
            with pytest.raises(SlproxyError) as caught:
                take(attempt, query)
            evidence.note("the error", told(caught.value))
    assert evidence.shown() == []
