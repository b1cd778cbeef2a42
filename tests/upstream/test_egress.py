"""Through an egress proxy: what it sees, and what becomes of one that does not do its part."""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from slproxy.clock import Clock
from slproxy.config import AuthSettings, RetrySettings, Secret, Settings
from slproxy.config.egress import parsed_egress
from slproxy.errors import UpstreamUnreachable
from slproxy.observe import AccessLog
from slproxy.upstream.dial import Dialer, Origin
from slproxy.upstream.tunnel import MAX_HEAD, Tunnel
from tests.support.egress import (
    CREDENTIALS,
    PASSWORD,
    USER,
    Connector,
    answering,
    needs_squid,
    needs_tinyproxy,
    squid,
    tinyproxy,
)
from tests.support.listener import Listener, Serve
from tests.support.loops import LOOPS, in_loop
from tests.support.programs import program
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Head, get, raw, reply
from tests.support.waiting import PATIENCE, until

CLIENT_SECRET, TOKEN = "cs_" + "c4" * 32, "at_" + "70" * 32
# Names that nobody resolves (RFC 6761 §6.4) but the proxies here; and an address that is this machine's, and no
# loopback one by its looks.
API, ACCOUNTS, ANY_ADDRESS = "api.test", "accounts.test", "0.0.0.0"


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", name="ca_file")
def the_file_of_the_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority().cert_pem.write_to_path(path)
    return path


