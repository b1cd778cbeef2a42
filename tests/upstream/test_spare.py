"""The spare: one connection to the API that stands ready, and what it may cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from slproxy.clock import Clock
from slproxy.config import Settings
from slproxy.config.egress import parsed_egress
from slproxy.errors import UpstreamFault
from slproxy.upstream.dial import Dialer, Origin
from slproxy.upstream.pool import POOL_KEEPALIVE, RENEW_AFTER, Pool
from slproxy.upstream.spare import POLL_INTERVAL, Warmth
from tests.support.listener import Listener, to_port
from tests.support.loops import LOOPS, in_loop
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, read_message, reply
from tests.support.waiting import until

WARM = 900.0


def connections_in(seconds: float, *, stands: float | None, used_every: float, jitter: float) -> int:
    """Return how often is connected to an upstream that closes what was idle for so long; ``None``: that refuses."""
    warmth = Warmth(WARM, now=0.0)
    count, now, used, closes_at = 0, 0.0, 0.0, None
    while now < seconds:
        if now >= used + used_every:
            used = now
            warmth.used_at = now
            closes_at = now + stands if stands and closes_at else closes_at
        if closes_at is not None and now >= closes_at:
            assert stands is not None
            warmth.lost(now, idle=stands, jitter=jitter)
            closes_at = None
        wait = warmth.wait(now, is_warm=closes_at is not None)
        if not wait:
            count += 1
            if stands is None:
                warmth.failed(now, jitter=jitter)
            else:
                warmth.made(now)
                closes_at = now + stands
        now += min(wait or POLL_INTERVAL, 0.25)
    return count


@pytest.mark.parametrize("jitter", [0.0, 0.999])
@pytest.mark.parametrize(
    ("stands", "most"),
    [
        pytest.param(None, 36, id="it refuses every one"),
        pytest.param(0.25, 36, id="it closes them at once"),
        pytest.param(1.0, 36, id="after a second"),
        pytest.param(5.0, 32, id="after five"),
        pytest.param(60.0, 16, id="after a minute, as load balancers do"),
    ],
)
def test_an_upstream_that_takes_or_keeps_no_connection_is_not_stormed(
    stands: float | None, most: int, jitter: float
) -> None:
    unused = connections_in(WARM, stands=stands, used_every=math.inf, jitter=jitter)
    assert 12 <= unused <= most
    assert connections_in(10 * WARM, stands=stands, used_every=math.inf, jitter=jitter) == unused
    assert connections_in(WARM, stands=stands, used_every=9.0, jitter=jitter) <= 4 * WARM / 9.0


def test_what_will_not_pass_by_itself_is_tried_once_until_there_is_a_connection() -> None:
    """A password that an egress proxy refuses, say: who tries it again and again locks an account."""
    warmth = Warmth(WARM, now=0.0)
    assert warmth.wait(0.0, is_warm=False) == 0.0
    warmth.failed(0.0, jitter=0.5, is_lasting=True)
    warmth.used_at = 600.0
    assert [warmth.wait(now, is_warm=False) for now in (1.0, 60.0, 899.0, 1499.0)] == [POLL_INTERVAL] * 4
    warmth.reached(600.0)
    assert warmth.wait(700.0, is_warm=False) == 0.0


# On real sockets.

NO_JITTER = Clock(jitter=lambda: 0.0)


class Host(Listener):
    """An upstream that can close the connections that it has."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self.answer, tls=tls)
        self.writers: set[asyncio.StreamWriter] = set()
        self.seen: list[Message] = []
        # Of each connection over TLS.
        self.resumed: list[bool] = []
        self.is_tired = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if tls := writer.get_extra_info("ssl_object"):
            self.resumed.append(tls.session_reused)
        self.writers.add(writer)
        while not self.is_tired:
            self.seen.append(await read_message(reader))
            writer.write(reply())

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers.clear()

    async def has_one(self, *, number: int) -> None:
        """Wait until one connection is open, and this was the number of all."""
        await until(lambda: (self.connections, self.connections - self.closed) == (number, 1))

    async def has_none(self) -> None:
        await until(lambda: self.connections == self.closed)


def warm(upstream: Listener, seconds: float = WARM, *, ca_file: Path | None = None) -> Settings:
    settings = settings_for(upstream.url)
    return replace(settings, upstream=replace(settings.upstream, warm=seconds, ca_file=ca_file))


async def test_one_stands_ready_from_the_start_is_used_and_made_again_when_it_is_closed() -> None:
    async with Host() as upstream, proxy(warm(upstream), clock=NO_JITTER) as app:
        await upstream.has_one(number=1)
        assert not upstream.seen
        for _ in range(3):
            assert (await raw(app.urls[0], get("/v2/a"))).head.status == 200
        for number in (2, 3):
            assert upstream.connections == number - 1
            upstream.hang_up()
            await upstream.has_one(number=number)
        assert (await raw(app.urls[0], get("/v2/a", method="POST"))).head.status == 200
        assert upstream.connections == 3


