"""The table of docs/contract.md, Cure, row by row: what the client never sees, and what the upstream sees instead."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Literal
from urllib.parse import parse_qs

import pytest

from slproxy.app import App
from slproxy.clock import Clock
from slproxy.config import AuthSettings, LimitSettings, RetrySettings, Secret
from slproxy.config.origin import Origin
from slproxy.errors import StoreError
from slproxy.store import MemoryStore, Record, Token
from tests.support.pacing import ManualClock
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, read_message, reply
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import SOON, until

End = Callable[[asyncio.StreamWriter], None]

REPEATABLE = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]
ONCE_ONLY = ["POST", "PATCH"]
ALL = [*REPEATABLE, *ONCE_ONLY]
SMALL = LimitSettings(replay_memory=1000, replay_disk=10_000)


@dataclass
class Waits:
    """A clock on which waiting costs no time; only ``skip`` and what is waited for move it beyond the real one."""

    start: float = 1_795_000_010.0
    die: float = 0.5
    slept: list[float] = field(default_factory=list)
    skipped: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        return self.start + time.monotonic() - self._began + self.skipped

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.skipped += seconds
        await asyncio.sleep(0)

    def skip(self, seconds: float) -> None:
        self.skipped += seconds

    def clock(self, *, keeper: bool = False) -> Clock:
        """Return the clock; with ``keeper`` sleeping is real, since a background renewal would spin on this one."""
        sleep = asyncio.sleep if keeper else self.sleep
        return Clock(now=self.now, monotonic=self.monotonic, sleep=sleep, jitter=lambda: self.die)


@dataclass
class Line:
    """An upstream, a proxy before it, and its clients."""

    upstream: ScriptedUpstream
    app: App
    waits: Waits

    @property
    def sent(self) -> list[str]:
        """The API requests that reached the upstream, by method and target."""
        return [f"{each.head.method} {each.head.target}" for each in self.api]

    @property
    def api(self) -> list[Message]:
        return [each for each in self.upstream.seen if each.head.target.startswith("/v2/")]

    @property
    def token_requests(self) -> list[Message]:
        return [each for each in self.upstream.seen if each.head.target == "/oauth/token"]

    async def ask(
        self, target: str = "/v2/a", *headers: str, method: str = "GET", body: bytes = b"", more: bytes = b""
    ) -> Message:
        request = get(target, *headers, method=method, body=body) + more
        return await raw(self.app.urls[0], request, method=method, timeout=SOON)


@asynccontextmanager
async def with_api_key(
    script: Handler | None = None,
    *,
    retry: RetrySettings | None = None,
    limits: LimitSettings | None = None,
    response_timeout: float = 60.0,
    waits: Waits | None = None,
    whole: bool = True,
    pace: Literal["pace", "observe", "off"] = "observe",
) -> AsyncIterator[Line]:
    """Without pacing by default: it waits in real time for what a 429 has closed, and tests of its own do so."""
    waits = waits or Waits()
    async with ScriptedUpstream(script, whole=whole) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(
            settings,
            retry=retry or settings.retry,
            limits=limits or settings.limits,
            upstream=replace(settings.upstream, response_timeout=response_timeout),
            pace=replace(settings.pace, mode=pace),
        )
        async with proxy(settings, clock=waits.clock()) as app:
            yield Line(upstream, app, waits)


INVALID = reply("401 Unauthorized", b'{"error":"Invalid Bearer token"}')


@dataclass
class SalesLoft:
    """A script with a token endpoint that rotates, and an API that takes only the newest access token."""

    generation: int = 1
    good: Callable[[int], bool] | None = None
    grant: Callable[[SalesLoft, dict[str, list[str]]], bytes] | None = None
    hold: asyncio.Event | None = None

    async def __call__(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = message.head
        if head.target == "/oauth/token":
            form = parse_qs(message.body.decode())
            if self.grant is not None:
                writer.write(self.grant(self, form))
                return
            if form["refresh_token"] != [f"refresh-{self.generation}"]:
                writer.write(reply("400 Bad Request", b'{"error":"invalid_grant"}'))
                return
            writer.write(self.granted())
            return
        if self.hold is not None and head.target == "/v2/held":
            await self.hold.wait()
        shown = int((head.get("Authorization") or "").rpartition("-")[2])
        fine = self.good(shown) if self.good is not None else shown == self.generation
        writer.write(
            reply(body=b'{"ok":1}') if fine else reply("401 Unauthorized", b'{"error":"Invalid Bearer token"}')
        )

    def granted(self) -> bytes:
        self.generation += 1
        document = {
            "access_token": f"access-{self.generation}",
            "refresh_token": f"refresh-{self.generation}",
            "token_type": "Bearer",
            "expires_in": 7200,
        }
        return reply("200 OK", json.dumps(document).encode(), "Content-Type: application/json")


@asynccontextmanager
async def with_login(
    script: SalesLoft,
    *,
    stored: int = 1,
    lifetime: float = 7200.0,
    store: MemoryStore | None = None,
    limits: LimitSettings | None = None,
) -> AsyncIterator[Line]:
    """Run a proxy that holds the login of generation ``stored``."""
    waits = Waits()
    async with ScriptedUpstream(script) as upstream:
        auth = AuthSettings(grant="authorization_code", client_id="cid", client_secret=Secret("cs-marker"))
        settings = settings_for(upstream.url, auth=auth)
        settings = replace(settings, limits=limits or settings.limits)
        token = Token(
            access_token=f"access-{stored}",
            refresh_token=f"refresh-{stored}",
            obtained_at=waits.start,
            expires_at=waits.start + lifetime,
        )
        store = store or MemoryStore()
        await store.write(
            Record(client_id="cid", accounts_url=upstream.url, api_url=upstream.url, token=token, generation=stored)
        )
        async with proxy(settings, store=store, clock=waits.clock(keeper=True)) as app:
            yield Line(upstream, app, waits)


def in_turn(*steps: bytes | Callable[[asyncio.StreamWriter], None]) -> Handler:
    """Return a script of replies, and of things done to the connection; the last one for ever."""
    left = list(steps)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        step = left.pop(0) if len(left) > 1 else left[0]
        if callable(step):
            step(writer)
        else:
            writer.write(step.replace(b"\r\n\r\n{}", b"\r\n\r\n") if message.head.method == "HEAD" else step)

    return script


def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def attempts(message: Message) -> str | None:
    return message.head.get("X-Slproxy-Attempts")


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


# 401.


@pytest.mark.parametrize("method", [method for method in ALL if method != "HEAD"])
@pytest.mark.parametrize("size", [0, 10, 200_000, 1_500_000])
async def test_a_401_is_cured_and_the_body_sent_again_whole(method: str, size: int) -> None:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    async with with_login(SalesLoft(generation=2), stored=1) as line:
        line.upstream.script.generation = 1  # type: ignore[union-attr]
        script = SalesLoft(generation=1, good=lambda shown: shown >= 2)
        line.upstream.script = script
        response = await line.ask(method=method, body=body)
        assert response.head.status == 200
        assert response.body == b'{"ok":1}'
        assert attempts(response) == "2"
    assert [message.body for message in line.api] == [body, body]
    assert [message.head.get("Authorization") for message in line.api] == ["Bearer access-1", "Bearer access-2"]
    assert len(line.token_requests) == 1


async def test_a_401_is_cured_for_a_chunked_post() -> None:
    pieces = (b"a" * 70_000, b"b", b"c" * 1_200_000)
    async with with_login(SalesLoft(good=lambda shown: shown >= 2)) as line:
        response = await line.ask("/v2/a", "Transfer-Encoding: chunked", method="POST", more=chunked(*pieces))
        assert response.head.status == 200
    assert [message.body for message in line.api] == [b"".join(pieces)] * 2
    assert [message.head.all("Transfer-Encoding") for message in line.api] == [["chunked"]] * 2


async def test_a_401_that_comes_while_the_client_still_sends_is_cured_with_the_whole_body() -> None:
    inner = SalesLoft(good=lambda shown: shown >= 2)
    bodies: list[bytes] = []

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/oauth/token":
            length = int(message.head.get("Content-Length") or 0)
            await inner(Message(message.head, await reader.readexactly(length)), reader, writer)
        elif message.head.get("Authorization") == "Bearer access-1":
            writer.write(reply("401 Unauthorized", b"{}", "Connection: close"))
            await writer.drain()
            writer.close()
        else:
            bodies.append(await reader.readexactly(int(message.head.get("Content-Length") or 0)))
            writer.write(reply())

    async with with_login(inner) as line:
        line.upstream.script = script
        line.upstream.whole = False
        body = bytes(range(256)) * 4000
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(line.app.urls[0]))
        writer.write(get("/v2/a", f"Content-Length: {len(body)}", method="POST") + body[:300_000])
        await until(lambda: len(line.token_requests) == 1, timeout=SOON)
        writer.write(body[300_000:])
        async with asyncio.timeout(SOON):
            response = await read_message(reader)
        writer.close()
        await writer.wait_closed()
    assert response.head.status == 200
    assert bodies == [body]


async def test_a_second_401_goes_to_the_client_and_the_renewal_is_not_repeated_within_30_seconds() -> None:
    async with with_login(SalesLoft(good=lambda shown: False)) as line:
        response = await line.ask()
        assert response.head.status == 401
        assert response.body == b'{"error":"Invalid Bearer token"}'
        assert response.head.get("Proxy-Status") is None
        assert attempts(response) == "2"
        assert len(line.token_requests) == 1
        line.waits.skip(28)
        response = await line.ask()
        assert response.head.status == 401
        assert attempts(response) is None
        assert len(line.token_requests) == 1
        line.waits.skip(3)
        assert (await line.ask()).head.status == 401
        assert len(line.token_requests) == 2


async def test_a_renewal_that_brings_the_same_token_back_is_not_repeated_within_30_seconds() -> None:
    same = b'{"access_token":"access-1","token_type":"Bearer","expires_in":7200}'
    script = SalesLoft(good=lambda shown: False, grant=lambda self, form: reply(body=same))
    async with with_login(script) as line:
        for skipped, renewals in ((0, 1), (1, 1), (28, 1), (2, 2), (28, 2), (3, 3)):
            line.waits.skip(skipped)
            response = await line.ask()
            assert (response.head.status, attempts(response)) == (401, None)
            assert len(line.token_requests) == renewals


async def test_a_renewal_whose_token_the_next_request_finds_rejected_is_not_repeated_within_30_seconds() -> None:
    async with with_login(SalesLoft(good=lambda shown: False), limits=SMALL) as line:
        for skipped, renewals in ((0, 1), (1, 1), (28, 1), (2, 2)):
            line.waits.skip(skipped)
            response = await line.ask(method="PUT", body=b"y" * 50_000)
            assert (response.head.status, attempts(response)) == (401, "1; not-replayable")
            assert len(line.token_requests) == renewals
        assert (await line.ask()).head.status == 401
    assert len(line.token_requests) == 2


async def test_a_renewal_whose_client_left_before_it_was_seen_to_cure_is_not_repeated_within_30_seconds() -> None:
    script = SalesLoft(good=lambda shown: False)
    hold = asyncio.Event()

    async def slowly(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.get("Authorization") == "Bearer access-2":
            await hold.wait()
        await script(message, reader, writer)

    async with with_login(script) as line:
        line.upstream.script = slowly
        leaving = asyncio.create_task(line.ask())
        await until(lambda: len(line.api) == 2, timeout=SOON)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await until(lambda: line.app.own_pages.state()["requests"]["in_flight"] == 0, timeout=SOON)  # type: ignore[index]
        hold.set()
        assert (await line.ask()).head.status == 401
    assert len(line.token_requests) == 1


async def test_a_new_token_that_is_rejected_before_it_was_seen_to_cure_is_renewed() -> None:
    """By chance, or ended by somebody else: the first request may yet be cured by it, and the second one by another."""
    script = SalesLoft(good=lambda shown: shown >= 2)
    hold = asyncio.Event()

    async def picky(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = message.head.get("Authorization")
        if (message.head.target, shown) == ("/v2/held", "Bearer access-2"):
            await hold.wait()
        if (message.head.target, shown) == ("/v2/other", "Bearer access-2"):
            writer.write(INVALID)
        else:
            await script(message, reader, writer)

    async with with_login(script) as line:
        line.upstream.script = picky
        first = asyncio.create_task(line.ask("/v2/held"))
        await until(lambda: len(line.api) == 2, timeout=SOON)
        other = await line.ask("/v2/other")
        assert (other.head.status, attempts(other)) == (200, "2")
        hold.set()
        assert (await first).head.status == 200
    assert len(line.token_requests) == 2


async def test_a_token_that_cured_and_is_rejected_later_is_renewed_at_once() -> None:
    script = SalesLoft()
    async with with_login(script) as line:
        for renewals in range(1, 5):
            script.good = lambda shown, renewals=renewals: shown > renewals
            response = await line.ask()
            assert (response.head.status, attempts(response)) == (200, "2")
            assert len(line.token_requests) == renewals


async def test_a_hundred_concurrent_401s_take_one_renewal() -> None:
    async with with_login(SalesLoft(good=lambda shown: shown >= 2)) as line:
        responses = await asyncio.gather(*(line.ask(f"/v2/{n}", method="POST", body=b"x" * n) for n in range(1, 101)))
    assert [response.head.status for response in responses] == [200] * 100
    assert len(line.token_requests) == 1
    cured = [each for each in line.api if each.head.get("Authorization") == "Bearer access-2"]
    assert sorted(len(each.body) for each in cured) == list(range(1, 101))


async def test_a_request_whose_token_is_superseded_uses_the_new_one_without_a_renewal() -> None:
    script = SalesLoft(hold=asyncio.Event())
    async with with_login(script) as line:
        script.good = lambda shown: shown >= 2
        held = asyncio.create_task(line.ask("/v2/held"))
        await until(lambda: len(line.api) == 1, timeout=SOON)
        assert (await line.ask()).head.status == 200
        assert script.hold is not None
        script.hold.set()
        assert (await held).head.status == 200
    assert len(line.token_requests) == 1


async def test_a_superseded_token_gives_way_to_the_new_one_even_after_a_renewal_that_did_not_cure() -> None:
    script = SalesLoft(hold=asyncio.Event(), good=lambda shown: False)
    async with with_login(script) as line:
        held = asyncio.create_task(line.ask("/v2/held"))
        await until(lambda: len(line.api) == 1, timeout=SOON)
        assert (await line.ask()).head.status == 401
        # SalesLoft takes access-2 after all; what was sent with access-1 is superseded, and just uses it.
        script.good = lambda shown: shown == 2
        assert script.hold is not None
        script.hold.set()
        assert (await held).head.status == 200
    assert len(line.token_requests) == 1


async def test_an_api_key_is_never_renewed() -> None:
    async with with_api_key(in_turn(reply("401 Unauthorized", b'{"error":"Invalid Bearer token"}'))) as line:
        for _ in range(3):
            response = await line.ask(method="POST", body=b"{}")
            assert response.head.status == 401
            assert response.body == b'{"error":"Invalid Bearer token"}'
    assert len(line.api) == 3
    assert line.token_requests == []


async def test_client_credentials_are_asked_for_again_after_a_401() -> None:
    script = SalesLoft(grant=lambda self, form: self.granted() if form["grant_type"] == ["client_credentials"] else b"")
    waits = Waits()
    async with ScriptedUpstream(script) as upstream:
        auth = AuthSettings(grant="client_credentials", client_id="cid", client_secret=Secret("cs-marker"))
        async with proxy(settings_for(upstream.url, auth=auth), clock=waits.clock(keeper=True)) as app:
            line = Line(upstream, app, waits)
            assert (await line.ask()).head.status == 200
            script.good = lambda shown: shown > 2
            assert (await line.ask(method="POST", body=b"abc")).head.status == 200
    assert len(line.token_requests) == 2
    assert [message.body for message in line.api] == [b"", b"abc", b"abc"]


async def test_while_the_first_token_is_asked_for_readyz_says_when_to_ask_again() -> None:
    granting = asyncio.Event()
    script = SalesLoft(grant=lambda self, form: self.granted())

    async def slowly(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await granting.wait()
        await script(message, reader, writer)

    async with ScriptedUpstream(slowly) as upstream:
        auth = AuthSettings(grant="client_credentials", client_id="cid", client_secret=Secret("cs-marker"))
        async with proxy(settings_for(upstream.url, auth=auth), clock=Waits().clock(keeper=True)) as app:
            await until(lambda: len(upstream.seen) == 1, timeout=SOON)
            ready = await raw(app.urls[0], get("/_slproxy/readyz"), timeout=SOON)
            granting.set()
            assert (ready.head.status, json.loads(ready.body)["type"]) == (503, "token-endpoint-down")
            assert ready.head.get("Retry-After") == "1"


class SlowDisk(MemoryStore):
    """A store whose writes take until ``done`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.writing = asyncio.Event()
        self.done = asyncio.Event()

    async def write(self, record: Record) -> None:
        if self.slow:
            self.writing.set()
            await self.done.wait()
        await super().write(record)


async def test_a_renewed_token_is_in_the_store_before_any_request_uses_it() -> None:
    store = SlowDisk()
    async with with_login(SalesLoft(good=lambda shown: shown >= 2), store=store) as line:
        store.slow = True
        first = asyncio.create_task(line.ask("/v2/first"))
        async with asyncio.timeout(SOON):
            await store.writing.wait()
        others = [asyncio.create_task(line.ask(f"/v2/{number}")) for number in range(3)]
        # Turns of the loop for the others to be sent, if they are; what must not happen cannot be waited for.
        await asyncio.sleep(0.2)
        used_early = [each.head.target for each in line.api if each.head.get("Authorization") == "Bearer access-2"]
        store.done.set()
        responses = await asyncio.gather(first, *others)
    assert used_early == []
    assert [response.head.status for response in responses] == [200] * 4
    assert len(line.token_requests) == 1


class FullDisk(MemoryStore):
    """A store that cannot be written to while ``full`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False

    async def write(self, record: Record) -> None:
        if self.full:
            raise StoreError("Cannot write: no space left on device.", hint="Make room.")
        await super().write(record)


