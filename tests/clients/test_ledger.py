"""The upstream's own books: what arrived there, what was carried out, and whether anything was done twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from slproxy.clock import Clock
from slproxy.config import AuthSettings, RetrySettings, Secret
from slproxy.config.schema import PaceSettings
from tests.support.listener import Listener
from tests.support.programs import program
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Head, Message, abort, get, port_of, raw, read_body, read_head, read_message, reply
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.heavy

SEED = 3
RATE = 0.05
LANES = 40
# Long enough for a busy machine: what is said to hang, hangs for as long as this.
RESPONSE_TIMEOUT = 8.0
# More is sent here than a team may send in a minute.
UNPACED = PaceSettings(mode="off")
SECRET = "cs_" + "c4" * 32
# Above what is read whole before it is sent: these are streamed.
LARGE = b"l" * 100_000

OK = reply("200 OK", b'{"data":{}}')
REFUSED = reply("401 Unauthorized", b'{"error":"Invalid Bearer token"}')
LIMITED_NOW = reply("429 Too Many Requests", b"{}", "Retry-After: 0")
LIMITED = reply("429 Too Many Requests", b"{}")
DOWN = reply("503 Service Unavailable", b"down")
TOO_LARGE = reply("413 Content Too Large", b"{}", "Connection: close")
BROKEN = reply("200 OK", b"", "Content-Length: 100", length=False) + b"part"

# What may become of an arrival, and what a client who is not cured may then be told: a status, or 0 for a reply that
# broke off.
ONCE: dict[str, set[int]] = {
    "nothing": {200},
    "a slow reply": {200},
    "a good reply, and the end of the connection": {200},
    "a good reply, and a reset for whoever comes next": {200},
    "a reset, unread": {502},
    "a reset after the head": {502},
    "a reset after it was carried out": {502},
    "an end after it was carried out": {502},
    "an end, not carried out": {502},
    "silence after it was carried out": {504},
    "garbage after it was carried out": {502},
    "half a reply": {0, 502},
    "503": {503},
    "503 after it was carried out": {503},
    "413 after the head": {413, 502},
    # Cured for any method, so never the end of a request.
    "401": set(),
    "429 for now": set(),
    "429 for a minute": set(),
    # What a connection that was to end does with what comes all the same.
    "nobody": {502},
}
KINDS = [kind for kind in ONCE if kind not in ("nothing", "nobody")]
LAST_ONES = {"a good reply, and the end of the connection", "a good reply, and a reset for whoever comes next"}
# Replies that say it was not carried out: the only reasons for a POST to come again.
COME_AGAIN = {"401", "429 for now", "429 for a minute"}


@dataclass(slots=True)
class Arrival:
    """A request, from the moment that its head was there."""

    kind: str
    carried_out: bool = False


@dataclass
class Books(Listener):
    """A small fast SalesLoft in which something goes wrong at random, and which writes everything down.

    It looks at what it pretends not to have read: a request that meets a reset, or comes on a connection that this side
    has ended, has arrived all the same.
    """

    kinds: list[str]
    arrivals: defaultdict[bytes, list[Arrival]] = field(default_factory=lambda: defaultdict(list))
    tokens: int = 0

    def __post_init__(self) -> None:
        super().__init__(self._converse)

    def _kind(self, target: bytes, times: int) -> str:
        dice = random.Random(f"{SEED} {target!r} {times}")
        if dice.random() >= RATE:
            return "nothing"
        kind = dice.choice(self.kinds)
        # After a second 401 in a row the token is not renewed for 30 s (docs/contract.md, Cure).
        return "nothing" if kind == "401" and times else kind

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        last = "nothing"
        while not writer.is_closing():
            last = await self._exchange(reader, writer, last)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last: str) -> str:
        head = await read_head(reader)
        target = head.target.encode()
        if target == b"/oauth/token":
            await read_body(head, reader)
            self.tokens += 1
            token = b'{"access_token":"at_%d","token_type":"bearer","expires_in":7200}' % self.tokens
            writer.write(reply("200 OK", token))
            return last
        times = len(self.arrivals[target])
        arrival = Arrival("nobody" if last in LAST_ONES else self._kind(target, times))
        self.arrivals[target].append(arrival)
        await self._carry_out(arrival, head, reader, writer)
        return arrival.kind

    async def _carry_out(
        self, arrival: Arrival, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kind = arrival.kind
        if kind in ("nobody", "a reset, unread", "a reset after the head"):
            abort(writer)
            return
        if kind == "413 after the head":
            writer.write(TOO_LARGE)
            writer.close()
            return
        await read_body(head, reader)
        arrival.carried_out = kind not in (*COME_AGAIN, "503", "an end, not carried out")
        match kind:
            case "a slow reply":
                await asyncio.sleep(0.05)
                writer.write(OK)
            case "a good reply, and the end of the connection":
                writer.write(OK)
                writer.write_eof()  # the other half stays open, to see who comes
            case "a reset after it was carried out":
                abort(writer)
            case "an end after it was carried out" | "an end, not carried out":
                writer.close()
            case "silence after it was carried out":
                await reader.read()
            case "garbage after it was carried out":
                writer.write(b"\x00garbage\r\n\r\n")
            case "half a reply":
                writer.write(BROKEN)
                await writer.drain()
                writer.close()
            case "503" | "503 after it was carried out":
                writer.write(DOWN)
            case "401":
                writer.write(REFUSED)
            case "429 for now":
                writer.write(LIMITED_NOW)
            case "429 for a minute":
                writer.write(LIMITED)
            case _:
                writer.write(OK)


def request_of(method: str, number: int) -> bytes:
    target = f"/v2/{number}"
    if method == "GET":
        return get(target)
    if number % 100 == 1:
        return get(target, method=method, body=LARGE)
    if number % 100 == 2:
        return get(target, "Transfer-Encoding: chunked", method=method) + b"5\r\nhello\r\n0\r\n\r\n"
    return get(target, method=method, body=b'{"n":%d}' % number)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, int]:
    """Return the status, 0 where the reply broke off, and in how many attempts."""
    try:
        writer.write(request)
        await writer.drain()
        answer = await read_message(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, 1
    return answer.head.status, int(answer.head.get("X-Slproxy-Attempts") or 1)


async def send_all(url: str, method: str, count: int) -> dict[bytes, tuple[int, int]]:
    """Send each request over one of ``LANES`` connections that are kept alive; return what each client was told."""
    told: dict[bytes, tuple[int, int]] = {}
    numbers = iter(range(count))

    async def lane() -> None:
        connection = await asyncio.open_connection("127.0.0.1", port_of(url))
        for number in numbers:
            async with asyncio.timeout(3 * PATIENCE):
                told[b"/v2/%d" % number] = status, _ = await ask(*connection, request_of(method, number))
            if status == 0 or connection[0].at_eof():
                connection[1].close()
                connection = await asyncio.open_connection("127.0.0.1", port_of(url))
        connection[1].close()

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return told


def hurried() -> Clock:
    """Return a clock on which no wait takes long; a background renewal that sleeps must not spin on it either."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    return Clock(sleep=sleep)