async def test_it_takes_no_request_its_place_among_the_connections_that_there_may_be() -> None:
    async with Host() as upstream:
        settings = warm(upstream)
        settings = replace(settings, upstream=replace(settings.upstream, max_connections=1))
        async with proxy(settings) as app:
            await upstream.has_one(number=1)
            answers = await asyncio.gather(*(raw(app.urls[0], get("/v2/a")) for _ in range(3)))
        assert [answer.head.status for answer in answers] == [200] * 3
        assert upstream.connections == 1


async def test_only_what_clients_send_upstream_keeps_it() -> None:
    not_sent = [get("/_slproxy/healthz"), get("/_slproxy/readyz"), get("/v2/../a"), get("/v2/a", host="evil.test")]
    async with Host() as upstream, proxy(warm(upstream, 0.5), clock=NO_JITTER) as app:
        await upstream.has_one(number=1)
        for _ in range(6):
            await asyncio.sleep(0.1)
            for each in not_sent:
                await raw(app.urls[0], each)
        upstream.hang_up()
        await asyncio.sleep(0.6)
        assert upstream.connections == 1

        async def makes_one_after_a_request() -> bool:
            await raw(app.urls[0], get("/v2/a"))
            number = upstream.connections
            upstream.hang_up()
            with contextlib.suppress(TimeoutError):
                await until(lambda: upstream.connections > number, timeout=0.6)
            return upstream.connections > number

        # On a machine that is busy half a second may pass before the connection is missed.
        assert [True for _ in range(5) if await makes_one_after_a_request()]


async def test_0_is_off() -> None:
    async with Host() as upstream, proxy(warm(upstream, 0.0)) as app:
        await asyncio.sleep(0.1)
        assert upstream.connections == 0
        assert (await raw(app.urls[0], get("/v2/a"))).head.status == 200
        assert app.own_pages.warning is None


async def test_one_that_is_closed_at_once_fails_no_request_and_is_made_ever_later() -> None:
    async with Host() as upstream:
        upstream.is_tired = True
        async with proxy(warm(upstream), clock=NO_JITTER) as app:
            await until(lambda: upstream.closed == 1)
            await asyncio.sleep(1.0)
            assert upstream.connections <= 3, "at 0, 0.25, 0.75 and 1.75 s"
            upstream.is_tired = False
            answer = await raw(app.urls[0], get("/v2/a", method="POST"))
    assert (answer.head.status, answer.head.get("X-Slproxy-Attempts")) == (200, None)