async def test_a_dead_refresh_token_is_not_tried_again_even_where_that_cannot_be_written_down() -> None:
    store = FullDisk()
    script = SalesLoft(grant=lambda self, form: reply("400 Bad Request", b'{"error":"invalid_grant"}'))
    async with with_login(script, store=store) as line:
        store.full = True
        line.waits.skip(7300)
        for _ in range(5):
            response = await line.ask()
            assert (response.head.status, json.loads(response.body)["type"]) == (503, "login-required")
            line.waits.skip(60)
    assert len(line.token_requests) == 1


async def test_a_renewed_token_that_cannot_be_written_is_used_and_not_lost() -> None:
    store = FullDisk()
    async with with_login(SalesLoft(good=lambda shown: shown >= 2), store=store) as line:
        store.full = True
        for _ in range(3):
            assert (await line.ask()).head.status == 200
        assert len(line.token_requests) == 1
        state = line.app.own_pages.state()["token"]
        assert isinstance(state, dict)
        assert state["saved"] is False
        # The next renewal goes on from the token in memory, not from the dead one on disk.
        line.waits.skip(7300)
        assert (await line.ask()).head.status == 200
    assert len(line.token_requests) == 2


async def test_a_token_near_its_expiry_is_renewed_in_the_background_and_no_request_waits_for_that() -> None:
    granting = asyncio.Event()
    script = SalesLoft(good=lambda shown: True)

    async def slowly(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/oauth/token":
            await granting.wait()
        await script(message, reader, writer)

    waits = Waits()
    async with ScriptedUpstream(slowly) as upstream:
        auth = AuthSettings(grant="authorization_code", client_id="cid", client_secret=Secret("cs-marker"))
        # 60 s are left of two hours: less than the leeway of 120.
        token = Token(
            access_token="access-1",
            refresh_token="refresh-1",
            obtained_at=waits.start - 7140,
            expires_at=waits.start + 60,
        )
        store = MemoryStore(Record(client_id="cid", accounts_url=upstream.url, api_url=upstream.url, token=token))
        settings = settings_for(upstream.url, auth=auth)
        async with proxy(settings, store=store, clock=waits.clock(keeper=True)) as app:
            line = Line(upstream, app, waits)
            await until(lambda: len(line.token_requests) == 1, timeout=SOON)
            for _ in range(3):
                assert (await line.ask()).head.status == 200
            granting.set()
            await until(lambda: app.own_pages.state()["token"]["renewals"] == 1, timeout=SOON)  # type: ignore[index]
            assert (await line.ask()).head.status == 200
    assert [each.head.get("Authorization") for each in line.api] == ["Bearer access-1"] * 3 + ["Bearer access-2"]
    assert len(line.token_requests) == 1


async def test_a_leeway_that_was_set_holds_for_a_short_life_as_well() -> None:
    waits = Waits()
    async with ScriptedUpstream(SalesLoft()) as upstream:
        auth = AuthSettings(grant="authorization_code", client_id="cid", client_secret=Secret("cs-marker"), leeway=40.0)
        settings = replace(settings_for(upstream.url, auth=auth), origins={"auth.leeway": Origin(layer="env")})
        # 30 s are left of a hundred.
        token = Token(
            access_token="access-1",
            refresh_token="refresh-1",
            obtained_at=waits.start - 70,
            expires_at=waits.start + 30,
        )
        store = MemoryStore(Record(client_id="cid", accounts_url=upstream.url, api_url=upstream.url, token=token))
        async with proxy(settings, store=store, clock=waits.clock(keeper=True)) as app:
            await until(lambda: app.own_pages.state()["token"]["renewals"] == 1, timeout=SOON)  # type: ignore[index]


async def test_a_client_that_leaves_does_not_lose_the_rotated_token() -> None:
    granting = asyncio.Event()
    script = SalesLoft(good=lambda shown: shown >= 2)
    store = MemoryStore()

    async def slowly(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/oauth/token":
            await granting.wait()
        await script(message, reader, writer)

    async with with_login(script, store=store) as line:
        line.upstream.script = slowly
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(line.app.urls[0]))
        writer.write(get("/v2/a"))
        await until(lambda: len(line.token_requests) == 1, timeout=SOON)
        reset(writer)
        await asyncio.sleep(0.05)
        granting.set()
        await until(lambda: line.app.own_pages.state()["token"]["renewals"] == 1, timeout=SOON)  # type: ignore[index]
        record = await store.read()
        assert record is not None
        assert record.token.refresh_token == "refresh-2"
        assert (await line.ask()).head.status == 200
    assert len(line.token_requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply("400 Bad Request", b'{"error":"invalid_grant"}'), "login-required"),
        (reply("401 Unauthorized", b'{"error":"invalid_client"}'), "credentials-refused"),
        (reply("400 Bad Request", b'{"error":"unauthorized_client"}'), "credentials-refused"),
        (reply("400 Bad Request", b'{"error":"invalid_scope"}'), "credentials-refused"),
        (reply("200 OK", b"<html>marker</html>", "Content-Type: text/html"), "token-endpoint-down"),
        (reply("200 OK", b"[]"), "token-endpoint-down"),
        (reply("200 OK", b'{"access_token":""}'), "token-endpoint-down"),
        (reply("200 OK", b'{"access_token":"a b"}'), "token-endpoint-down"),
        (reply("200 OK", b'{"access_token":"a\\r\\nX: y"}'), "token-endpoint-down"),
        (reply("200 OK", b'{"access_token":"good","token_type":"mac"}'), "token-endpoint-down"),
        (reply("302 Found", b"", "Location: http://127.0.0.1:1/elsewhere"), "token-endpoint-down"),
        (reply("500 Internal Server Error", b"<html>"), "token-endpoint-down"),
        (reply("429 Too Many Requests", b"", "Retry-After: 9999"), "token-endpoint-down"),
    ],
)
async def test_a_renewal_that_fails_gives_the_error_that_the_contract_names(answer: bytes, kind: str) -> None:
    script = SalesLoft(grant=lambda self, form: answer)
    async with with_login(script, lifetime=7200) as line:
        line.waits.skip(7300)
        response = await line.ask()
        document = json.loads(response.body)
        assert (response.head.status, document["type"]) == (503, kind)
        assert document["hint"]
        assert (response.head.get("Proxy-Status") or "").startswith("slproxy; error=")
        if kind == "token-endpoint-down":
            assert int(response.head.get("Retry-After") or "") > 0
        ready = await line.ask("/_slproxy/readyz")
        assert (ready.head.status, json.loads(ready.body)["type"]) == (503, kind)
        assert b"marker" not in response.body + ready.body
        stored = await line.app.store.read()
        assert stored is not None
        assert stored.token.refresh_token == "refresh-1"
    assert line.api == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply("401 Unauthorized", b'{"error":"invalid_client"}'), "credentials-refused"),
        (reply("400 Bad Request", b'{"error":"invalid_scope"}'), "credentials-refused"),
        (reply("200 OK", b"<html>", "Content-Type: text/html"), "token-endpoint-down"),
    ],
)
async def test_while_the_api_rejects_the_token_and_none_other_can_be_had_readyz_says_so(
    answer: bytes, kind: str
) -> None:
    script = SalesLoft(good=lambda shown: False, grant=lambda self, form: answer)
    async with with_login(script) as line:
        for _ in range(2):
            response = await line.ask()
            assert (response.head.status, json.loads(response.body)["type"]) == (503, kind)
            ready = await line.ask("/_slproxy/readyz")
            assert (ready.head.status, json.loads(ready.body)["type"]) == (503, kind)
            assert (ready.head.get("Retry-After") is not None) is (kind == "token-endpoint-down")
            state = json.loads((await line.ask("/_slproxy/status.json")).body)
            assert (state["ready"], state["reason"]["type"], state["token"]["valid"]) == (False, kind, False)
        assert len(line.token_requests) == 1
        # The API takes it after all, as a request finds out.
        script.good = lambda shown: True
        assert (await line.ask()).head.status == 200
        assert (await line.ask("/_slproxy/readyz")).head.status == 200