def serving(*names: str, by: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (by or authority()).issue_cert(*names).configure_cert(context)
    return context


class SalesLoft(Listener):
    """Both hosts, over TLS: it grants ``TOKEN`` to whoever posts, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(self._answer, tls=serving(API, ACCOUNTS, ANY_ADDRESS))
        self.heads: list[Head] = []

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.heads.append(head := Head((await reader.readuntil(b"\r\n\r\n"))[:-2]))
            await reader.readexactly(int(head.get("Content-Length") or 0))
            granted = {"access_token": TOKEN, "token_type": "bearer", "expires_in": 7200}
            writer.write(reply("200 OK", json.dumps(granted if head.method == "POST" else {}).encode()))


def through(url: str, *, to: str, ca_file: Path, timeout: float = 5.0) -> Settings:
    """Return settings that reach ``to`` through the proxy of this URL."""
    auth = AuthSettings(grant="client_credentials", client_id="app", client_secret=Secret(CLIENT_SECRET))
    settings = settings_for(to, accounts=to.replace(API, ACCOUNTS), auth=auth)
    upstream = replace(settings.upstream, proxy=parsed_egress(url), ca_file=ca_file, connect_timeout=timeout)
    return replace(settings, upstream=upstream, retry=RetrySettings(attempts=2))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_requests_for_tokens_and_to_the_api_go_through_the_proxy_by_name_and_sealed(
    scheme: str, loop: str, ca_file: Path
) -> None:
    async def work() -> None:
        places: dict[str, int] = {}
        tls = serving("localhost") if scheme == "https" else None
        async with SalesLoft() as salesloft, Connector(places, tls=tls) as connector:
            places |= {f"{name}:8443": salesloft.port for name in (API, ACCOUNTS)}
            url = f"{scheme}://{USER}:{PASSWORD}@localhost:{connector.port}"
            async with proxy(through(url, to=f"https://{API}:8443", ca_file=ca_file)) as app:
                answers = [await raw(app.urls[0], get("/v2/me.json")) for _ in range(2)]
        assert [answer.head.status for answer in answers] == [200, 200]
        assert connector.asked == [f"{ACCOUNTS}:8443", f"{API}:8443"]
        assert all(f"\r\nProxy-Authorization: {CREDENTIALS}\r\n" in head for head in connector.heads)
        assert [head.get("Host") for head in salesloft.heads] == [f"{ACCOUNTS}:8443", *[f"{API}:8443"] * 2]
        assert [head.get("Proxy-Authorization") for head in salesloft.heads] == [None] * 3
        assert f"Bearer {TOKEN}" == salesloft.heads[-1].get("Authorization")
        wire = bytes(connector.tape) + "".join(connector.heads).encode()
        for secret in (TOKEN, CLIENT_SECRET, "/v2/me.json"):
            assert secret.encode() not in wire

    in_loop(loop, work())


async def test_the_environment_of_a_program_names_its_proxy_and_the_log_tells(ca_file: Path, tmp_path: Path) -> None:
    async with SalesLoft() as salesloft, Connector({f"{API}:443": salesloft.port}) as connector:
        settings = {
            "HTTPS_PROXY": f"http://{USER}:{PASSWORD}@127.0.0.1:{connector.port}",
            "SLPROXY_UPSTREAM__API_URL": f"https://{API}",
            "SLPROXY_UPSTREAM__CA_FILE": str(ca_file),
            "SLPROXY_STORE__KIND": "memory",
            "SALESLOFT_API_KEY": API_KEY,
        }
        async with program("serve", "--port", "0", home=tmp_path, env=settings) as running:
            assert (await raw(running.url, get("/v2/me.json"))).head.status == 200
            shown = f"SalesLoft is reached through the proxy http://***@127.0.0.1:{connector.port} (HTTPS_PROXY)"
            await until(lambda: shown in running.output)
    assert PASSWORD not in running.output
    assert {*connector.asked} == {f"{API}:443"}


# Proxies that nobody here wrote.


@asynccontextmanager
async def squids() -> AsyncIterator[tuple[str, int]]:
    async with squid({API: "127.0.0.1", ACCOUNTS: "127.0.0.1", "denied.test": "127.0.0.1"}) as port:
        yield API, port


@asynccontextmanager
async def tinyproxies() -> AsyncIterator[tuple[str, int]]:
    async with tinyproxy() as port:
        yield ANY_ADDRESS, port


REAL: Mapping[str, Callable[[], AbstractAsyncContextManager[tuple[str, int]]]] = {
    "squid": squids,
    "tinyproxy": tinyproxies,
}


@pytest.mark.parametrize(
    "which", [pytest.param("squid", marks=needs_squid), pytest.param("tinyproxy", marks=needs_tinyproxy)]
)
async def test_a_real_proxy_carries_requests_and_its_refusals_are_told(which: str, ca_file: Path) -> None:
    async with SalesLoft() as salesloft, REAL[which]() as (host, port):
        good = f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"
        async with proxy(through(good, to=f"https://{host}:{salesloft.port}", ca_file=ca_file)) as app:
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            faults = {
                f"http://127.0.0.1:{port}": (host, salesloft.port, "proxy_configuration_error", "wants a user name"),
                f"http://{USER}:x@127.0.0.1:{port}": (
                    host,
                    salesloft.port,
                    "proxy_configuration_error",
                    "refused the user",
                ),
                good: (host, nobody.getsockname()[1], "destination_unavailable", "could not connect"),
            }
            for url, (name, upstream_port, error, said) in faults.items():
                told = await fault_of(url, f"https://{name}:{upstream_port}", ca_file)
                assert (told.proxy_error, said in told.detail) == (error, True), told.detail
        if which == "squid":
            told = await fault_of(good, f"https://denied.test:{salesloft.port}", ca_file)
        else:
            async with tinyproxy("ConnectPort 1") as strict:
                url = f"http://{USER}:{PASSWORD}@127.0.0.1:{strict}"
                told = await fault_of(url, f"https://{host}:{salesloft.port}", ca_file)
        assert (told.proxy_error, told.is_lasting) == ("http_request_denied", True)
        assert "(403)" in told.detail


class Nothing(asyncio.BufferedProtocol):
    """What a connection would be for, if there were one."""


async def fault_of(url: str, to: str, ca_file: Path, *, timeout: float = 5.0) -> UpstreamUnreachable:
    """Return what connecting to ``to`` through a proxy comes to."""
    settings = through(url, to=to, ca_file=ca_file, timeout=timeout)
    with pytest.raises(UpstreamUnreachable) as told:
        await Dialer(settings.upstream).dial(Origin.of(to), Nothing)
    assert not told.value.maybe_sent
    return told.value


# Proxies by script: how each answers, and what that is called.


@dataclass(frozen=True)
class Row:
    """An answer to CONNECT, or what a proxy does instead, and what is said of it."""

    serve: Serve
    error: str
    said: str
    hint: str = "upstream.proxy"
    is_lasting: bool = False


def html(status: str, *headers: str) -> bytes:
    return reply(status, b"<html>sign in</html>", "Content-Type: text/html", *headers)


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def hangs_up_within(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nX-")


async def opens_and_hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await reader.read(1)


async def talks_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(html("400 Bad Request"))
    await reader.read()


async def keeps_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


NTLM = html("407 Proxy Authentication Required", "Proxy-Authenticate: Negotiate", *["Proxy-Authenticate: NTLM"] * 9)
ROWS = {
    "403": Row(answering(html("403 Forbidden")), "http_request_denied", "refused a connection to", is_lasting=True),
    "407": Row(
        answering(html("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="x"')),
        *("proxy_configuration_error", "wants a user name and a password (407)", "http://USER:PASSWORD@"),
        is_lasting=True,
    ),
    "NTLM": Row(answering(NTLM), "proxy_configuration_error", ": Negotiate, NTLM (407)", "cntlm", is_lasting=True),
    "502": Row(answering(html("502 Bad Gateway")), "destination_unavailable", "could not connect to api.test:443"),
    "504": Row(answering(html("504 Gateway Timeout")), "connection_timeout", "could not connect to api.test:443"),
    "a page": Row(answering(html("200 OK")), "http_protocol_error", "a page (200)", "sign in"),
    "a way to a page": Row(answering(html("302 Found")), "http_protocol_error", "a page (302)", "sign in"),
    "more than an answer": Row(
        answering(b"HTTP/1.1 200 OK\r\n\r\nHello"), "http_protocol_error", "a page (200)", "sign in"
    ),
    "another protocol": Row(answering(b"220 mail ready\r\n"), "http_protocol_error", "did not answer as an HTTP proxy"),
    "no version": Row(answering(b"HTTP/1.1 OK\r\n\r\n"), "http_protocol_error", "did not answer as an HTTP proxy"),
    "a head without end": Row(
        answering(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9999), "http_protocol_error", "did not answer as an HTTP proxy"
    ),
    "an end": Row(hangs_up, "connection_terminated", "closed the connection unanswered"),
    "an end within its answer": Row(hangs_up_within, "connection_terminated", "closed the connection unanswered"),
    "an end of the tunnel": Row(
        opens_and_hangs_up, "connection_terminated", "in the TLS handshake (through the proxy", "Check the network"
    ),
    "silence": Row(keeps_silent, "connection_timeout", "did not answer in time"),
}


@pytest.mark.parametrize("what", ROWS)
async def test_a_proxy_that_opens_no_connection_is_told_by_name_and_with_a_remedy(what: str, ca_file: Path) -> None:
    row = ROWS[what]
    async with Listener(row.serve) as listener:
        url = f"http://127.0.0.1:{listener.port}"
        told = await fault_of(url, f"https://{API}", ca_file, timeout=0.2 if what == "silence" else 5.0)
    assert (told.proxy_error, told.is_lasting) == (row.error, row.is_lasting)
    assert row.said in told.detail
    assert f"127.0.0.1:{listener.port}" in told.detail
    assert row.hint in told.hint


@pytest.mark.parametrize("size", [MAX_HEAD, MAX_HEAD + 1], ids=["as long as it may be", "longer"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_long_answer_of_a_proxy_holds_nothing_up(loop: str, scheme: str, size: int, ca_file: Path) -> None:
    filler = b"HTTP/1.1 200 OK\r\nX: "
    answer = filler + b"y" * (size - len(filler) - 4) + b"\r\n\r\n"

    async def work() -> None:
        tls = serving("127.0.0.1") if scheme == "https" else None
        async with Listener(answering(answer), tls=tls) as listener:
            url, timeout = f"{scheme}://127.0.0.1:{listener.port}", 0.5 if size == MAX_HEAD else PATIENCE
            told = await fault_of(url, f"https://{API}", ca_file, timeout=timeout)
        assert told.proxy_error == ("connection_timeout" if size == MAX_HEAD else "http_protocol_error")

    in_loop(loop, work())


async def test_a_proxy_that_hangs_up_on_who_has_given_up_is_nobodys_error() -> None:
    """Such as a client that has left while the connection was made: asyncio would log a traceback."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    proxy = parsed_egress("http://127.0.0.1:3128").proxy
    assert proxy is not None
    Tunnel(proxy, API, 443, named_in="upstream.proxy").connection_lost(None)
    gc.collect()
    assert complaints == []


async def test_a_proxy_that_cannot_be_reached_is_told_by_name(ca_file: Path) -> None:
    stranger = serving("localhost", by=trustme.CA())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with Connector({}, tls=stranger) as foreign, Listener(talks_plainly) as plain:
            places = {
                f"http://127.0.0.1:{taken.getsockname()[1]}": ("connection_refused", "refused the connection"),
                "http://name.invalid:3128": ("dns_error", "name of the proxy name.invalid:3128 could not"),
                f"https://localhost:{foreign.port}": ("tls_certificate_error", "'s certificate could not be verified"),
                f"https://localhost:{plain.port}": ("tls_protocol_error", "The TLS handshake with the proxy"),
            }
            for url, (error, said) in places.items():
                told = await fault_of(url, f"https://{API}", ca_file)
                assert (told.proxy_error, said in told.detail) == (error, True), told.detail
                assert url.rpartition("/")[2] in told.detail
        assert foreign.heads == []


async def test_the_certificate_is_verified_through_a_proxy_as_ever(ca_file: Path) -> None:
    async with Listener(keeps_silent, tls=serving("other.test")) as other, Connector({}) as connector:
        connector.places = {f"{API}:443": other.port}
        told = await fault_of(f"http://127.0.0.1:{connector.port}", f"https://{API}", ca_file)
    assert told.proxy_error == "tls_certificate_error"
    assert "upstream.ca_file" in told.hint


async def test_a_name_that_no_certificate_can_have_leaves_no_connection_open(ca_file: Path) -> None:
    name = f"{'n' * 64}.test"
    async with Connector({}) as connector, Listener(keeps_silent) as there:
        connector.places = {f"{name}:443": there.port}
        told = await fault_of(f"http://127.0.0.1:{connector.port}", f"https://{name}", ca_file)
        await until(lambda: connector.closed == connector.connections == 1)
    assert told.proxy_error == "dns_error"


async def test_this_machine_is_never_reached_through_a_proxy(ca_file: Path) -> None:
    async with SalesLoft() as salesloft, Connector({}) as connector:
        salesloft.heads.clear()
        settings = through(
            f"http://127.0.0.1:{connector.port}", to=f"https://localhost:{salesloft.port}", ca_file=ca_file
        )
        with pytest.raises(UpstreamUnreachable) as told:
            await Dialer(settings.upstream).dial(Origin.of(settings.upstream.api_url), Nothing)
    # It was reached, and its certificate is for other names.
    assert told.value.proxy_error == "tls_certificate_error"
    assert connector.heads == []


async def test_refused_credentials_are_sent_once_and_show_nowhere(
    ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who tries a wrong password again and again locks the account of the person who wrote it down."""
    caplog.set_level("DEBUG")
    heads: list[bytes] = []
    log = io.StringIO()
    # A hostile one gives back what it was given, where the name of a scheme would be shown.
    refusal = html("407 No", f"Proxy-Authenticate: {CREDENTIALS.split()[1]}")
    async with Listener(answering(refusal, heads=heads)) as listener:
        url = f"http://{USER}:{PASSWORD}@127.0.0.1:{listener.port}"
        settings = through(url, to=f"https://{API}", ca_file=ca_file)
        settings = replace(settings, auth=AuthSettings(api_key=Secret(API_KEY)), retry=RetrySettings(attempts=4))
        journal = AccessLog(log, pretty=False, colour=False)
        async with proxy(settings, clock=Clock(jitter=lambda: 0.0), listeners=[journal]) as app:
            answer = await raw(app.urls[0], get("/v2/me.json"))
            status = await raw(app.urls[0], get("/_slproxy/status.json"))
    problem = json.loads(answer.body)
    assert (answer.head.status, problem["type"].rpartition("/")[2]) == (502, "upstream-unreachable")
    assert answer.head.get("Proxy-Status") == "slproxy; error=proxy_configuration_error"
    assert f"The proxy 127.0.0.1:{listener.port} refused the user name or the password" in problem["detail"]
    assert len(heads) == 1
    assert f"Proxy-Authorization: {CREDENTIALS}\r\n".encode() in heads[0]
    told = log.getvalue() + caplog.text + repr(settings) + (answer.head.raw + answer.body + status.body).decode()
    for secret in (PASSWORD, CREDENTIALS.split()[1]):
        assert secret not in told
