"""No secret in anything that observes: the inspector, wherever in a request or reply it stood (docs/inspector.md); log,
audit, metrics and traces, unless the client has put it in its path or called itself so (docs/observe.md).

Each exchange is made up: secrets of the proxy stand in its path, query, headers and bodies, as they are and as JSON,
URLs, base64, hex and compression spell them, and credentials of the client in headers and parameters that are named so.
``--fuzz`` says how many there are, from 50,000 on; up to there, a twentieth of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, quote

import pytest

from slproxy.config import AuthSettings, InspectSettings, ListenSettings, Secret, Settings
from slproxy.config.schema import PaceSettings, RetrySettings
from slproxy.observe import BODY_LIMIT
from tests.support.collector import Collector
from tests.support.commands import pointed_at
from tests.support.inspector import PAGE, act
from tests.support.marks import Marks, core, secret
from tests.support.programs import program
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, read_head, read_message, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until

LOCAL_KEY, CLIENT_SECRET = secret("local key"), secret("client secret", "cs_{}")
THEIRS = secret("a credential of the client's")
NAMES = ("local key", "client secret", "a credential of the client's")
# How many exchanges at a time: fewer than the inspector keeps.
ROUND = 100
# How many tokens are looked for: more than are renewed within a round, of which the inspector is cleared.
LOOKED_FOR = 30

SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    str.upper,
    lambda text: f"Bearer {text}",
    lambda text: quote(text, safe=""),
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
    lambda text: base64.urlsafe_b64encode(f"x{text}?".encode()).decode(),
    lambda text: text.encode().hex(),
    lambda text: text.encode().hex().upper(),
)
# What holds a credential by its name, in any case, and with `_` for `-`.
CREDENTIALS = (
    *("Authorization", "Cookie", "Proxy-Authorization", "X-Slproxy-Key-Old", "X-Api-Key", "X-Auth-Token"),
    *("X-Amz-Security-Token", "X-Secret", "Proxy-Anything", "Api_Key", "X-CSRF-Token"),
)
PARAMETERS = ("access_token", "api_key", "client_secret", "password", "code", "X-Amz-Signature", "APIKEY", "sig")
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": bytes,  # which it is not: nothing may be shown of what does not decompress
}
TYPES = ("application/json", "text/plain; charset=utf-16", "text/html", "image/png", "", "application/octet-stream")


class Salesloft:
    """The accounts host and the API in one; each token is marked, and the last ones are what replies hold."""

    def __init__(self, dice: random.Random, marks: Marks) -> None:
        self.tokens: list[str] = []
        self._dice, self._marks = dice, marks

    async def script(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/oauth/token":
            assert parse_qs(message.body.decode())["client_secret"] == [CLIENT_SECRET]
            name = f"token {len(self.tokens)}"
            self._marks.add(name, core(name))
            if len(self.tokens) >= LOOKED_FOR:
                self._marks.remove(f"token {len(self.tokens) - LOOKED_FOR}")
            self.tokens.append(secret(name, "at-{}"))
            granted = {"access_token": self.tokens[-1], "token_type": "bearer", "expires_in": 7200}
            writer.write(reply("200 OK", json.dumps(granted).encode()))
            return
        if self._dice.random() < 0.02 and message.head.get("Authorization") == f"Bearer {self.tokens[-1]}":
            writer.write(reply("401 Unauthorized", b'{"error": "Invalid Bearer token"}'))
            return
        writer.write(self._reply())

    def _reply(self) -> bytes:
        dice = self._dice
        kind = dice.choice(TYPES)
        body = said(dice, self.secrets()).encode("utf-16" if "utf-16" in kind else "utf-8")
        coding = dice.choice((*[""] * 6, *CODINGS))
        headers = [f"Content-Encoding: {coding}"] if coding else []
        headers += [f"Content-Type: {kind}"] if kind else []
        headers += [f"Set-Cookie: session={THEIRS}"] if dice.random() < 0.3 else []
        # Not a token: that would be no reply (docs/contract.md, Answer).
        headers += [f"X-Debug: {dice.choice(SPELLINGS[:3])(LOCAL_KEY)}"] if dice.random() < 0.3 else []
        status = dice.choice(("200 OK", "201 Created", "404 Not Found", "422 No", "500 Oops"))
        return reply(status, CODINGS[coding](body), *headers)

    def secrets(self) -> list[str]:
        return [LOCAL_KEY, CLIENT_SECRET, *self.tokens[-3:]]


def said(dice: random.Random, secrets: list[str]) -> str:
    """Return a text with secrets in it; one of them may stand where what is kept of a body ends."""
    pieces = [dice.choice(SPELLINGS)(dice.choice(secrets)) for _ in range(dice.randint(0, 3))]
    shape = dice.random()
    if shape < 0.4:
        return json.dumps({"data": pieces, "a/b": dice.choice(pieces or [""]), "name": "Jane"})
    if shape < 0.6:
        return "&".join(f"f{index}={quote(piece)}" for index, piece in enumerate(pieces))
    if shape < 0.7:
        piece = dice.choice(SPELLINGS)(dice.choice(secrets))
        return "x" * (BODY_LIMIT - dice.randint(0, len(piece) + 2)) + piece + "y" * dice.randint(0, 50)
    return " ".join(pieces)


def made_up(dice: random.Random, secrets: list[str], *, in_labels: bool = True) -> bytes:
    """Return a request with secrets wherever one may stand; ``in_labels`` also where a client names what it asks."""

    def piece() -> str:
        return quote(dice.choice(SPELLINGS)(dice.choice(secrets)), safe="")

    target = "/v2/people"
    target += f"/{piece()}" if in_labels and dice.random() < 0.2 else ""
    query = [f"{dice.choice(PARAMETERS)}={THEIRS}"] if dice.random() < 0.3 else []
    query += [f"x{dice.randint(0, 9)}={piece()}"] if dice.random() < 0.3 else []
    target += "?" + "&".join(query) if query else ""
    headers = [f"X-Slproxy-Key: {LOCAL_KEY}"]
    for _ in range(dice.randint(0, 3)):
        name = dice.choice(CREDENTIALS)
        headers.append(f"{dice.choice((str, str.upper, str.lower))(name)}: {dice.choice(('', 'Basic ', 'a='))}{THEIRS}")
    if dice.random() < 0.3:
        labels = ("User-Agent", "X-Slproxy-Client", "X-Request-Id") if in_labels else ()
        headers.append(f"{dice.choice(('X-Note', *labels))}: {piece()}")
    method, body = dice.choice(("GET", "GET", "POST", "PUT", "DELETE")), b""
    if method in ("POST", "PUT"):
        body = said(dice, secrets).encode()
        headers.append(f"Content-Type: {dice.choice(TYPES)}")
    return get(target, *headers, method=method, body=body)


def settings_of(url: str) -> Settings:
    return replace(
        settings_for(url),
        auth=AuthSettings(grant="client_credentials", client_id="id", client_secret=Secret(CLIENT_SECRET)),
        listen=ListenSettings(port=0, key=Secret(LOCAL_KEY)),
        inspect=InspectSettings(bodies="on", memory=64 * 2**20),
        pace=PaceSettings(mode="off"),
        retry=RetrySettings(attempts=1),
    )


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """Return how many exchanges there are."""
    asked: int = request.config.getoption("--fuzz")
    return asked if asked >= 50_000 else asked // 20


@pytest.mark.heavy
async def test_nothing_that_the_inspector_shows_holds_a_secret(count: int) -> None:
    dice = random.Random("inspector")
    marks = Marks(NAMES)
    salesloft = Salesloft(dice, marks)
    key = f"X-Slproxy-Key: {LOCAL_KEY}"
    async with ScriptedUpstream(salesloft.script) as upstream, proxy(settings_of(upstream.url)) as app:
        url = app.urls[0]
        streamed: list[bytes] = []
        tab = asyncio.create_task(read_stream(url, key, streamed))
        await raw(url, get("/v2/me.json", key))
        sent = rowed = 0
        while sent < count:
            await exchange(url, lambda: made_up(dice, salesloft.secrets()))
            sent += ROUND
            upstream.seen.clear()
            archives = [(await raw(url, get(f"{PAGE}har?mask={mask}", key))).body for mask in (0, 1)]
            numbers = [int(each["_n"]) for each in json.loads(archives[0])["log"]["entries"]][-ROUND:]
            documents = [(await raw(url, get(f"{PAGE}exchanges/{n}", key))).body for n in numbers]
            for shown in (*archives, *documents):
                json.loads(shown)
                assert marks.found_in(shown) == set(), shown_by(marks, shown)
            rows = b"".join(streamed)
            assert marks.found_in(rows) == set(), shown_by(marks, rows)
            rowed += rows.count(b'"n": ')
            # The last may have come in part only.
            streamed[:] = [rows[rows.rfind(b"\n\n") :]]
            assert (await act(url, "clear", {}, key))[0] == 200
        tab.cancel()
    assert len(salesloft.tokens) > 1
    assert rowed >= ROUND // 2


@pytest.mark.heavy
async def test_no_log_audit_metric_or_trace_holds_a_secret(count: int, tmp_path: Path) -> None:
    dice = random.Random("logs")
    marks = Marks(NAMES)
    salesloft = Salesloft(dice, marks)
    key, audit = f"X-Slproxy-Key: {LOCAL_KEY}", tmp_path / "audit.jsonl"
    async with Collector() as collector, ScriptedUpstream(salesloft.script) as upstream:
        env = pointed_at(
            upstream.url,
            SALESLOFT_CLIENT_ID="id",
            SALESLOFT_CLIENT_SECRET=CLIENT_SECRET,
            SLPROXY_LISTEN__KEY=LOCAL_KEY,
            SLPROXY_LOG__AUDIT=str(audit),
            SLPROXY_PACE__MODE="off",
            SLPROXY_RETRY__ATTEMPTS="1",
            **collector.environment,
        )
        async with program("serve", home=tmp_path, env=env) as running:
            url = running.url
            await raw(url, get("/v2/me.json", key))
            sent = read = traced = 0
            while sent < count:
                await exchange(url, lambda: made_up(dice, salesloft.secrets(), in_labels=False))
                sent += ROUND
                upstream.seen.clear()
                await until(lambda: sum("/v2/people" in line for line in running.errors) >= ROUND)
                with audit.open("rb") as lines:
                    lines.seek(read)
                    audited = lines.read()
                read += len(audited)
                metrics = (await raw(url, get("/_slproxy/metrics", key))).body
                traces = b"".join(message.body for message in collector.seen)
                collector.seen.clear()
                traced += len(traces)
                log = "\n".join(running.errors)
                running.errors.clear()
                for shown in (audited, metrics, traces, log.encode()):
                    assert marks.found_in(shown) == set(), shown_by(marks, shown)
                assert audited.count(b'"kind": "request"') >= ROUND
                assert b"slproxy_requests_total" in metrics
    assert len(salesloft.tokens) > 1
    assert traced > 100 * sent


async def exchange(url: str, made: Callable[[], bytes]) -> None:
    """Ask a round of requests on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), limit=2**22)
    for _ in range(ROUND):
        writer.write(made())
        await read_message(reader)
    writer.close()


async def read_stream(url: str, key: str, into: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url), limit=2**24)
    writer.write(get(f"{PAGE}events", key))
    await read_head(reader)
    try:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(2**16):
                into.append(piece)
    finally:
        writer.close()


def shown_by(marks: Marks, text: bytes) -> list[str]:
    """Return around what a secret shows."""
    return [str(each)[:300] for each in text.split(b'"') if marks.found_in(each)][:5]