@pytest.mark.parametrize("expires_in", ["missing", "7200", -5, None, "soon", 1e400, True, [7200]])
async def test_a_strange_lifetime_is_no_reason_to_refuse_a_token(expires_in: object) -> None:
    def grant(self: SalesLoft, form: dict[str, list[str]]) -> bytes:
        self.generation += 1
        document: dict[str, object] = {"access_token": f"access-{self.generation}", "token_type": "BEARER"}
        if expires_in != "missing":
            document["expires_in"] = expires_in
        return reply("200 OK", json.dumps(document).encode())

    async with with_login(SalesLoft(grant=grant)) as line:
        line.waits.skip(7300)
        for _ in range(3):
            assert (await line.ask()).head.status == 200
        stored = await line.app.store.read()
        assert stored is not None
        # A reply without a refresh token keeps the old one.
        assert (stored.token.access_token, stored.token.refresh_token) == ("access-2", "refresh-1")
    assert len(line.token_requests) == 1


async def test_the_reply_to_a_renewal_that_is_lost_is_asked_for_once_more_and_then_a_login_is_required() -> None:
    times = 0

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal times
        times += 1
        if times == 1:
            reset(writer)
        else:
            writer.write(reply("400 Bad Request", b'{"error":"invalid_grant"}'))

    async with with_login(SalesLoft()) as line:
        line.upstream.script = script
        line.waits.skip(7300)
        response = await line.ask()
        assert json.loads(response.body)["type"] == "login-required"
        for _ in range(3):
            assert json.loads((await line.ask()).body)["type"] == "login-required"
    assert len(line.token_requests) == 2