async def run(method: str, count: int, *, home: Path | None = None) -> tuple[Books, dict[bytes, int]]:
    """Send that many requests; return the books, and the status that each client was told.

    With ``home`` the proxy is a process of its own: what it does and what becomes of its connections really race.
    """
    # A program waits out a minute in earnest.
    async with Books([kind for kind in KINDS if home is None or kind != "429 for a minute"]) as books:
        if home is not None:
            settings = {
                "SALESLOFT_CLIENT_ID": "app",
                "SALESLOFT_CLIENT_SECRET": SECRET,
                "SLPROXY_UPSTREAM__API_URL": books.url,
                "SLPROXY_UPSTREAM__ACCOUNTS_URL": books.url,
                "SLPROXY_UPSTREAM__RESPONSE_TIMEOUT": str(RESPONSE_TIMEOUT),
                "SLPROXY_STORE__KIND": "memory",
                "SLPROXY_PACE__MODE": "off",
            }
            async with program("serve", "--port", "0", home=home, env=settings) as running:
                told = await send_all(running.url, method, count)
        else:
            built = settings_for(books.url, auth=AuthSettings(client_id="app", client_secret=Secret(SECRET)))
            built = replace(built, upstream=replace(built.upstream, response_timeout=RESPONSE_TIMEOUT), pace=UNPACED)
            async with proxy(built, clock=hurried()) as app:
                told = await send_all(app.urls[0], method, count)
    # Every time that a request came was an attempt of ours, and was counted as one.
    uncounted = {
        target: (attempts, [each.kind for each in books.arrivals[target]])
        for target, (status, attempts) in told.items()
        if status and len(books.arrivals[target]) != attempts
    }
    assert uncounted == {}
    return books, {target: status for target, (status, _) in told.items()}