def certified(folder: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[ssl.SSLContext, Path]:
    """Return what serves TLS, and the file of who vouches for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = tls.maximum_version = version
    authority.issue_cert("127.0.0.1", "api.test").configure_cert(tls)
    return tls, folder / "ca.pem"


async def test_what_the_start_finds_out_is_logged_once_and_a_warning_until_it_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "slproxy")
    tls, ca_file = certified(tmp_path)
    (tmp_path / "other").mkdir()
    unknown, _ = certified(tmp_path / "other")
    told = "SalesLoft's certificate could not be verified. If a company proxy re-signs TLS, set upstream.ca_file"
    async with Host(tls=unknown) as wrong, Host(tls=tls) as right:
        where = wrong

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await to_port(where.port)(reader, writer)

        async with Listener(pass_on) as line:
            settings = warm(line, ca_file=ca_file)
            url = f"https://127.0.0.1:{line.port}"
            settings = replace(settings, upstream=replace(settings.upstream, api_url=url, accounts_url=url))
            async with proxy(settings, clock=NO_JITTER) as app:
                await until(lambda: line.connections >= 3)
                for name in ("readyz", "status.json"):
                    answer = await raw(app.urls[0], get(f"/_slproxy/{name}"))
                    assert answer.head.status == 200
                    assert json.loads(answer.body)["warning"].startswith(told)
                logged = [each for each in caplog.records if told in each.getMessage()]
                assert [each.levelname for each in logged] == ["WARNING"]
                where = right
                await until(lambda: app.own_pages.warning is None)
                assert (await raw(app.urls[0], get("/v2/a"))).head.status == 200
    assert [each.getMessage() for each in caplog.records][-1] == f"127.0.0.1:{line.port} can be reached again"


async def test_a_reload_ends_it_although_a_request_from_before_goes_on_and_begins_another() -> None:
    async with Host() as before, Host() as after, proxy(warm(before), clock=NO_JITTER) as app:
        await before.has_one(number=1)
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
        writer.write(get("/v2/a", "Content-Length: 2", method="POST") + b"1")
        await until(lambda: app.server is not None and app.server.in_flight == 1)
        await app.reload(replace(warm(after), listen=app.settings.listen))
        await after.has_one(number=1)
        before.hang_up()
        await asyncio.sleep(0.6)
        assert before.connections == 1
        writer.close()


async def test_a_shutdown_ends_it() -> None:
    async with Host() as upstream, proxy(warm(upstream), clock=NO_JITTER) as app:
        await upstream.has_one(number=1)
        await app.drain(at_once=asyncio.Event())
        upstream.hang_up()
        await asyncio.sleep(0.6)
        assert upstream.connections == 1


# The pool's part.


@contextlib.asynccontextmanager
async def pooled(
    settings: Settings, suspended: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[tuple[Pool, Origin]]:
    pool = Pool(Dialer(settings.upstream), suspended, lambda _origin, _idle: None)
    try:
        yield pool, Origin.of(settings.upstream.api_url)
    finally:
        pool.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
async def test_the_next_one_resumes_the_session_of_the_last_although_that_carried_nothing(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    tls, ca_file = certified(tmp_path, version)
    slept = 0.0
    async with Host(tls=tls) as upstream, pooled(warm(upstream, ca_file=ca_file), lambda: slept) as (pool, origin):
        for number in (1, 2, 3):
            assert await pool.prepare(origin)
            await upstream.has_one(number=number)
            slept += 3600.0
    assert upstream.resumed == [False, True, True]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_ticket_of_tls_that_comes_just_now_is_no_end_of_the_connection(loop: str, tmp_path: Path) -> None:
    """It comes after the handshake (RFC 8446 §4.6.1), here some turns of the event loop later."""
    tls, ca_file = certified(tmp_path)

    async def work() -> None:
        async with Host(tls=tls) as upstream, pooled(warm(upstream, ca_file=ca_file)) as (pool, origin):
            for turns in range(8):
                assert await pool.prepare(origin)
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert pool.is_warm(origin)
                connection = await pool.take(origin, repeatable=False)
                assert upstream.connections <= turns + 1
                pool.release(origin, connection, keep=False)
                await upstream.has_none()

    in_loop(loop, work())


async def test_one_that_lay_idle_for_long_is_to_be_replaced_before_the_pool_gives_it_up() -> None:
    assert RENEW_AFTER + POLL_INTERVAL < POOL_KEEPALIVE
    async with Host() as upstream, pooled(warm(upstream)) as (pool, origin):
        connection = await pool.take(origin, repeatable=True)
        pool.release(origin, connection, keep=True)
        assert pool.is_warm(origin)
        connection.idle_since -= RENEW_AFTER
        assert not pool.is_warm(origin)


async def test_one_that_is_older_than_a_sleep_is_replaced_by_one_that_stands_before_it_is_closed() -> None:
    slept = 0.0
    async with Host() as upstream, pooled(warm(upstream), lambda: slept) as (pool, origin):
        assert not pool.is_warm(origin)
        assert await pool.prepare(origin)
        assert pool.is_warm(origin)
        slept = 3600.0
        assert not pool.is_warm(origin)
        assert await pool.prepare(origin)
        await upstream.has_one(number=2)
        assert pool.is_warm(origin)


async def test_none_is_made_beside_one_that_a_request_has_or_makes() -> None:
    async with Host() as upstream, pooled(warm(upstream)) as (pool, origin):
        taking = asyncio.create_task(pool.take(origin, repeatable=True))
        await asyncio.sleep(0)
        assert not pool.is_open(origin)
        assert pool.is_warm(origin)
        connection = await taking
        assert pool.is_warm(origin)
        assert await pool.prepare(origin)  # as one is that had been begun before
        await upstream.has_one(number=2)
        pool.release(origin, connection, keep=True)
        assert pool.is_warm(origin)


def through(egress: Listener, ca_file: Path) -> Settings:
    settings = settings_for("https://api.test")
    proxy_settings = parsed_egress(f"http://user:password@127.0.0.1:{egress.port}")
    return replace(settings, upstream=replace(settings.upstream, proxy=proxy_settings, warm=WARM, ca_file=ca_file))


@pytest.mark.parametrize("is_refused", [False, True], ids=["made", "refused"])
async def test_a_request_that_comes_while_it_is_made_shares_what_comes_of_it(is_refused: bool, tmp_path: Path) -> None:
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    tls, ca_file = certified(tmp_path)

    async def connect_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await may_go_on.wait()
        if is_refused:
            writer.write(reply("407 Proxy Authentication Required"))
            return
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await to_port(upstream.port)(reader, writer)

    async with (
        Host(tls=tls) as upstream,
        Listener(connect_slowly) as egress,
        pooled(through(egress, ca_file)) as (pool, origin),
    ):
        preparing = asyncio.create_task(pool.prepare(origin))
        await begun.wait()
        taking = asyncio.create_task(pool.take(origin, repeatable=False))
        await asyncio.sleep(0)
        may_go_on.set()
        results = await asyncio.gather(taking, preparing, return_exceptions=True)
        assert [isinstance(each, UpstreamFault) for each in results] == [is_refused] * 2
        assert egress.connections == 1


async def test_a_password_that_an_egress_proxy_refuses_is_told_it_once(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply("407 Proxy Authentication Required"))

    _, ca_file = certified(tmp_path)
    async with Listener(refuse) as egress, proxy(through(egress, ca_file), clock=NO_JITTER) as app:
        await until(lambda: app.own_pages.warning is not None)
        await asyncio.sleep(0.6)
        assert egress.connections == 1