async def test_a_token_that_is_still_valid_stays_in_use_when_its_renewal_fails() -> None:
    script = SalesLoft(grant=lambda self, form: reply("503 Service Unavailable", b""))
    async with with_login(script) as line:
        line.waits.skip(7200 - 30)
        for _ in range(5):
            assert (await line.ask()).head.status == 200
        assert (await line.ask("/_slproxy/readyz")).head.status == 200


async def test_the_token_is_taken_at_each_send_so_that_one_which_died_in_a_wait_is_not_sent_again() -> None:
    script = SalesLoft(good=lambda shown: shown >= 2)
    async with with_login(script, lifetime=100) as line:
        times = 0

        async def limiting(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal times
            if message.head.target == "/v2/a" and (times := times + 1) == 1:
                line.waits.skip(101)
                writer.write(reply("429 Too Many Requests", b"", "Retry-After: 0"))
                return
            await script(message, reader, writer)

        line.upstream.script = limiting
        assert (await line.ask(method="POST", body=b"x")).head.status == 200
    assert [each.head.get("Authorization") for each in line.api] == ["Bearer access-1", "Bearer access-2"]


# 429.


LIMITED = "429 Too Many Requests"
TOO_MANY = b'{"error":"API rate limit exceeded"}'


@pytest.mark.parametrize("method", [method for method in ALL if method != "HEAD"])
async def test_a_429_is_waited_out_for_any_method(method: str) -> None:
    body = b"" if method in ("GET", "OPTIONS", "DELETE") else b'{"a":1}'
    async with with_api_key(in_turn(reply(LIMITED, TOO_MANY, "Retry-After: 7"), reply())) as line:
        response = await line.ask(method=method, body=body)
        assert response.head.status == 200
        assert attempts(response) == "2"
        assert "wait;dur=7" in (response.head.get("Server-Timing") or "")
    assert len(line.waits.slept) == 1
    assert 7 <= line.waits.slept[0] < 9
    assert [message.body for message in line.api] == [body, body]


NOON = 1_795_000_000 - 1_795_000_000 % 60 + 20


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        (["Retry-After: 30"], 30, 32),
        (["Retry-After: 0"], 0, 0.5),
        ([f"Retry-After: {formatdate(NOON + 25, usegmt=True)}", f"Date: {formatdate(NOON, usegmt=True)}"], 25, 27),
        ([f"Retry-After: {formatdate(NOON - 25, usegmt=True)}", f"Date: {formatdate(NOON, usegmt=True)}"], 0, 0.5),
        ([f"Date: {formatdate(NOON, usegmt=True)}"], 40, 45),
        ([f"Date: {formatdate(NOON + 39, usegmt=True)}"], 1, 6),
        ([f"Date: {formatdate(NOON - 20, usegmt=True)}"], 60, 65),
        ([f"Date: {formatdate(NOON, usegmt=True)}", "Retry-After: soon"], 40, 45),
        ([f"Date: {formatdate(NOON, usegmt=True)}", "Retry-After: -5"], 0, 45),
        ([f"Date: {formatdate(NOON, usegmt=True)}", "Retry-After: 1.5"], 0, 45),
        ([f"Date: {formatdate(NOON, usegmt=True)}", "Retry-After:"], 40, 45),
        ([f"Date: {formatdate(NOON, usegmt=True)}", "Retry-After: 99999999999999999999999"], 0, 45),
        (["Date: nonsense"], 0, 61),
    ],
)
@pytest.mark.parametrize("die", [0.0, 0.99])
async def test_a_429_is_waited_out_for_as_long_as_the_upstream_says(
    headers: list[str], least: float, most: float, die: float
) -> None:
    async with with_api_key(in_turn(reply(LIMITED, TOO_MANY, *headers), reply()), waits=Waits(die=die)) as line:
        response = await line.ask()
        told_at_once = response.head.status == 429
    if told_at_once:
        # Only what may not be waited for goes to the client: more than the cap.
        assert "999" in headers[-1] or (least == 60 and not line.waits.slept)
        return
    assert response.head.status == 200
    assert len(line.waits.slept) == 1
    assert least <= line.waits.slept[0] <= most


