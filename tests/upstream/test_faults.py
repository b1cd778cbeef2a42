"""What each fault of the upstream becomes: one status, one ``Proxy-Status``, one line in the log, and no secret in any.

And the laws of TLS: what is not verified gets no byte of a request, and so none of the token.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import io
import ipaddress
import json
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import SupportsIndex

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from slproxy.app import App
from slproxy.clock import Clock
from slproxy.config import AuthSettings, RetrySettings, Secret
from slproxy.observe import AccessLog
from tests.support.listener import Listener, to_port
from tests.support.programs import program
from tests.support.proxies import API_KEY, settings_for
from tests.support.raw_http import Head, Message, get, port_of, raw, read_message, reply
from tests.support.waiting import PATIENCE

# One second for each timeout, and what a busy machine may add before it is clear that nobody looked at the clock: the
# defaults are 5 and 60 s.
TIMEOUT = 1.0
EARLY, LATE = 0.1, 3.5
SECRET = "cs_" + "c4" * 32
PERSON = "jane%40company.test"
ASK = get(f"/v2/fault?email={PERSON}")
# Good for both hosts: the token endpoint's answer as well.
TOKEN = "at_" + "70" * 32
OK = reply("200 OK", json.dumps({"access_token": TOKEN, "token_type": "bearer", "expires_in": 7200}).encode())
HEAD_END = b"\r\n\r\n"


# The upstream, connection by connection.


class Tape(asyncio.StreamReader):
    """A reader that keeps all that came."""

    def __init__(self, tape: bytearray) -> None:
        super().__init__(limit=2**20)
        self._tape = tape

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        self._tape += bytes(data)
        super().feed_data(data)


@dataclass
class Wire:
    """The upstream's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        return await self.reader.readuntil(HEAD_END)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def left(self) -> None:
        """Wait until the proxy hangs up."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        peer = self.writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Serve = Callable[[Wire], Awaitable[None]]


async def good(wire: Wire) -> None:
    """Answer each request on a connection with 200."""
    while True:
        head = Head((await wire.head())[:-2])
        if length := int(head.get("Content-Length") or 0):
            await wire.reader.readexactly(length)
        await wire.send(OK)


class Origin(Listener):
    """A server on loopback that serves each connection as ``serve`` says then; ``tape`` is all that it was sent."""

    def __init__(self, serve: Serve, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._take, tls=tls, reader=lambda: Tape(self.tape))
        self.serve = serve
        self.tape = bytearray()

    @property
    def heads(self) -> int:
        return bytes(self.tape).count(b" HTTP/1.1\r\n")

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.serve(Wire(reader, writer))


def relay(port: int) -> Serve:
    """Pass a connection on to another server, byte by byte."""
    pass_on = to_port(port)

    async def serve(wire: Wire) -> None:
        await pass_on(wire.reader, wire.writer)

    return serve


# Certificates.


@functools.cache
def authorities() -> tuple[trustme.CA, trustme.CA]:
    """Return one that the proxy is told to trust, and one that it has never heard of."""
    return trustme.CA(), trustme.CA()


@pytest.fixture(scope="module", name="ca_file")
def the_file_of_the_trusted_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "trusted.pem"
    authorities()[0].cert_pem.write_to_path(path)
    return path


def serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def trusted(*names: str, begins: int = -1, ends: int = 1) -> ssl.SSLContext:
    """Return a server with a certificate of the trusted authority, good between two days from now."""
    names = names or ("127.0.0.1", "localhost")
    return serving(authorities()[0].issue_cert(*names, not_before=days(begins), not_after=days(ends)))


def days(number: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=number)


def handmade(*, issuer: trustme.CA | None, purpose: x509.ObjectIdentifier, name: str | None) -> ssl.SSLContext:
    """Return a server with what trustme does not issue: no issuer but itself, another purpose, no alternative name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    issuer_name, signer = subject, key
    if issuer is not None:
        issuer_name = x509.load_pem_x509_certificate(issuer.cert_pem.bytes()).subject
        loaded = serialization.load_pem_private_key(issuer.private_key_pem.bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer = loaded
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer_name)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(days(-1))
        .not_valid_after(days(1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if name is not None:
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
        builder = builder.add_extension(alternative, critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return serving(trustme.LeafCert(private, certificate.public_bytes(serialization.Encoding.PEM), []))


SERVER_AUTH, CLIENT_AUTH = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH

# Each made when it is wanted: what cannot be verified, and why.
BAD_CERTIFICATES: dict[str, Callable[[], ssl.SSLContext]] = {
    "expired": lambda: trusted(begins=-2, ends=-1),
    "not yet valid": lambda: trusted(begins=1, ends=2),
    "for another name": lambda: trusted("localhost", "127.0.0.2", "api.salesloft.com"),
    "self-signed": lambda: handmade(issuer=None, purpose=SERVER_AUTH, name="127.0.0.1"),
    "of an unknown authority": lambda: serving(authorities()[1].issue_cert("127.0.0.1")),
    "for clients only": lambda: handmade(issuer=authorities()[0], purpose=CLIENT_AUTH, name="127.0.0.1"),
    # RFC 9525 §2: the common name does not count.
    "with the name in its subject only": lambda: handmade(issuer=authorities()[0], purpose=SERVER_AUTH, name=None),
}


def wants_a_certificate() -> ssl.SSLContext:
    context = trusted()
    context.verify_mode = ssl.CERT_REQUIRED
    authorities()[0].configure_trust(context)
    return context


# Where a fault is, and how it passes.


@dataclass
class Place:
    """An origin at which everything goes wrong until it is ``mended``."""

    url: str
    mend: Callable[[], Awaitable[None]] | None
    # What came over the wire, and what was in it where that was TLS.
    origin: Origin | None = None
    inside: Origin | None = None


Placed = Callable[[], AbstractAsyncContextManager[Place]]


def scripted(serve: Serve, *, scheme: str = "http") -> Placed:
    """A server that accepts, and goes on as ``serve`` says."""

    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        async with Origin(serve) as origin, Origin(good, tls=trusted()) as behind:

            async def mend() -> None:
                origin.serve = good if scheme == "http" else relay(behind.port)

            yield Place(f"{scheme}://127.0.0.1:{origin.port}", mend, origin)

    return place


def tls(context: Callable[[], ssl.SSLContext]) -> Placed:
    """A server that speaks TLS as ``context`` says."""

    @asynccontextmanager
    async def place() -> AsyncIterator[Place]:
        async with Origin(good, tls=context()) as bad, scripted(relay(bad.port), scheme="https")() as where:
            where.inside = bad
            yield where

    return place


@asynccontextmanager
async def refused() -> AsyncIterator[Place]:
    """A port that is taken, so that nobody else gets it, and on which nobody listens."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        origin = Origin(good)

        async def mend() -> None:
            await origin.listen(sock=listener)
            stack.push_async_exit(origin)

        yield Place(f"http://127.0.0.1:{listener.getsockname()[1]}", mend)


@asynccontextmanager
async def blackhole() -> AsyncIterator[Place]:
    """A host that drops what is sent to it: a listener whose backlog is full answers no SYN (listen(2))."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    async with AsyncExitStack() as stack:
        origin = Origin(good)

        async def mend() -> None:
            for filler in fillers:
                filler.close()
            await origin.listen(sock=listener)
            stack.push_async_exit(origin)

        yield Place(f"http://127.0.0.1:{listener.getsockname()[1]}", mend)
    listener.close()
    for filler in fillers:
        filler.close()


@asynccontextmanager
async def nameless() -> AsyncIterator[Place]:
    """A name that does not exist, and never will (RFC 6761 §6.4)."""
    yield Place("https://name.invalid", None)


# What a server may do to a connection.


def answers(data: bytes) -> Serve:
    """Answer with these bytes in one piece, and go on as if that had been well."""

    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.send(data)
        await good(wire)

    return serve


def greets(data: bytes) -> Serve:
    """Speak first."""

    async def serve(wire: Wire) -> None:
        await wire.send(data)
        await wire.left()

    return serve


def floods(first: bytes, again: bytes) -> Serve:
    """Never come to an end."""

    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.send(first)
        while True:
            await wire.send(again)

    return serve


def dribbles(data: bytes) -> Serve:
    """Send a byte at a time, in three times the time that there is."""

    async def serve(wire: Wire) -> None:
        await wire.head()
        for number in range(len(data)):
            await wire.send(data[number : number + 1])
            await asyncio.sleep(3 * TIMEOUT / len(data))
        await wire.left()

    return serve


def ends(*, after: int | None, sends: bytes = b"", reset: bool = True) -> Serve:
    """Break the connection: at once, or after the head and ``after`` bytes of the body; say something first or not."""

    async def serve(wire: Wire) -> None:
        if after is not None:
            await wire.head()
            await wire.reader.readexactly(after)
        if sends:
            await wire.send(sends)
        if reset:
            wire.reset()

    return serve


async def silent(wire: Wire) -> None:
    await wire.left()


async def deaf(wire: Wire) -> None:
    """Read the head, and nothing of the body."""
    await wire.head()
    await asyncio.sleep(3 * TIMEOUT)


async def half_a_handshake(wire: Wire) -> None:
    await wire.reader.read(1)
    await wire.send(b"\x16\x03\x03\x00\x7a\x02")
    await wire.left()


def after_hello(*, sends: bytes = b"", reset: bool = False) -> Serve:
    """Take the first bytes of a TLS handshake, and answer with what is none."""

    async def serve(wire: Wire) -> None:
        await wire.reader.readexactly(5)
        if sends:
            await wire.send(sends)
        if reset:
            wire.reset()

    return serve


def head(*lines: str, status: str = "200 OK", body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1") + body


UPLOAD = get("/v2/fault", "Content-Length: 3000000", method="POST") + b"u" * 3_000_000
# RFC 4346 §7.4.1.3: version 3.2, 32 random bytes, no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
HELLO_OF_TLS_11 = b"\x16\x03\x02\x00\x2a\x02\x00\x00\x26\x03\x02" + bytes(32) + b"\x00\x00\x2f\x00"
HTTP2_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # RFC 9113 §6.5: the first frame that a server sends
CHUNKED = "Transfer-Encoding: chunked"


@dataclass(frozen=True)
class Row:
    """A fault, and what it comes to; ``after`` is the timeout that ends it, in seconds."""

    place: Placed
    error: str = "http_protocol_error"
    status: int = 502
    after: float = 0.0
    request: bytes = field(default=ASK, repr=False)


def late(serve: Serve, *, request: bytes = ASK) -> Row:
    return Row(scripted(serve), "http_response_timeout", 504, TIMEOUT, request)


def broken(serve: Serve, error: str = "connection_terminated", *, request: bytes = ASK) -> Row:
    return Row(scripted(serve), error, request=request)


CONNECTING = {
    "no such name": Row(nameless, "dns_error"),
    "refused": Row(refused, "connection_refused"),
    "blackhole": Row(blackhole, "connection_timeout", after=TIMEOUT),
    "a handshake that is never answered": Row(scripted(silent, scheme="https"), "connection_timeout", after=TIMEOUT),
    "half a handshake": Row(scripted(half_a_handshake, scheme="https"), "connection_timeout", after=TIMEOUT),
    **{f"a certificate {why}": Row(tls(make), "tls_certificate_error") for why, make in BAD_CERTIFICATES.items()},
    "an alert, as from a server of TLS 1.1": Row(
        scripted(after_hello(sends=b"\x15\x03\x02\x00\x02\x02\x46"), scheme="https"), "tls_protocol_error"
    ),
    "a hello of TLS 1.1": Row(scripted(after_hello(sends=HELLO_OF_TLS_11), scheme="https"), "tls_protocol_error"),
    "plain text on a TLS port": Row(scripted(after_hello(sends=reply()), scheme="https"), "tls_protocol_error"),
    "a banner on a TLS port": Row(scripted(greets(b"220 ftp ready\r\n"), scheme="https"), "tls_protocol_error"),
    "a reset in the handshake": Row(scripted(after_hello(reset=True), scheme="https"), "connection_terminated"),
    "an end in the handshake": Row(scripted(after_hello(), scheme="https"), "connection_terminated"),
}

ANSWERING = {
    # Silent and slow.
    "silence": late(silent),
    "silence after a 100": late(dribbles(head(status="100 Continue") + b"H")),
    "a head of one byte at a time": late(dribbles(head("X-Slow: very", "Content-Length: 0"))),
    "headers without end, slowly": late(dribbles(head(*[f"X-{n}: y" for n in range(30)])[:-2])),
    "1xx without end, slowly": late(dribbles(head(status="102 Processing") * 3)),
    "an upload that nobody reads": late(deaf, request=UPLOAD),
    # Broken.
    "a reset on accept": broken(ends(after=None)),
    "an end on accept": broken(ends(after=None, reset=False)),
    "a reset after the head was read": broken(ends(after=0)),
    "an end after the head was read": broken(ends(after=0, reset=False)),
    "a reset in the middle of an upload": broken(ends(after=100_000), request=UPLOAD),
    "an end in the middle of an upload": broken(ends(after=100_000, reset=False), request=UPLOAD),
    "a reset in the middle of the reply's head": broken(ends(after=0, sends=b"HTTP/1.1 200 OK\r\nContent-Le")),
    "an end in the middle of the reply's head": broken(
        ends(after=0, sends=b"HTTP/1.1 200 OK\r\nContent-Le", reset=False)
    ),
    "an end in the handshake, for want of a certificate of ours": Row(
        tls(wants_a_certificate), "connection_terminated"
    ),
    "an end after a 100": broken(ends(after=0, sends=head(status="100 Continue"), reset=False)),
    # Not HTTP.
    **{
        f"a reply that is {what}": broken(answers(data), "http_protocol_error")
        for what, data in {
            "garbage": b"\x00\xff\x17\x03garbage\r\n\r\n",
            "HTTP/0.9": b"<html>hello</html>\r\n",
            "HTTP/2": HTTP2_SETTINGS,
            "TLS": b"\x15\x03\x03\x00\x02\x02\x0a",
            "of version 3.7": b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
            "of status 99": head("Content-Length: 0", status="099 Low"),
            "of status 2000": head("Content-Length: 0", status="2000 High"),
            "without a status": head("Content-Length: 0", status="OK"),
            "a header without a colon": head("X-Broken", "Content-Length: 0"),
            "a header without a name": head(": x", "Content-Length: 0"),
            "a space before a colon": head("X-A : 1", "Content-Length: 0"),
            "a NUL in a header": head("X-A: 1\x002", "Content-Length: 0"),
            "a bare CR in a header": head("X-A: 1\rX-B: 2", "Content-Length: 0"),
            "a header that is not UTF-8": head("X-A: \xff\xfe", "Content-Length: 0"),
            "an unasked 101": head("Connection: Upgrade", "Upgrade: websocket", status="101 Switching Protocols"),
        }.items()
    },
    "a banner": broken(greets(b"220 ftp.salesloft.test ready\r\n"), "http_protocol_error"),
    "a banner that looks like HTTP": broken(greets(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "http_protocol_error"),
    "1xx without end": broken(floods(b"", head(status="100 Continue") * 50), "http_protocol_error"),
    "headers without end": broken(floods(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 500), "http_protocol_error"),
    "one header without end": broken(floods(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 4096), "http_protocol_error"),
    "a status line without end": broken(floods(b"HTTP/1.1 200 O", b"K" * 4096), "http_protocol_error"),
    # Lengths.
    **{
        f"a length: {what}": broken(answers(head(*lines, body=body)), "http_protocol_error")
        for what, lines, body in [
            ("two that differ", ["Content-Length: 2", "Content-Length: 3"], b"{}x"),
            ("two in one line", ["Content-Length: 2, 3"], b"{}x"),
            ("besides chunks", ["Content-Length: 2", CHUNKED], b"2\r\n{}\r\n0\r\n\r\n"),
            ("chunks besides", [CHUNKED, "Content-Length: 2"], b"2\r\n{}\r\n0\r\n\r\n"),
            ("negative", ["Content-Length: -1"], b"{}"),
            ("letters", ["Content-Length: two"], b"{}"),
            ("hexadecimal", ["Content-Length: 0x2"], b"{}"),
            ("with a sign", ["Content-Length: +2"], b"{}"),
            ("of 30 digits", ["Content-Length: " + "9" * 30], b"{}"),
            ("none", ["Content-Length:"], b"{}"),
            ("of a chunk, letters", [CHUNKED], b"zz\r\n{}\r\n0\r\n\r\n"),
            ("of a chunk, negative", [CHUNKED], b"-2\r\n{}\r\n0\r\n\r\n"),
            ("of a chunk, with a prefix", [CHUNKED], b"0x2\r\n{}\r\n0\r\n\r\n"),
            ("of a chunk, of 30 digits", [CHUNKED], b"f" * 30 + b"\r\n{}\r\n0\r\n\r\n"),
            ("of a chunk, too small", [CHUNKED], b"1\r\n{}\r\n0\r\n\r\n"),
        ]
    },
}
FAULTS = {**CONNECTING, **ANSWERING}
TYPES = {502: "upstream-unreachable", 504: "upstream-timeout"}


# The proxy, and what it tells.


@dataclass
class Line:
    """A proxy before a place, and all that it writes."""

    app: App
    log: io.StringIO

    async def ask(self, request: bytes = ASK, *, method: str = "GET") -> Message:
        return await raw(self.app.urls[0], request, method=method)

    def lines(self, path: str = "/v2/fault") -> list[dict[str, object]]:
        return [line for line in map(json.loads, self.log.getvalue().splitlines()) if line["path"] == path]


@asynccontextmanager
async def proxied(
    url: str,
    ca_file: Path,
    *,
    accounts: str | None = None,
    auth: AuthSettings | None = None,
    attempts: int = 1,
    clock: Clock | None = None,
) -> AsyncIterator[Line]:
    settings = settings_for(url, accounts=accounts, auth=auth)
    timeouts = {"connect_timeout": TIMEOUT, "response_timeout": TIMEOUT, "idle_timeout": TIMEOUT}
    settings = replace(
        settings,
        retry=RetrySettings(attempts=attempts),
        upstream=replace(settings.upstream, ca_file=ca_file, **timeouts),  # type: ignore[arg-type]
    )
    log = io.StringIO()
    journal = AccessLog(log, pretty=False, colour=False)
    # No jitter: a backoff takes no time.
    async with App(settings, clock=clock or Clock(jitter=lambda: 0.0), listeners=[journal]) as app:
        app.upstream.accounts_timeout = TIMEOUT
        await app.listen()
        yield Line(app, log)


def problem_in(answer: Message) -> tuple[int, str, str | None]:
    document = json.loads(answer.body)
    assert document["hint"]
    kind = document["type"]
    return answer.head.status, kind.rsplit("/", 1)[-1], answer.head.get("Proxy-Status")


async def together(work: Iterable[Coroutine[None, None, None]], *, at_once: int = 8) -> None:
    """Run what takes long at the same time, but not so much that all of it looks slow on a busy machine."""
    places = asyncio.Semaphore(at_once)

    async def one(each: Coroutine[None, None, None]) -> None:
        async with places:
            await each

    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(one(each))


def nothing_amiss_in(caplog: pytest.LogCaptureFixture) -> None:
    """Hold the program's log to telling no defect of ours, and no secret."""
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []
    no_secret_in(caplog.text)


def no_secret_in(*told: str | bytes) -> None:
    for text in told:
        data = text.encode() if isinstance(text, str) else text
        for secret in (API_KEY, SECRET, PERSON):
            assert secret.encode() not in data


async def fault_is_told(fault: str, ca_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = FAULTS[fault]
    async with row.place() as place, proxied(place.url, ca_file) as line:
        began = time.monotonic()
        answer = await line.ask(row.request)
        took = time.monotonic() - began
        after = get("/v2/good" if place.mend is not None else "/_slproxy/healthz")
        if place.mend is not None:
            await place.mend()
        next_one = await line.ask(after)
    assert problem_in(answer) == (row.status, TYPES[row.status], f"slproxy; error={row.error}"), fault
    assert [(entry["status"], entry["error"], entry["attempts"]) for entry in line.lines()] == [
        (row.status, TYPES[row.status], 1)
    ], fault
    assert row.after - EARLY <= took <= row.after + LATE, fault
    assert next_one.head.status == 200, fault
    no_secret_in(answer.head.raw, answer.body, line.log.getvalue())
    nothing_amiss_in(caplog)


FAST = [name for name, row in FAULTS.items() if not row.after]
SLOW = [name for name, row in FAULTS.items() if row.after]


@pytest.mark.parametrize("fault", FAST)
async def test_a_fault_has_its_one_status_its_error_and_its_line_and_passes(
    fault: str, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await fault_is_told(fault, ca_file, caplog)


async def test_a_fault_that_only_time_tells_is_told_when_its_timeout_is_over(
    ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await together(fault_is_told(fault, ca_file, caplog) for fault in SLOW)


MENDABLE = [name for name in [*FAST, "silence"] if FAULTS[name].place is not nameless]


# A reply that came whole is not asked for again, whatever is in it.
CURED = [name for name in MENDABLE if FAULTS[name].request is ASK and "not UTF-8" not in name]


@pytest.mark.parametrize("fault", CURED)
async def test_a_fault_that_passes_is_never_seen_by_who_gets(fault: str, ca_file: Path) -> None:
    async with FAULTS[fault].place() as place:

        async def sleep(seconds: float) -> None:
            assert place.mend is not None
            await place.mend()

        async with proxied(place.url, ca_file, attempts=2, clock=Clock(sleep=sleep)) as line:
            answer = await line.ask()
    assert (answer.head.status, answer.head.get("X-Slproxy-Attempts")) == (200, "2")


# On accept, it is chance whether a byte was written first.
SENT = [name for name in ANSWERING if name in MENDABLE and "on accept" not in name]


@pytest.mark.parametrize("fault", SENT)
async def test_a_post_that_met_a_fault_after_it_was_sent_is_sent_once(fault: str, ca_file: Path) -> None:
    row = FAULTS[fault]
    request = row.request if row.request is not ASK else get("/v2/fault", method="POST", body=b"{}")
    async with row.place() as place, proxied(place.url, ca_file, attempts=4) as line:
        answer = await line.ask(request, method="POST")
    assert problem_in(answer) == (row.status, TYPES[row.status], f"slproxy; error={row.error}")
    heads = place.inside or place.origin
    assert heads is not None
    assert heads.heads <= 1
    assert line.lines()[0]["attempts"] == 1


async def test_retry_off_shows_the_fault_to_a_client_that_asks_for_it(ca_file: Path) -> None:
    async with scripted(ends(after=0))() as place, proxied(place.url, ca_file, attempts=4) as line:
        answer = await line.ask(get("/v2/fault", "X-Slproxy-Retry: off"))
        assert place.origin is not None
        assert place.origin.heads == 1
    assert problem_in(answer) == (502, "upstream-unreachable", "slproxy; error=connection_terminated")


# Replies that break after their head went down.


def breaks(first: bytes, then: Serve) -> Callable[[asyncio.Event], Serve]:
    """Send the head and something of a body, and go wrong once the client has that."""

    def held(arrived: asyncio.Event) -> Serve:
        async def serve(wire: Wire) -> None:
            await wire.head()
            await wire.send(first)
            await arrived.wait()
            await then(wire)

        return serve

    return held


def sending(data: bytes) -> Serve:
    async def serve(wire: Wire) -> None:
        await wire.send(data)
        await wire.left()

    return serve


def dripping(data: bytes) -> Serve:
    async def serve(wire: Wire) -> None:
        while True:
            await wire.send(data)
            await asyncio.sleep(TIMEOUT / 10)

    return serve


async def resetting(wire: Wire) -> None:
    wire.reset()


async def ending(wire: Wire) -> None:
    pass


SOME = head("Content-Length: 100", body=b"part")
SOME_CHUNKS = head(CHUNKED, body=b"4\r\npart\r\n")
HALF_A_CHUNK = head(CHUNKED, body=b"64\r\npart")
BREAKS: dict[str, tuple[Callable[[asyncio.Event], Serve], float]] = {
    "a reset before a length is reached": (breaks(SOME, resetting), 0.0),
    "an end before a length is reached": (breaks(SOME, ending), 0.0),
    "a reset between chunks": (breaks(SOME_CHUNKS, resetting), 0.0),
    "an end between chunks": (breaks(SOME_CHUNKS, ending), 0.0),
    "a reset inside a chunk": (breaks(HALF_A_CHUNK, resetting), 0.0),
    "an end inside a chunk": (breaks(HALF_A_CHUNK, ending), 0.0),
    "an end inside the last chunk": (breaks(head(CHUNKED, body=b"4\r\npart\r\n0\r\n"), ending), 0.0),
    "a chunk size of letters": (breaks(SOME_CHUNKS, sending(b"zz\r\nmore\r\n")), 0.0),
    "a negative chunk size": (breaks(SOME_CHUNKS, sending(b"-4\r\nmore\r\n")), 0.0),
    "a chunk without its line end": (breaks(SOME_CHUNKS, sending(b"4\r\nmoremore\r\n")), 0.0),
    "a reset of a body until close": (breaks(head(body=b"part"), resetting), 0.0),
    "silence before a length is reached": (breaks(SOME, silent), TIMEOUT),
    "silence between chunks": (breaks(SOME_CHUNKS, silent), TIMEOUT),
    "silence of a body until close": (breaks(head(body=b"part"), silent), TIMEOUT),
}
# Bytes that come, and are none of the body's (RFC 9112 §7.1.1: an extension may be of any length).
STANDSTILLS = {
    "a chunk extension without end": (breaks(SOME_CHUNKS + b"4", dripping(b";a=b")), TIMEOUT),
    "a chunk size without end": (breaks(SOME_CHUNKS, dripping(b"0")), TIMEOUT),
}


async def until_it_ends(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def break_is_told(
    fault: tuple[Callable[[asyncio.Event], Serve], float], ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held, after = fault
    arrived = asyncio.Event()
    async with Origin(held(arrived)) as origin, proxied(f"http://127.0.0.1:{origin.port}", ca_file, attempts=4) as line:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(line.app.urls[0]))
        try:
            async with asyncio.timeout(after + LATE + TIMEOUT):
                writer.write(ASK)
                told = Head(await reader.readuntil(HEAD_END))
                body = await reader.readuntil(b"part")
                began = time.monotonic()
                arrived.set()
                with pytest.raises(ConnectionError):
                    await until_it_ends(reader)
                took = time.monotonic() - began
        finally:
            writer.close()
        assert origin.heads == 1
        origin.serve = good
        next_one = await line.ask(get("/v2/good"))
    assert told.status == 200
    assert after - EARLY <= took <= after + LATE
    assert [(entry["status"], entry.get("ended"), entry["attempts"]) for entry in line.lines()] == [
        (200, "upstream broke off", 1)
    ]
    assert next_one.head.status == 200
    no_secret_in(told.raw, body, line.log.getvalue())
    nothing_amiss_in(caplog)


@pytest.mark.parametrize("fault", [name for name, (_, after) in BREAKS.items() if not after])
async def test_a_body_that_breaks_is_cut_off_and_told_and_not_asked_for_again(
    fault: str, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await break_is_told(BREAKS[fault], ca_file, caplog)


async def test_a_body_that_stops_is_cut_off_when_the_idle_timeout_is_over(
    ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await together(break_is_told(fault, ca_file, caplog) for fault in BREAKS.values() if fault[1])


@pytest.mark.parametrize("fault", STANDSTILLS)
async def test_bytes_that_are_none_of_a_body_do_not_keep_it_alive(
    fault: str, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await break_is_told(STANDSTILLS[fault], ca_file, caplog)


# What is odd and no fault.

ODD: dict[str, tuple[bytes, int, bytes]] = {
    "a header of 9 kB": (head("X-Long: " + "n" * 9000, "Content-Length: 2", body=b"{}"), 200, b"{}"),
    "200 headers": (head(*[f"X-{n}: {n}" for n in range(200)], "Content-Length: 2", body=b"{}"), 200, b"{}"),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}", 200, b"{}"),
    "a status of its own": (head("Content-Length: 2", status="299 Mostly", body=b"{}"), 299, b"{}"),
    "HTTP/1.0 until close": (b"HTTP/1.0 200 OK\r\n\r\n{}", 200, b"{}"),
    "a 100, a 102 and a 103 first": (
        head(status="100 Continue") + head(status="102 Processing") + head("Link: </a>", status="103 Early Hints") + OK,
        200,
        OK.partition(HEAD_END)[2],
    ),
    "a 204 with a length": (head("Content-Length: 5", status="204 No Content"), 204, b""),
    "a 304 with a length": (head("Content-Length: 5", 'ETag: "a"', status="304 Not Modified"), 304, b""),
    "a chunk with an extension": (head(CHUNKED, body=b"2;a=b\r\n{}\r\n0\r\n\r\n"), 200, b"{}"),
    "chunks with trailers": (head(CHUNKED, body=b"2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n"), 200, b"{}"),
    "a header in UTF-8": (head("X-Name: J\u00c3\u00bcrgen", "Content-Length: 0"), 200, b""),
}


@pytest.mark.parametrize("oddity", ODD)
async def test_what_is_odd_and_no_fault_passes(oddity: str, ca_file: Path) -> None:
    data, status, body = ODD[oddity]

    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.send(data)
        if not data.startswith(b"HTTP/1.0"):
            await good(wire)

    async with scripted(serve)() as place, proxied(place.url, ca_file) as line:
        answer = await line.ask()
        next_one = await line.ask(get("/v2/good"))
    assert (answer.head.status, answer.body) == (status, body)
    sent = Head(data.rpartition(b"HTTP/1.")[2].partition(HEAD_END)[0])
    passed = [pair for pair in sent.fields if pair[0] not in ("Content-Length", "Transfer-Encoding")]
    assert [pair for pair in answer.head.fields if pair in passed] == passed
    assert next_one.head.status == 200


async def test_a_long_body_may_take_longer_than_any_timeout_as_long_as_it_moves(ca_file: Path) -> None:
    async def serve(wire: Wire) -> None:
        await wire.head()
        await wire.send(head("Content-Length: 8"))
        for _ in range(8):
            await asyncio.sleep(TIMEOUT / 3)
            await wire.send(b"x")

    async with scripted(serve)() as place, proxied(place.url, ca_file) as line:
        answer = await line.ask()
    assert answer.body == b"x" * 8


STRAY = reply("200 Stray", b"somebody else's")
TOO_MUCH = {
    "more than a length": head("Content-Length: 2", body=b"{}") + STRAY,
    "more than chunks": head(CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n") + STRAY,
    "a 204 with a body": head("Content-Length: 99", status="204 No Content") + STRAY,
    "a 304 with a body": head("Content-Length: 99", status="304 Not Modified") + STRAY,
    "a 204 with junk": head(status="204 No Content") + b"junk\r\n\r\n",
    "junk behind a length": head("Content-Length: 2", body=b"{}") + b"junk\r\n\r\n",
}


@pytest.mark.parametrize("pieces", ["in one piece", "in two"])
@pytest.mark.parametrize("fault", TOO_MUCH)
async def test_what_comes_behind_a_reply_is_nobodys_answer(fault: str, pieces: str, ca_file: Path) -> None:
    """Whatever becomes of the reply itself, the next request has a connection of its own."""
    data = TOO_MUCH[fault]
    first = data.removesuffix(STRAY).removesuffix(b"junk\r\n\r\n")
    arrived = asyncio.Event()

    async def serve(wire: Wire) -> None:
        await wire.head()
        if pieces == "in two":
            await wire.send(first)
            await arrived.wait()
            await wire.send(data[len(first) :])
        else:
            await wire.send(data)
        await wire.left()

    async with scripted(serve)() as place, proxied(place.url, ca_file) as line:
        assert place.origin is not None
        answer = await line.ask()
        place.origin.serve = good
        before = len(place.origin.tape)
        arrived.set()
        next_one = await line.ask(get("/v2/good"))
        assert bytes(place.origin.tape[before:]).startswith(b"GET /v2/good")
    if answer.head.status == 502:
        assert problem_in(answer)[2] == "slproxy; error=http_protocol_error"
        assert pieces == "in one piece"
    else:
        assert answer.head.first.encode() == first.partition(b"\r\n")[0]
        assert answer.body == (b"{}" if answer.head.status == 200 else b"")
    assert (next_one.head.status, next_one.body) == (200, OK.partition(HEAD_END)[2])


# The laws of TLS.


@pytest.mark.parametrize("why", BAD_CERTIFICATES)
async def test_no_byte_of_a_request_leaves_before_the_certificate_is_verified(why: str, ca_file: Path) -> None:
    async with tls(BAD_CERTIFICATES[why])() as place, proxied(place.url, ca_file, attempts=4) as line:
        assert place.origin is not None
        assert place.inside is not None
        answers = [await line.ask(), await line.ask(get("/v2/fault", method="POST", body=b"{}"), method="POST")]
        assert place.origin.connections >= 2
        wire, inside = bytes(place.origin.tape), bytes(place.inside.tape)
    assert [problem_in(answer)[2] for answer in answers] == ["slproxy; error=tls_certificate_error"] * 2
    assert "upstream.ca_file" in json.loads(answers[0].body)["hint"]
    assert wire.startswith(b"\x16\x03")  # there was a handshake (RFC 8446 §5.1)
    assert inside == b""
    assert API_KEY.encode() not in wire
    assert b"/v2/" not in wire


GOOD_CERTIFICATES: dict[str, Callable[[], ssl.SSLContext]] = {
    "of trustme": trusted,
    "handmade": lambda: handmade(issuer=authorities()[0], purpose=SERVER_AUTH, name="127.0.0.1"),
}


@pytest.mark.parametrize("how", GOOD_CERTIFICATES)
async def test_a_certificate_with_none_of_these_flaws_is_accepted(how: str, ca_file: Path) -> None:
    async with tls(GOOD_CERTIFICATES[how])() as place, proxied(place.url, ca_file) as line:
        assert (await line.ask()).head.status == 200


def only(version: ssl.TLSVersion) -> Callable[[], ssl.SSLContext]:
    def make() -> ssl.SSLContext:
        context = trusted()
        context.minimum_version = context.maximum_version = version
        return context

    return make


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
async def test_what_is_verified_carries_requests_both_ways_on_one_connection(
    version: ssl.TLSVersion, ca_file: Path
) -> None:
    large = bytes(range(256)) * 4096

    async def echo(wire: Wire) -> None:
        while True:
            asked = Head((await wire.head())[:-2])
            body = await wire.reader.readexactly(int(asked.get("Content-Length") or 0))
            await wire.send(reply("200 OK", body))

    async with tls(only(version))() as place, proxied(place.url, ca_file) as line:
        assert place.origin is not None
        assert place.inside is not None
        place.inside.serve = echo
        bodies = [b"", b"{}", large]
        got = [(await line.ask(get("/v2/a", method="PUT", body=body), method="PUT")).body for body in bodies]
        small = await line.ask()
        assert place.origin.connections == 1
        wire, inside = bytes(place.origin.tape), bytes(place.inside.tape)
    assert [len(body) for body in got] == [0, 2, len(large)]
    assert got == bodies
    assert small.head.status == 200
    assert f"Authorization: Bearer {API_KEY}".encode() in inside
    assert API_KEY.encode() not in wire


def https(port: int) -> dict[str, str]:
    return {
        "SALESLOFT_API_KEY": API_KEY,
        "SLPROXY_UPSTREAM__API_URL": f"https://localhost:{port}",
        "SLPROXY_STORE__KIND": "memory",
        "SLPROXY_RETRY__ATTEMPTS": "1",
    }


async def test_ca_file_adds_a_private_authority(tmp_path: Path, ca_file: Path) -> None:
    async with Origin(good, tls=trusted()) as origin:
        settings = {**https(origin.port), "SLPROXY_UPSTREAM__CA_FILE": str(ca_file)}
        async with program("serve", "--port", "0", home=tmp_path, env=settings) as running:
            answer = await raw(running.url, ASK)
    assert answer.head.status == 200
    assert origin.heads in (1, 2), "the proxy asks as well, at its start"


async def test_without_ca_file_a_private_authority_is_not_trusted(tmp_path: Path) -> None:
    async with (
        Origin(good, tls=trusted()) as origin,
        program("serve", "--port", "0", home=tmp_path, env=https(origin.port)) as running,
    ):
        answer = await raw(running.url, ASK)
        await running.stop()
    assert problem_in(answer) == (502, "upstream-unreachable", "slproxy; error=tls_certificate_error")
    assert bytes(origin.tape) == b""
    told = [json.loads(line) for line in running.errors if line.startswith("{")]
    assert [line["error"] for line in told if line.get("path") == "/v2/fault"] == ["upstream-unreachable"]
    no_secret_in(running.output, answer.body)


async def test_ca_file_does_not_replace_the_systems_authorities(tmp_path: Path, ca_file: Path) -> None:
    system = tmp_path / "system.pem"
    authorities()[1].cert_pem.write_to_path(system)
    async with (
        Origin(good, tls=serving(authorities()[1].issue_cert("localhost"))) as of_the_system,
        Origin(good, tls=trusted()) as of_ours,
    ):
        settings = {
            # Where OpenSSL looks for the system's authorities (SSL_CTX_set_default_verify_paths(3)).
            "SSL_CERT_FILE": str(system),
            "SLPROXY_UPSTREAM__CA_FILE": str(ca_file),
            "SLPROXY_UPSTREAM__API_URL": f"https://localhost:{of_the_system.port}",
            "SLPROXY_UPSTREAM__ACCOUNTS_URL": f"https://localhost:{of_ours.port}",
            "SALESLOFT_CLIENT_ID": "app",
            "SALESLOFT_CLIENT_SECRET": SECRET,
            "SLPROXY_STORE__KIND": "memory",
        }
        async with program("serve", "--port", "0", home=tmp_path, env=settings) as running:
            answer = await raw(running.url, ASK)
    assert answer.head.status == 200
    assert SECRET.encode() in of_ours.tape
    assert f"Bearer {TOKEN}".encode() in of_the_system.tape


# The accounts host.

CLIENT = AuthSettings(client_id="app", client_secret=Secret(SECRET))


def hurried() -> Clock:
    """Return a clock that goes five times as fast: the pause after a renewal that failed is soon over."""
    return Clock(monotonic=lambda: time.monotonic() * 5, sleep=lambda wait: asyncio.sleep(wait / 5), jitter=lambda: 0.0)


async def token_endpoint_down(fault: str, ca_file: Path) -> None:
    row = FAULTS[fault]
    async with row.place() as place, Origin(good) as api:
        url = f"http://127.0.0.1:{api.port}"
        async with proxied(url, ca_file, accounts=place.url, auth=CLIENT, clock=hurried()) as line:
            began = time.monotonic()
            answer = await line.ask()
            took = time.monotonic() - began
            ready = await line.ask(get("/_slproxy/readyz"))
            if place.mend is not None:
                await place.mend()
                async with asyncio.timeout(PATIENCE):
                    while (await line.ask(get("/v2/good"))).head.status != 200:
                        await asyncio.sleep(0.05)
        sent = bytes(api.tape)
    assert problem_in(answer) == (503, "token-endpoint-down", "slproxy; error=destination_unavailable"), fault
    assert (ready.head.status, json.loads(ready.body)["type"]) == (503, "token-endpoint-down"), fault
    assert int(answer.head.get("Retry-After") or 0) >= 1, fault
    assert [(entry["status"], entry["error"]) for entry in line.lines()] == [(503, "token-endpoint-down")], fault
    assert b"/v2/fault" not in sent, fault
    # A renewal takes four tries at most.
    assert took <= 4 * row.after + LATE, fault
    no_secret_in(answer.head.raw, answer.body, line.log.getvalue())


async def test_a_fault_of_the_token_endpoint_is_told_as_one_and_passes(
    ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    slow = [name for name in SLOW if FAULTS[name].status == 504 and name != "silence"]
    names = [name for name in FAULTS if FAULTS[name].request is ASK and name not in slow]
    assert len(names) > 40
    await together(token_endpoint_down(name, ca_file) for name in names)
    nothing_amiss_in(caplog)


@pytest.mark.parametrize("why", BAD_CERTIFICATES)
async def test_no_byte_of_a_client_secret_leaves_before_the_certificate_is_verified(why: str, ca_file: Path) -> None:
    async with tls(BAD_CERTIFICATES[why])() as place, Origin(good) as api:
        url = f"http://127.0.0.1:{api.port}"
        async with proxied(url, ca_file, accounts=place.url, auth=CLIENT) as line:
            answer = await line.ask()
        assert place.origin is not None
        assert place.inside is not None
        assert place.origin.tape.startswith(b"\x16\x03")
        assert SECRET.encode() not in place.origin.tape
        assert place.inside.tape == b""
    assert answer.head.status == 503


# Starting, and connections that end while they are idle.


async def test_a_start_with_everything_upstream_down_works_and_what_comes_up_is_used(tmp_path: Path) -> None:
    async with refused() as api, refused() as accounts:
        settings = {
            "SLPROXY_UPSTREAM__API_URL": api.url,
            "SLPROXY_UPSTREAM__ACCOUNTS_URL": accounts.url,
            "SALESLOFT_CLIENT_ID": "app",
            "SALESLOFT_CLIENT_SECRET": SECRET,
            "SLPROXY_STORE__KIND": "memory",
        }
        async with program("serve", "--port", "0", home=tmp_path, env=settings) as running:
            pages = [await raw(running.url, get(f"/_slproxy/{page}")) for page in ("healthz", "readyz")]
            answer = await raw(running.url, ASK)
            for place in (api, accounts):
                assert place.mend is not None
                await place.mend()
            async with asyncio.timeout(PATIENCE):
                while (ready := await raw(running.url, get("/_slproxy/readyz"))).head.status != 200:
                    await asyncio.sleep(0.1)
            later = await raw(running.url, ASK)
            assert await running.stop() == 0
    assert [page.head.status for page in pages] == [200, 503]
    assert problem_in(answer)[:2] == (503, "token-endpoint-down")
    assert (ready.head.status, later.head.status) == (200, 200)
    no_secret_in(running.output, answer.body)


IDLE = 0.3
GAPS = [IDLE - 0.02 + 0.001 * number for number in range(41)]
ROUNDS = 8


async def test_connections_that_end_while_idle_fail_no_get_and_double_no_post(tmp_path: Path) -> None:
    """docs/hazards.md, U2. The proxy is a process of its own, so that its last look and a connection's end race."""
    carried_out: Counter[str] = Counter()
    together = asyncio.Barrier(len(GAPS))
    ended = reused = 0

    async def impatient(wire: Wire) -> None:
        nonlocal ended, reused
        for number in range(1_000_000):
            try:
                async with asyncio.timeout(IDLE):
                    asked = Head((await wire.head())[:-2])
            except TimeoutError:
                ended += 1
                return
            reused += number > 0
            await wire.reader.readexactly(int(asked.get("Content-Length") or 0))
            carried_out[asked.target] += 1
            if asked.target.startswith("/v2/first"):
                await together.wait()  # so that there are as many connections as gaps, all idle from now on
            await wire.send(OK)

    async def client(lane: int, gap: float, url: str) -> list[tuple[str, str, int]]:
        got = []
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
        for turn in range(ROUNDS):
            for what, wait in (("first", 0.0), ("probe", gap)):
                method = "POST" if what == "probe" and (lane + turn) % 2 else "GET"
                target = f"/v2/{what}/{lane}/{turn}"
                await asyncio.sleep(wait)
                writer.write(get(target, method=method, body=b"{}" if method == "POST" else b""))
                async with asyncio.timeout(PATIENCE):
                    got.append((method, target, (await read_message(reader)).head.status))
        writer.close()
        return got

    async with Origin(impatient) as origin:
        settings = {
            "SALESLOFT_API_KEY": API_KEY,
            "SLPROXY_UPSTREAM__API_URL": f"http://127.0.0.1:{origin.port}",
            "SLPROXY_STORE__KIND": "memory",
            "SLPROXY_PACE__MODE": "off",
        }
        async with program("serve", "--port", "0", home=tmp_path, env=settings) as running:
            lanes = await asyncio.gather(*(client(lane, gap, running.url) for lane, gap in enumerate(GAPS)))
    results = [result for lane in lanes for result in lane]
    assert Counter(status for method, _, status in results if method == "GET") == {200: len(GAPS) * ROUNDS * 3 // 2}
    posts = {target: status for method, target, status in results if method == "POST"}
    assert set(posts.values()) <= {200, 502}
    assert [target for target in posts if carried_out[target] > 1] == []
    assert [target for target, status in posts.items() if status == 200 and carried_out[target] != 1] == []
    # Both happened, on either side of the gap.
    assert ended > len(GAPS)
    assert reused > len(GAPS)