@pytest.mark.parametrize("where", ["in this process", "as a program"])
async def test_no_post_is_carried_out_twice_nor_sent_twice_without_a_reply_that_asks_for_it(
    where: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    count = pytestconfig.getoption("--ledger")
    books, told = await run("POST", count, home=tmp_path if where == "as a program" else None)
    assert len(told) == count
    assert [target for target, came in books.arrivals.items() if sum(each.carried_out for each in came) > 1] == []
    carried_out = {target for target, came in books.arrivals.items() if any(each.carried_out for each in came)}
    assert [target for target, status in told.items() if 200 <= status < 300 and target not in carried_out] == []
    # Whatever came again came again because the last time was answered with a 401 or a 429.
    unasked = [
        (target, [each.kind for each in came])
        for target, came in books.arrivals.items()
        if any(each.kind not in COME_AGAIN for each in came[:-1])
    ]
    assert unasked == []
    # What a client was told is what became of the last time that its request came.
    last = {target: came[-1].kind for target, came in books.arrivals.items()}
    wrong = Counter((last[target], status) for target, status in told.items() if status not in ONCE[last[target]])
    assert wrong == {}
    # And all that can happen did.
    happened = {each.kind for came in books.arrivals.values() for each in came}
    assert happened == {"nothing", "nobody", *books.kinds} or count < 5000


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_what_may_be_repeated_is_cured(method: str, pytestconfig: pytest.Config) -> None:
    count = max(pytestconfig.getoption("--ledger") // 2, 1000)
    books, told = await run(method, count)
    # A body that breaks after its head went down cannot be cured any more.
    lost = {
        target for target, came in books.arrivals.items() if came[-1].kind in ("half a reply", "413 after the head")
    }
    failed = {target: status for target, status in told.items() if status != 200 and target not in lost}
    assert len(told) == count
    assert len(lost) < count / 50
    assert len(failed) <= count / 1000, failed
    assert sum(len(came) for came in books.arrivals.values()) <= 1.2 * count


@pytest.mark.parametrize("refusal", [LIMITED_NOW, REFUSED], ids=["429", "401"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_request_that_was_refused_once_and_then_lost_is_not_told_as_refused(
    method: str, refusal: bytes
) -> None:
    """A 429 says that it was not carried out: whoever is told so sends it again, and doubles what the last one did."""
    seen: list[Message] = []

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/oauth/token":
            writer.write(reply("200 OK", b'{"access_token":"at_%d","token_type":"bearer"}' % len(seen)))
            return
        seen.append(message)
        if len(seen) == 1:
            writer.write(refusal)
        else:
            abort(writer)

    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url, auth=AuthSettings(client_id="app", client_secret=Secret(SECRET)))
        async with proxy(settings, clock=hurried()) as app:
            answer = await raw(app.urls[0], get("/v2/a", method=method, body=b"{}"))
    assert (answer.head.status, len(seen)) == (502, 2)
    assert answer.head.get("Proxy-Status") == "slproxy; error=connection_terminated"


# An outage.


class Simulated:
    """Time that passes when it is told to; who sleeps wakes when it has come that far."""

    def __init__(self) -> None:
        self.now = 1_795_000_010.0
        self.sleeping: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleeping.append((self.now + seconds, waking))
        await waking

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [waking for at, waking in self.sleeping if at <= self.now]
        self.sleeping = [(at, waking) for at, waking in self.sleeping if at > self.now]
        for waking in due:
            waking.set_result(None)

    def clock(self) -> Clock:
        dice = random.Random(SEED)
        return Clock(now=lambda: self.now, monotonic=lambda: self.now, sleep=self.sleep, jitter=dice.random)


async def down(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(DOWN)


async def resets(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    abort(writer)


OUTAGES: dict[str, tuple[Handler, int]] = {"503": (down, 503), "reset": (resets, 502)}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_of_a_minute_is_met_with_a_fifth_more_requests_at_most(outage: str) -> None:
    script, status = OUTAGES[outage]
    time = Simulated()
    running: set[asyncio.Task[Message]] = set()
    answered: list[asyncio.Task[Message]] = []
    asked = 0

    def settled() -> bool:
        return asked - len(answered) == len(time.sleeping)

    async with (
        ScriptedUpstream(script) as upstream,
        proxy(replace(settings_for(upstream.url), pace=UNPACED), clock=time.clock()) as app,
    ):
        for asked in range(1, 601):
            running.add(task := asyncio.create_task(raw(app.urls[0], get("/v2/a"))))
            task.add_done_callback(answered.append)
            await soon(settled)
            # At no moment more than the floor, or a fifth of what was asked until then, begun repeats included.
            assert len(upstream.seen) - asked <= max(10, 0.2 * asked + 1)
            time.advance(0.1)
            await soon(settled)
        repeats = len(upstream.seen) - asked
        upstream.script = None
        while len(answered) < asked:
            time.advance(1.0)
            await soon(settled)
        answers = Counter(task.result().head.status for task in answered)
    assert 100 <= repeats <= 120
    assert answers[status] >= 590
    assert set(answers) <= {status, 200}


async def soon(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0)


# No retry but ours.


async def empty(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply("200 OK", b""))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
async def test_one_request_is_one_request_upstream_when_nothing_fails(method: str) -> None:
    async with ScriptedUpstream(empty) as upstream, proxy(settings_for(upstream.url)) as app:
        body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
        asked = [get(f"/v2/{number}", method=method, body=body) for number in range(50)]
        answers = await asyncio.gather(*(raw(app.urls[0], request, method=method) for request in asked))
    assert Counter(answer.head.status for answer in answers) == {200: 50}
    assert [answer for answer in answers if answer.head.get("X-Slproxy-Attempts")] == []
    assert Counter(message.head.target for message in upstream.seen) == {f"/v2/{number}": 1 for number in range(50)}


@pytest.mark.parametrize("attempts", [1, 4])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_connection_that_ends_without_a_byte_of_a_reply_costs_an_attempt_that_is_counted(
    method: str, attempts: int
) -> None:
    """aiohttp's own session would ask once more by itself, and tell nobody (docs/hazards.md, trap 6)."""
    used: set[asyncio.StreamWriter] = set()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer in used:
            writer.close()
        else:
            used.add(writer)
            writer.write(reply("200 OK", b""))

    async with ScriptedUpstream(script) as upstream:
        settings = replace(settings_for(upstream.url), retry=RetrySettings(attempts=attempts))
        async with proxy(settings, clock=hurried()) as app:
            await raw(app.urls[0], get("/v2/first"))
            answer = await raw(app.urls[0], get("/v2/second", method=method), method=method)
    assert [message.head.target for message in upstream.seen] == ["/v2/first"] + ["/v2/second"] * min(attempts, 2)
    assert answer.head.status == (200 if attempts > 1 else 502)
    assert answer.head.get("X-Slproxy-Attempts") == ("2" if attempts > 1 else None)