async def test_a_429_at_the_first_second_of_a_minute_is_waited_out() -> None:
    date = formatdate(NOON - 20, usegmt=True)
    async with with_api_key(in_turn(reply(LIMITED, TOO_MANY, f"Date: {date}"), reply()), waits=Waits(die=0.99)) as line:
        assert (await line.ask()).head.status == 200


async def test_waits_for_the_next_minute_are_spread() -> None:
    slept = []
    for die in (0.0, 0.5, 0.99):
        date = formatdate(NOON, usegmt=True)
        waits = Waits(die=die)
        async with with_api_key(in_turn(reply(LIMITED, TOO_MANY, f"Date: {date}"), reply()), waits=waits) as line:
            assert (await line.ask()).head.status == 200
        slept += waits.slept
    assert len(set(slept)) == 3


async def test_a_retry_after_over_the_longest_wait_is_told_to_the_client_at_once() -> None:
    async with with_api_key(in_turn(reply(LIMITED, TOO_MANY, "Retry-After: 9999"))) as line:
        response = await line.ask()
    assert response.head.status == 429
    assert response.head.get("Retry-After") == "9999"
    assert response.body == TOO_MANY
    assert response.head.get("Proxy-Status") is None
    assert line.waits.slept == []
    assert len(line.api) == 1


@pytest.mark.parametrize("pace", ["pace", "observe", "off"])
async def test_429s_without_end_give_the_upstreams_own_last_one_in_the_end(
    pace: Literal["pace", "observe", "off"],
) -> None:
    script = in_turn(*[reply(LIMITED, b"%d" % number, "Retry-After: 1", f"X-N: {number}") for number in range(1, 9)])
    async with with_api_key(script, pace=pace) as line:
        response = await line.ask(method="POST", body=b"x")
    assert response.head.status == 429
    assert (response.body, response.head.get("X-N"), attempts(response)) == (b"4", "4", "4")
    assert len(line.api) == 4


async def test_the_deadline_bounds_all_waits_together() -> None:
    script = in_turn(reply(LIMITED, TOO_MANY, "Retry-After: 50"))
    async with with_api_key(script, retry=RetrySettings(attempts=10, deadline=120)) as line:
        assert (await line.ask()).head.status == 429
    assert sum(line.waits.slept) <= 120
    assert len(line.api) == 3


# 502, 503, 504.


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
@pytest.mark.parametrize("method", REPEATABLE)
async def test_a_passing_fault_is_cured_for_a_repeatable_method(method: str, status: str) -> None:
    body = b'{"a":1}' if method == "PUT" else b""
    async with with_api_key(in_turn(reply(status), reply(status), reply("200 Fine"))) as line:
        response = await line.ask(method=method, body=body)
        assert response.head.first == "HTTP/1.1 200 Fine"
        assert attempts(response) == "3"
    assert [message.body for message in line.api] == [body] * 3


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
@pytest.mark.parametrize("method", ONCE_ONLY)
async def test_a_passing_fault_of_a_post_or_patch_goes_to_the_client(method: str, status: str) -> None:
    async with with_api_key(in_turn(reply(status, b"theirs", "Retry-After: 1"), reply())) as line:
        response = await line.ask(method=method, body=b"{}")
    assert response.head.first == f"HTTP/1.1 {status}"
    assert response.body == b"theirs"
    assert attempts(response) is None
    assert len(line.api) == 1


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "501 N", "505 V", "400 B", "404 N", "408 T", "409 C", "425 E"]
)
async def test_other_errors_go_to_the_client_at_once(status: str) -> None:
    async with with_api_key(in_turn(reply(status, b"theirs"))) as line:
        response = await line.ask()
    assert response.head.first == f"HTTP/1.1 {status}"
    assert response.body == b"theirs"
    assert len(line.api) == 1


async def test_the_send_that_cures_a_401_is_one_of_the_attempts() -> None:
    async with with_login(SalesLoft()) as line:
        tokens = SalesLoft(good=lambda shown: shown >= 2)

        async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if message.head.get("Authorization") == "Bearer access-2":
                writer.write(reply("503 S", b"theirs"))
            else:
                await tokens(message, reader, writer)

        line.upstream.script = script
        response = await line.ask()
    assert (response.head.status, response.body, attempts(response)) == (503, b"theirs", "4")
    assert len(line.api) == 4


async def test_a_repeat_waits_for_its_reply_no_longer_than_the_deadline_leaves() -> None:
    def silent(writer: asyncio.StreamWriter) -> None:
        """Leave it without a reply."""

    script = in_turn(reset, silent)
    async with with_api_key(script, retry=RetrySettings(deadline=1.0), response_timeout=3 * SOON) as line:
        since = time.monotonic()
        response = await line.ask()
        took = time.monotonic() - since
        assert (response.head.status, json.loads(response.body)["type"]) == (504, "upstream-timeout")
        assert attempts(response) == "2"
    assert 0.5 < took < SOON


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
async def test_what_was_refused_is_waited_for_as_long_as_ever_once_it_is_sent_again(method: str) -> None:
    """Cut off by the deadline, what is carried out would look as if it were not."""
    sent = 0

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent += 1
        if sent == 1:
            writer.write(reply(LIMITED, TOO_MANY, "Retry-After: 7"))
            return
        await asyncio.sleep(0.5)
        writer.write(reply("201 Created", b"made"))

    async with with_api_key(script, retry=RetrySettings(deadline=7.2)) as line:
        response = await line.ask(method=method, body=b"" if method == "GET" else b"x")
        assert (response.head.status, response.body) == (201, b"made")


async def test_backoff_grows_and_half_of_it_is_waited_at_least() -> None:
    async with with_api_key(in_turn(reply("503 S")), waits=Waits(die=1.0)) as line:
        await line.ask()
    first, second, third = line.waits.slept
    assert (second, third) == (2 * first, 4 * first)
    async with with_api_key(in_turn(reply("503 S")), waits=Waits(die=0.0)) as line:
        await line.ask()
    assert line.waits.slept == [first / 2, first, 2 * first]


async def test_out_of_attempts_the_upstreams_own_last_reply_comes_down_with_its_headers() -> None:
    script = in_turn(
        reply("502 First", b"1"),
        reply("503 Second", b"2"),
        reply("504 Third", b"3"),
        reply("503 Its Own Words", b"<html>4</html>", "Content-Type: text/html", "X-Request-Id: r4", "Set-Cookie: a=b"),
    )
    async with with_api_key(script) as line:
        response = await line.ask()
    assert response.head.first == "HTTP/1.1 503 Its Own Words"
    assert response.body == b"<html>4</html>"
    assert response.head.get("Content-Type") == "text/html"
    assert response.head.get("X-Request-Id") == "r4"
    assert response.head.get("Set-Cookie") is None
    assert response.head.get("Proxy-Status") is None
    assert attempts(response) == "4"


@pytest.mark.parametrize("end", [closed, reset])
async def test_a_last_attempt_without_a_reply_gives_the_earlier_reply(
    end: End,
) -> None:
    script = in_turn(reply("503 Earlier", b"earlier", "X-Earlier: yes"), end)
    async with with_api_key(script) as line:
        response = await line.ask()
    assert response.head.first == "HTTP/1.1 503 Earlier"
    assert response.body == b"earlier"
    assert response.head.get("X-Earlier") == "yes"
    assert attempts(response) == "4"
    assert len(line.api) == 4


async def test_an_earlier_reply_that_was_chunked_and_compressed_comes_down_whole() -> None:
    head = b"HTTP/1.1 503 Earlier\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    async with with_api_key(in_turn(head + chunked(b"\x1f\x8b", b"rest"), reset)) as line:
        response = await line.ask()
    assert response.body == b"\x1f\x8brest"
    assert response.head.get("Content-Encoding") == "gzip"


async def test_an_earlier_reply_to_head_comes_down_with_its_length() -> None:
    answer = b"HTTP/1.1 503 Earlier\r\nContent-Length: 77\r\n\r\n"
    async with with_api_key(in_turn(answer, reset)) as line:
        response = await line.ask(method="HEAD")
    assert response.head.first == "HTTP/1.1 503 Earlier"
    assert response.head.get("Content-Length") == "77"


async def test_one_attempt_is_one_attempt() -> None:
    async with with_api_key(in_turn(reply("503 S", b"once"), reply()), retry=RetrySettings(attempts=1)) as line:
        response = await line.ask()
    assert response.body == b"once"
    assert len(line.api) == 1


# Connections that break.


@pytest.mark.parametrize("end", [closed, reset])
@pytest.mark.parametrize("method", REPEATABLE)
async def test_a_connection_closed_before_any_reply_is_cured_for_a_repeatable_method(method: str, end: End) -> None:
    async with with_api_key(in_turn(end, reply("200 Fine"))) as line:
        response = await line.ask(method=method)
        assert response.head.first == "HTTP/1.1 200 Fine"
        assert attempts(response) == "2"
    assert len(line.api) == 2


@pytest.mark.parametrize("end", [closed, reset])
@pytest.mark.parametrize("method", ONCE_ONLY)
@pytest.mark.parametrize("size", [0, 5, 500_000])
async def test_a_post_or_patch_whose_reply_is_lost_is_sent_once_and_502(method: str, end: End, size: int) -> None:
    async with with_api_key(in_turn(end, reply())) as line:
        response = await line.ask(method=method, body=b"x" * size)
        assert response.head.status == 502
        assert json.loads(response.body)["type"] == "upstream-unreachable"
    assert len(line.api) == 1


async def test_a_get_that_is_never_answered_is_sent_again_and_504_in_the_end() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(SOON)

    async with with_api_key(script, response_timeout=0.1) as line:
        response = await line.ask()
    assert response.head.status == 504
    assert json.loads(response.body)["type"] == "upstream-timeout"
    assert len(line.api) == 4


async def test_a_get_that_is_answered_the_second_time_is_cured() -> None:
    times = 0

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal times
        times += 1
        if times == 1:
            await asyncio.sleep(SOON)
        writer.write(reply())

    async with with_api_key(script, response_timeout=0.2) as line:
        assert (await line.ask()).head.status == 200
    assert len(line.api) == 2


@pytest.mark.parametrize("method", [method for method in ALL if method != "HEAD"])
@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.parametrize("limits", [LimitSettings(), SMALL], ids=["default limits", "small limits"])
async def test_a_refused_connection_is_tried_again_for_any_method(
    method: str, size: int, limits: LimitSettings
) -> None:
    async with ScriptedUpstream() as upstream:
        url = upstream.url
    server: list[asyncio.Server] = []
    seen: list[Message] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_message(reader))
        writer.write(reply())
        await writer.drain()
        writer.close()

    class UntilItIsUp(Waits):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(self.slept) == 2:
                server.append(await asyncio.start_server(serve, "127.0.0.1", port_of(url)))

    waits = UntilItIsUp()
    async with proxy(replace(settings_for(url), limits=limits), clock=waits.clock()) as app:
        response = await raw(app.urls[0], get("/v2/a", method=method, body=b"x" * size), timeout=SOON)
        assert response.head.status == 200
        assert attempts(response) == ("3; not-replayable" if size > limits.replay_disk else "3")
    server[0].close()
    assert [len(message.body) for message in seen] == [size]


@pytest.mark.parametrize(("attempts", "count"), [(4, 150), (2, 20), (1, 1)])
async def test_who_cannot_be_reached_is_tried_for_so_long_that_1500_ms_away_is_no_failure(
    attempts: int, count: int
) -> None:
    """With the worst of dice, and however many ask: a connection that was refused cost nothing."""
    clock, upstream = ManualClock(30.0), ScriptedUpstream()
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))  # and does not listen
        settings = settings_for(f"http://127.0.0.1:{away.getsockname()[1]}")
        settings = replace(settings, retry=replace(settings.retry, attempts=attempts))
        async with proxy(settings, clock=clock.proxys()) as app:
            others = clock.sleeping
            asked = [
                asyncio.create_task(raw(app.urls[0], get(f"/v2/{number}", method="POST", body=b"{}")))
                for number in range(count)
            ]
            if attempts > 1:
                while clock.elapsed < 1.5:
                    await until(lambda: clock.sleeping - others == count)
                    clock.advance(0.25)
                    await asyncio.sleep(0)  # until those who are woken are no longer asleep
                await upstream.listen(sock=away)
                await until(lambda: clock.sleeping - others == count)
                clock.advance(0.25)
            answers = await asyncio.gather(*asked)
        await upstream.close()
    assert {answer.head.status for answer in answers} == {200 if attempts > 1 else 502}
    # A connection that was refused came to no request.
    assert len(upstream.seen) == (count if attempts > 1 else 0)


@pytest.mark.parametrize("method", [method for method in ALL if method != "HEAD"])
@pytest.mark.parametrize("end", [closed, reset])
async def test_a_pooled_connection_that_the_upstream_closed_while_idle_harms_no_request(method: str, end: End) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(reply())

    async with with_api_key(script) as line:
        for number in range(1, 4):
            response = await line.ask(method=method, body=b"x")
            assert response.head.status == 200
            end(writers[-1])
            await until(lambda number=number: line.upstream.closed == number, timeout=SOON)  # type: ignore[misc]
    assert len(line.api) == 3


async def test_a_pooled_connection_that_dies_as_the_request_arrives_is_cured_for_get_and_502_for_post() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The second request on any connection finds it closing: no byte of a reply.
        if message.head.target == "/v2/first" or writer not in used:
            used.add(writer)
            writer.write(reply())
        else:
            reset(writer)

    used: set[asyncio.StreamWriter] = set()
    async with with_api_key(script) as line:
        await line.ask("/v2/first")
        assert (await line.ask("/v2/get")).head.status == 200
        await line.ask("/v2/first")
        assert (await line.ask("/v2/post", method="POST", body=b"{}")).head.status == 502
    assert line.sent.count("POST /v2/post") == 1
    assert line.sent.count("GET /v2/get") == 2


# X-Slproxy-Retry, large bodies, the budget.


async def test_retry_off_gives_the_first_reply_whatever_it_is() -> None:
    for answer in (reply(LIMITED, b"one", "Retry-After: 1"), reply("503 S", b"one")):
        async with with_api_key(in_turn(answer, reply())) as line:
            response = await line.ask("/v2/a", "X-Slproxy-Retry: off")
            assert response.body == b"one"
            assert attempts(response) is None
        assert len(line.api) == 1
        assert line.api[0].head.get("X-Slproxy-Retry") is None
    async with with_api_key(in_turn(reset, reply())) as line:
        assert (await line.ask("/v2/a", "X-Slproxy-Retry: off")).head.status == 502
    assert len(line.api) == 1


async def test_retry_off_leaves_the_cure_of_a_401() -> None:
    async with with_login(SalesLoft(good=lambda shown: shown >= 2)) as line:
        response = await line.ask("/v2/a", "X-Slproxy-Retry: off", method="POST", body=b"x")
        assert response.head.status == 200
        assert attempts(response) == "2"


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(
    "answer", [reply("503 S", b"once"), reply(LIMITED, b"once", "Retry-After: 1"), reply(body=b"once")]
)
@pytest.mark.parametrize("memory", [1000, 100_000], ids=["in a file", "in memory"])
async def test_a_body_over_replay_disk_is_streamed_once_and_the_reply_says_so(
    memory: int, answer: bytes, framing: str
) -> None:
    body = b"y" * 50_000
    async with with_api_key(in_turn(answer, reply()), limits=replace(SMALL, replay_memory=memory)) as line:
        if framing == "length":
            response = await line.ask(method="PUT", body=body)
        else:
            more = chunked(*[b"y" * 5000] * 10)
            response = await line.ask("/v2/a", "Transfer-Encoding: chunked", method="PUT", more=more)
        assert response.body == b"once"
        assert attempts(response) == "1; not-replayable"
    assert [message.body for message in line.api] == [body]


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_the_proxys_own_error_for_a_body_over_replay_disk_says_so_too(framing: str) -> None:
    async with with_api_key(in_turn(reset), limits=SMALL) as line:
        if framing == "length":
            response = await line.ask(method="PUT", body=b"y" * 50_000)
        else:
            more = chunked(*[b"y" * 5000] * 10)
            response = await line.ask("/v2/a", "Transfer-Encoding: chunked", method="PUT", more=more)
        assert (response.head.status, json.loads(response.body)["type"]) == (502, "upstream-unreachable")
        assert response.head.all("X-Slproxy-Attempts") == ["1; not-replayable"]
    assert len(line.api) == 1


async def test_an_error_before_anything_of_a_body_over_replay_disk_was_sent_says_nothing_of_attempts() -> None:
    script = SalesLoft(grant=lambda self, form: reply("401 Unauthorized", b'{"error":"invalid_client"}'))
    async with with_login(script, limits=SMALL) as line:
        line.waits.skip(7300)
        response = await line.ask(method="PUT", body=b"y" * 50_000)
        assert response.head.status == 503
        assert attempts(response) is None


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_body_within_replay_disk_is_sent_again_from_disk(framing: str) -> None:
    body = bytes(range(256)) * 39
    async with with_api_key(in_turn(reply("503 S"), reply("503 S"), reply()), limits=SMALL) as line:
        if framing == "length":
            response = await line.ask(method="PUT", body=body)
        else:
            more = chunked(*[body[at : at + 700] for at in range(0, len(body), 700)])
            response = await line.ask("/v2/a", "Transfer-Encoding: chunked", method="PUT", more=more)
        assert response.head.status == 200
        assert attempts(response) == "3"
    assert [message.body for message in line.api] == [body] * 3


async def test_a_401_for_a_body_over_replay_disk_goes_to_the_client_and_the_next_request_has_a_new_token() -> None:
    async with with_login(SalesLoft(good=lambda shown: shown >= 2), limits=SMALL) as line:
        response = await line.ask(method="POST", body=b"y" * 50_000)
        assert response.head.status == 401
        assert attempts(response) == "1; not-replayable"
        assert (await line.ask()).head.status == 200
    assert len(line.api) == 2


async def test_an_outage_is_met_with_a_fifth_more_requests_and_not_with_a_multiple() -> None:
    async with with_api_key(in_turn(reply("503 S", b"down"))) as line:
        for _ in range(10):
            responses = await asyncio.gather(*(line.ask() for _ in range(30)))
            assert [response.head.status for response in responses] == [503] * 30
            assert {response.body for response in responses} == {b"down"}
            line.waits.skip(1)
    # A fifth of 300, over a floor of 10.
    assert 300 < len(line.api) <= 300 + 60 + 10


async def test_a_few_failures_are_within_the_budgets_floor() -> None:
    async with with_api_key(in_turn(*[reply("503 S"), reply()] * 8)) as line:
        for _ in range(8):
            assert (await line.ask()).head.status == 200
    assert len(line.api) == 16


async def test_a_retry_budget_that_is_spent_does_not_stop_the_cure_of_a_refusal() -> None:
    async with with_api_key(in_turn(reply("503 S"))) as line:
        for _ in range(20):
            await line.ask()
        line.upstream.script = in_turn(reply(LIMITED, TOO_MANY, "Retry-After: 1"), reply())
        assert (await line.ask(method="POST", body=b"x")).head.status == 200


async def test_a_client_that_leaves_a_wait_is_not_sent_for_again() -> None:
    waiting = asyncio.Event()
    never = asyncio.Event()

    class Held(Waits):
        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            waiting.set()
            await never.wait()

    async with with_api_key(in_turn(reply("503 S"), reply()), waits=Held()) as line:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(line.app.urls[0]))
        writer.write(get("/v2/a"))
        async with asyncio.timeout(SOON):
            await waiting.wait()
        reset(writer)
        await until(lambda: line.app.own_pages.state()["requests"]["in_flight"] == 0, timeout=SOON)  # type: ignore[index]
        never.set()
        await asyncio.sleep(0.05)
    assert len(line.api) == 1


async def test_the_key_is_told_nowhere_in_what_fails() -> None:
    steps: list[Awaitable[Message]] = []
    async with with_api_key(in_turn(reset)) as line:
        steps = [line.ask(method="POST", body=b"x"), line.ask("/_slproxy/status.json"), line.ask("/_slproxy/readyz")]
        for response in await asyncio.gather(*steps):
            assert API_KEY.encode() not in response.head.raw + response.body
