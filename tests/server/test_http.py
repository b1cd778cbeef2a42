"""docs/contract.md from the two sockets: what goes up as it came, what comes down as it came, what is refused."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest

from slproxy.app import App
from slproxy.config import LimitSettings, ListenSettings, Secret, Settings
from slproxy.config.schema import PolicySettings, UpstreamSettings
from tests.support.rig import (
    API_KEY,
    FakeTime,
    Handler,
    Head,
    Message,
    ScriptedUpstream,
    get,
    port_of,
    proxy,
    raw,
    read_message,
    replies,
    reply,
    settings_for,
    until,
)

# Nothing here takes a second, even on a machine that is busy.
SOON = 5.0
LOCAL_KEY = "local-key-7f3a"


@dataclass
class Clients:
    """The clients of one proxy; their connections are closed with it, however a test ends."""

    app: App
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        return self.app.urls


@asynccontextmanager
async def pair(
    script: Handler | None = None,
    *,
    whole: bool = True,
    policy: PolicySettings | None = None,
    limits: LimitSettings | None = None,
    listen: ListenSettings | None = None,
    response_timeout: float = 60.0,
    idle_timeout: float = 60.0,
) -> AsyncIterator[tuple[ScriptedUpstream, Clients]]:
    """Run an upstream that follows ``script``, and a proxy with an API key before it; waits cost no time."""
    async with ScriptedUpstream(script, whole=whole) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(
            settings,
            policy=policy or settings.policy,
            limits=limits or settings.limits,
            listen=listen or settings.listen,
            upstream=replace(settings.upstream, response_timeout=response_timeout, idle_timeout=idle_timeout),
        )
        async with proxy(settings, clock=FakeTime().clock()) as app:
            clients = Clients(app)
            try:
                yield upstream, clients
            finally:
                for writer in clients.writers:
                    await close(writer)


def problem(message: Message, *, status: int, kind: str) -> dict[str, object]:
    """Hold a reply to the shape of the proxy's own errors, and return its document."""
    assert message.head.status == status, message.body
    assert message.head.get("Content-Type") == "application/problem+json"
    assert re.match(r"slproxy; error=[a-z_]+", message.head.get("Proxy-Status") or "")
    document = json.loads(message.body)
    assert isinstance(document, dict)
    assert document["type"].rsplit("/", 1)[-1] == kind
    assert document["status"] == status
    for name in ("title", "detail", "hint", "error"):
        assert isinstance(document[name], str), name
        assert document[name], name
    assert API_KEY not in message.body.decode()
    return document


async def opened(clients: Clients) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(clients.urls[0]), limit=2**20)
    clients.writers.append(writer)
    return reader, writer


async def asked(url: str, request: bytes, *, method: str = "GET") -> Message:
    return await raw(url, request, method=method, timeout=SOON)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST."""
    peer = writer.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# The target.


@pytest.mark.parametrize(
    "target",
    [
        r"/v2/people?x=%2F%2f&y=a+b&z=%zz&&q=[]{}\|^",
        "/v2/a%2Db%20c%C3%A9~%7e",
        "/v2/%252e%252e/x",
        "/v2/people.json?ids[]=1&ids[]=2&q=a+b%20c%2F&updated_at[gt]=2026-01-01T00:00:00.000000-05:00",
        "/v2/people?",
        "/v2/people?a=b?c/../d",
        "/v2/?",
        "/v2/",
        "/v2/a//b/",
        "/v2/people;v=1/x:y@z!$&'()*+,=",
        "/v2/people?q='\"<>`",
        "/v2/...",
        "/v2/..a/.b",
        "/v2/people?next=http://x/../y&e=%00%0d%0a",
        "/v2/people?q=%E2%82%AC&&&=&=",
        "/v2/" + "a" * 8000 + "?" + "b" * 20000,
    ],
)
async def test_a_target_reaches_the_upstream_byte_for_byte(target: str) -> None:
    async with pair() as (upstream, app):
        response = await asked(app.urls[0], get(target))
        assert response.head.status == 200, response.body
    assert upstream.seen[0].head.first == f"GET {target} HTTP/1.1"


async def test_raw_utf8_in_a_query_reaches_the_upstream_byte_for_byte() -> None:
    async with pair() as (upstream, app):
        response = await asked(app.urls[0], get("/v2/people?q=é€"))
        assert response.head.status in (200, 400)
    if response.head.status == 200:
        assert upstream.seen[0].head.raw.startswith("GET /v2/people?q=é€ HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "target",
    [
        "/v2/%2e%2e/x",
        "/v2/.%2e/x",
        "/v2/%2E./x",
        "/v2/./x",
        "/v2/x/..",
        "/v2/x/.",
        "/v2/..%2fx",
        "/v2/..%5cx",
        "/v2/..;/x",
        "/v2/..;a=b",
        "/v2/%2e%3b/x",
        "/v2/x\\..\\y",
        "/v2/a\\b",
        "/v2/a%00b",
        "/v2/a%0ab",
        "/v2/a%7fb",
        "/v2/a%zzb",
        "/v2/a%4",
        "/v2/a%",
        "/v2/a#b",
        "/v2/a?b#c",
        "//evil.test/v2/a",
        "//v2/a",
        "v2/a",
    ],
)
async def test_a_target_that_servers_read_differently_is_refused_and_nothing_goes_up(target: str) -> None:
    async with pair() as (upstream, app):
        response = await asked(app.urls[0], get(target))
        document = problem(response, status=400, kind=json.loads(response.body)["type"])
        assert document["type"] in ("bad-target", "bad-request")
        assert (await asked(app.urls[0], get("/v2/a"))).head.status == 200
    assert len(upstream.seen) == 1
    assert upstream.connections == 1


async def test_an_absolute_target_that_names_this_proxy_goes_up_in_origin_form() -> None:
    async with pair() as (upstream, app):
        port = port_of(app.urls[0])
        for name in ("127.0.0.1", "localhost", "[::1]"):
            response = await asked(app.urls[0], get(f"http://{name}:{port}/v2/a?b=//c", host=f"{name}:{port}"))
            assert response.head.status == 200
    assert {message.head.first for message in upstream.seen} == {"GET /v2/a?b=//c HTTP/1.1"}
    assert {message.head.get("Host") for message in upstream.seen} == {upstream.url.removeprefix("http://")}


@pytest.mark.parametrize(
    "target",
    ["http://evil.test/v2/a", "http://localhost@evil.test/v2/a", "http://api.salesloft.com/v2/me", "http://127.1/v2/a"],
)
async def test_an_absolute_target_of_another_host_is_421(target: str) -> None:
    async with pair() as (upstream, app):
        problem(await asked(app.urls[0], get(target)), status=421, kind="host-refused")
    assert upstream.seen == []


@pytest.mark.parametrize("target", ["/", "/v2", "/v1/me", "/oauth/token", "/V2/me", "/v22/me", "/_slproxy/nothing"])
async def test_a_path_that_is_not_accepted_is_404_and_the_hint_names_one_that_exists(target: str) -> None:
    async with pair() as (upstream, app):
        document = problem(await asked(app.urls[0], get(target)), status=404, kind="not-found")
        assert "/v2/" in str(document["hint"]) or "/_slproxy/" in str(document["hint"])
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("name", "nearest"), [("helthz", "healthz"), ("health", "healthz"), ("ready", "readyz"), ("status", "status.json")]
)
async def test_a_mistyped_own_page_is_404_and_the_hint_names_the_nearest(name: str, nearest: str) -> None:
    async with pair() as (_, app):
        document = problem(await asked(app.urls[0], get(f"/_slproxy/{name}")), status=404, kind="not-found")
        assert str(document["hint"]).startswith(f"Did you mean /_slproxy/{nearest}?")
        far = problem(await asked(app.urls[0], get("/_slproxy/x")), status=404, kind="not-found")
        assert "Did you mean" not in str(far["hint"])


async def test_a_rejected_path_is_404_in_any_spelling() -> None:
    async with pair(policy=PolicySettings(reject_paths=("/v2/people",))) as (upstream, app):
        for target in ("/v2/people", "/v2/people/1.json", "/v2/%70eople", "/v2/peopl%65/1"):
            problem(await asked(app.urls[0], get(target)), status=404, kind="not-found")
        assert (await asked(app.urls[0], get("/v2/accounts"))).head.status == 200
    assert [message.head.target for message in upstream.seen] == ["/v2/accounts"]


async def test_a_target_over_the_limit_is_414_however_far_over() -> None:
    async with pair() as (upstream, app):
        for size in (32 * 1024 + 1, 40 * 1024, 200 * 1024):
            problem(await asked(app.urls[0], get("/v2/" + "a" * (size - 4))), status=414, kind="too-large")
    assert upstream.seen == []


async def test_a_target_at_the_limit_passes() -> None:
    async with pair() as (upstream, app):
        target = "/v2/" + "a" * (32 * 1024 - 4)
        assert (await asked(app.urls[0], get(target))).head.status == 200
    assert upstream.seen[0].head.target == target


@pytest.mark.parametrize(
    "headers",
    [
        ["X-Big: " + "a" * 70_000],
        [f"X-{number}: " + "a" * 4096 for number in range(20)],
        [f"X-{number}: a" for number in range(9000)],
    ],
    ids=["one header", "twenty headers of 4 KiB", "nine thousand small ones"],
)
async def test_a_header_block_over_the_limit_is_431(headers: list[str]) -> None:
    async with pair() as (upstream, app):
        problem(await asked(app.urls[0], get("/v2/a", *headers)), status=431, kind="too-large")
    assert upstream.seen == []


async def test_a_header_block_of_60_kib_passes() -> None:
    async with pair() as (upstream, app):
        response = await asked(app.urls[0], get("/v2/a", *[f"X-{number}: " + "a" * 2000 for number in range(30)]))
        assert response.head.status == 200
    assert upstream.seen[0].head.get("X-29") == "a" * 2000


# Methods.


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
async def test_the_methods_of_the_contract_pass(method: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=b"" if message.head.method == "HEAD" else b"{}"))

    async with pair(script) as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", method=method), method=method)).head.status == 200
    assert upstream.seen[0].head.method == method


@pytest.mark.parametrize("target", ["/v2/a", "evil.test:443"])
@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_trace_and_connect_are_405_with_allow(method: str, target: str) -> None:
    async with pair() as (upstream, app):
        if (method, target) == ("TRACE", "evil.test:443"):
            return
        response = await asked(app.urls[0], get(target, method=method))
        problem(response, status=405, kind="method-refused")
        assert "GET" in (response.head.get("Allow") or "")
    assert upstream.seen == []


@pytest.mark.parametrize("method", ["PROPFIND", "FOO", "get", "QUERY", "LOCK"])
async def test_an_unknown_method_is_501(method: str) -> None:
    async with pair() as (upstream, app):
        problem(await asked(app.urls[0], get("/v2/a", method=method)), status=501, kind="method-refused")
    assert upstream.seen == []


@pytest.mark.parametrize(
    "request_line", ["PRI * HTTP/2.0", "OPTIONS * HTTP/1.1", "CONNECT evil.test:443 HTTP/1.1", "GET /v2/a HTTP/2.0"]
)
async def test_what_is_no_request_for_a_reverse_proxy_is_refused_and_what_follows_is_no_request(
    request_line: str,
) -> None:
    async with pair() as (upstream, app):
        smuggled = get("/v2/smuggled")
        head = f"{request_line}\r\nHost: localhost\r\n\r\n".encode()
        response = await asked(app.urls[0], head + b"SM\r\n\r\n" + smuggled)
        assert 400 <= response.head.status < 600
        assert (response.head.get("Proxy-Status") or "").startswith("slproxy; error=")
        assert (await asked(app.urls[0], get("/v2/a"))).head.status == 200
    assert [message.head.target for message in upstream.seen] == ["/v2/a"]


async def test_read_only_lets_reads_pass_and_refuses_writes_with_allow() -> None:
    async with pair(policy=PolicySettings(read_only=True)) as (upstream, app):
        for method in ("GET", "OPTIONS"):
            assert (await asked(app.urls[0], get("/v2/a", method=method))).head.status == 200
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            response = await asked(app.urls[0], get("/v2/a", method=method, body=b"{}"))
            problem(response, status=405, kind="method-refused")
            allowed = [name.strip() for name in (response.head.get("Allow") or "").split(",")]
            assert allowed == ["GET", "HEAD", "OPTIONS"]
    assert [message.head.method for message in upstream.seen] == ["GET", "OPTIONS"]


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "TRACE"])
async def test_an_own_page_says_that_it_is_only_read(method: str, read_only: bool) -> None:
    async with pair(policy=PolicySettings(read_only=read_only)) as (_, app):
        for page in ("healthz", "status.json"):
            response = await asked(app.urls[0], get(f"/_slproxy/{page}", method=method))
            problem(response, status=405, kind="method-refused")
            assert response.head.all("Allow") == ["GET, HEAD"]


# Who may ask.


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:65535", "127.9.9.9", "[::1]:80", "[::1]"])
async def test_a_loopback_host_with_any_port_is_ours(host: str) -> None:
    async with pair() as (_, app):
        assert (await asked(app.urls[0], get("/v2/a", host=host))).head.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost.evil.com",
        "localhost@evil",
        "127.1",
        "0.0.0.0",
        "0",
        "2130706433",
        "0x7f.1",
        "localhost:99999",
        "localhost:8o",
        "[::ffff:1.2.3.4]",
        "127.0.0.1.evil.com",
        "evil.com",
        "localhost, evil.com",
        "localhost/evil",
        "",
    ],
)
async def test_another_host_is_refused_and_nothing_goes_up(host: str) -> None:
    async with pair() as (upstream, app):
        response = await asked(app.urls[0], get("/v2/a", host=host))
        problem(response, status=response.head.status, kind=json.loads(response.body)["type"])
        assert response.head.status in (400, 421)
    assert upstream.seen == []


async def test_a_name_in_accept_hosts_is_ours_in_any_case_and_others_are_421() -> None:
    async with pair(listen=ListenSettings(port=0, accept_hosts=("Proxy.Test",))) as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", host="proxy.test:8080"))).head.status == 200
        problem(await asked(app.urls[0], get("/v2/a", host="x.proxy.test")), status=421, kind="host-refused")
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v2/a HTTP/1.1\r\n\r\n",
        b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\n\r\n",
        b"GET http://localhost/v2/a HTTP/1.1\r\n\r\n",
    ],
    ids=["none", "twice the same", "two", "absolute target without Host"],
)
async def test_a_request_needs_exactly_one_host(request_bytes: bytes) -> None:
    async with pair() as (upstream, app):
        problem(await asked(app.urls[0], request_bytes), status=400, kind="bad-request")
    assert upstream.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        ["Origin: https://evil.test"],
        ["Origin: null"],
        ["Origin: http://localhost:9999"],
        ["Origin: https://localhost:8642"],
        ["Origin: http://localhost:8642.evil.test"],
        ["Origin:"],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: Cross-Site"],
        ["Origin: http://localhost:8642", "Sec-Fetch-Site: cross-site"],
        ["Origin: http://localhost:8642", "Origin: https://evil.test"],
    ],
)
async def test_a_web_page_of_another_origin_is_403(headers: list[str]) -> None:
    async with pair() as (upstream, app):
        for target in ("/v2/a", "/_slproxy/status.json"):
            response = await asked(app.urls[0], get(target, *headers, host="localhost:8642"))
            problem(response, status=403, kind="origin-refused")
            assert not [name for name, _ in response.head.fields if name.lower().startswith("access-control")]
    assert upstream.seen == []


async def test_a_page_of_the_very_host_or_of_an_allowed_origin_may_ask() -> None:
    async with pair(listen=ListenSettings(port=0, allow_origins=("https://app.test",))) as (upstream, app):
        for headers in (
            ["Origin: http://localhost:8642"],
            ["Origin: https://app.test"],
            ["Sec-Fetch-Site: same-origin"],
            ["Sec-Fetch-Site: none"],
        ):
            assert (await asked(app.urls[0], get("/v2/a", *headers, host="localhost:8642"))).head.status == 200
    assert len(upstream.seen) == 4


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["X-Slproxy-Key: wrong"],
        [f"X-Slproxy-Key: {LOCAL_KEY}x"],
        ["X-Slproxy-Key: é"],
        ["X-Slproxy-Key:"],
        ["Authorization: Bearer wrong"],
        ["Authorization: Basic !!!"],
        ["Authorization: Basic bG9jYWwta2V5LTdmM2E="],
        [f"Authorization: {LOCAL_KEY}"],
    ],
)
async def test_a_missing_or_wrong_local_key_is_401_with_a_challenge(headers: list[str]) -> None:
    async with pair(listen=ListenSettings(port=0, key=Secret(LOCAL_KEY))) as (upstream, app):
        for target in ("/v2/a", "/_slproxy/status.json"):
            response = await asked(app.urls[0], get(target, *headers))
            problem(response, status=401, kind="key-required")
            assert response.head.all("WWW-Authenticate")
            assert LOCAL_KEY.encode() not in response.body
    assert upstream.seen == []


@pytest.mark.parametrize(
    "header",
    [
        f"X-Slproxy-Key: {LOCAL_KEY}",
        f"x-slproxy-key: {LOCAL_KEY}",
        f"Authorization: Bearer {LOCAL_KEY}",
        f"authorization: bearer {LOCAL_KEY}",
        "Authorization: Basic dXNlcjpsb2NhbC1rZXktN2YzYQ==",
        "Authorization: Basic OmxvY2FsLWtleS03ZjNh",
    ],
)
async def test_the_local_key_opens_and_never_goes_up(header: str) -> None:
    async with pair(listen=ListenSettings(port=0, key=Secret(LOCAL_KEY))) as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", header))).head.status == 200
    head = upstream.seen[0].head
    assert head.all("Authorization") == [f"Bearer {API_KEY}"]
    assert LOCAL_KEY.encode() not in head.raw
    assert header.rsplit(" ", maxsplit=1)[-1].encode() not in head.raw


async def test_a_local_key_that_is_not_ascii_opens_too() -> None:
    async with pair(listen=ListenSettings(port=0, key=Secret("schlüssel-ключ"))) as (_, app):
        assert (await asked(app.urls[0], get("/v2/a", "X-Slproxy-Key: schlüssel-ключ"))).head.status == 200


async def test_the_probes_need_no_key_and_no_host_of_ours() -> None:
    async with pair(listen=ListenSettings(port=0, key=Secret(LOCAL_KEY))) as (_, app):
        for page in ("healthz", "readyz"):
            assert (await asked(app.urls[0], get(f"/_slproxy/{page}", host="10.1.2.3:8642"))).head.status == 200


async def test_a_request_that_has_been_through_this_process_is_508() -> None:
    async with pair() as (upstream, app):
        await asked(app.urls[0], get("/v2/a", "Via: 1.1 x"))
        via = ", ".join(upstream.seen[0].head.all("Via"))
        assert via.startswith("1.1 x, 1.1 ")
        for headers in ([f"Via: {via}"], ["Via: 1.0 y", f"Via: {via.split(', ')[1]} (comment), 1.1 z"]):
            problem(await asked(app.urls[0], get("/v2/a", *headers)), status=508, kind="loop")
    assert len(upstream.seen) == 1


async def test_a_proxy_whose_upstream_is_itself_answers_508() -> None:
    async with proxy(settings_for("http://127.0.0.1:1")) as app:
        settings = settings_for(app.urls[0])
    port = port_of(app.urls[0])
    settings = replace(settings, listen=ListenSettings(port=port))
    async with proxy(settings, clock=FakeTime().clock()) as app:
        problem(await asked(app.urls[0], get("/v2/a")), status=508, kind="loop")


@pytest.mark.parametrize(
    "lines",
    [
        b"X-A: 1\r\n folded\r\n",
        b"X-A : 1\r\n",
        b": x\r\n",
        b"X-A: a\x00b\r\n",
        b"X-A: a\rb\r\n",
        b"X A: 1\r\n",
        b"X-A\r\n",
    ],
)
async def test_headers_that_do_not_parse_are_400_and_the_connection_ends(lines: bytes) -> None:
    async with pair() as (upstream, app):
        request = b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n"
        response = await asked(app.urls[0], request + get("/v2/smuggled"))
        document = problem(response, status=400, kind="bad-request")
        assert "aiohttp" not in response.head.raw.decode().lower()
        assert "aiohttp" not in json.dumps(document).lower()
    assert upstream.seen == []


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 2,2",
        "Content-Length: +2",
        "Content-Length: -1",
        "Content-Length: 0x2",
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked, identity",
    ],
)
async def test_ambiguous_framing_is_refused_and_the_connection_ends(lines: str) -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        head = f"POST /v2/a HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n".encode()
        writer.write(head + b"0\r\n\r\n" + get("/v2/smuggled"))
        response = await read_message(reader)
        assert response.head.status in (400, 501), response.head.raw
        problem(response, status=response.head.status, kind=json.loads(response.body)["type"])
        async with asyncio.timeout(SOON):
            assert await reader.read() == b""
    assert upstream.seen == []


@pytest.mark.parametrize(
    "body",
    [
        b"0x2\r\nab\r\n0\r\n\r\n",
        b"-2\r\nab\r\n0\r\n\r\n",
        b"2\nab\n0\n\n",
        b"2\r\nabc\r\n0\r\n\r\n",
    ],
)
async def test_chunks_that_do_not_parse_are_refused_and_never_look_whole_upstream(body: bytes) -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(b"POST /v2/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        response = await read_message(reader)
        problem(response, status=400, kind="bad-request")
        assert (await asked(app.urls[0], get("/v2/ok"))).head.status == 200
    assert [message.head.target for message in upstream.seen] == ["/v2/ok"]


# What goes up.


async def test_headers_keep_their_order_repeats_case_and_bytes() -> None:
    sent = [
        ("X-One", "1"),
        ("accept", "text/plain"),
        ("X-RePeAt", "a"),
        ("x-middle", "m, n"),
        ("X-RePeAt", "b"),
        ("Accept", "*/*"),
        ("X-Empty", ""),
        ("Content-Type", "application/json; charset=UTF-8"),
        ("If-None-Match", 'W/"é"'),
        ("X-RePeAt", "a"),
        ("User-Agent", "mine/1"),
        ("Accept-Encoding", "gzip;q=1, *;q=0"),
        ("Range", "bytes=0-1"),
        ("Prefer", "respond-async"),
    ]
    async with pair() as (upstream, app):
        await asked(app.urls[0], get("/v2/a", *[f"{name}: {value}" for name, value in sent]))
    head = upstream.seen[0].head
    lines = [line for line in head.raw.decode().split("\r\n")[1:] if line]
    ours = ("host", "authorization", "via")
    assert [line for line in lines if line.split(":")[0].lower() not in ours] == [
        f"{name}: {value}" for name, value in sent
    ]


async def test_a_bare_request_gets_nothing_but_host_authorization_and_via() -> None:
    async with pair() as (upstream, app):
        await asked(app.urls[0], get("/v2/a"))
        await asked(app.urls[0], get("/v2/a", method="DELETE"))
        await asked(app.urls[0], get("/v2/a", method="POST"))
        await asked(app.urls[0], get("/v2/a", method="PUT"))
    for message in upstream.seen:
        assert sorted(name.lower() for name, _ in message.head.fields) == ["authorization", "host", "via"]
        assert message.head.get("Host") == upstream.url.removeprefix("http://")
        assert message.head.get("Authorization") == f"Bearer {API_KEY}"
        assert message.body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
async def test_a_length_of_zero_stays(method: str) -> None:
    async with pair() as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", "Content-Length: 0", method=method))).head.status == 200
    head = upstream.seen[0].head
    assert head.all("Content-Length") == ["0"]
    assert head.all("Transfer-Encoding") == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"])
@pytest.mark.parametrize("size", [1, 70_000, 2_000_000])
async def test_a_body_with_a_length_goes_up_with_that_length(method: str, size: int) -> None:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    async with pair() as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", method=method, body=body))).head.status == 200
    message = upstream.seen[0]
    assert message.body == body
    assert message.head.all("Content-Length") == [str(size)]
    assert message.head.all("Transfer-Encoding") == []
    assert message.head.all("Content-Type") == []


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.mark.parametrize("chunks", [(), (b"a",), (b"ab" * 40_000, b"c", b"d" * 100_000)], ids=["empty", "one", "many"])
async def test_a_chunked_body_goes_up_whole_and_chunked(chunks: tuple[bytes, ...]) -> None:
    async with pair() as (upstream, app):
        request = get("/v2/a", "Transfer-Encoding: chunked", method="POST") + chunked(*chunks)
        assert (await asked(app.urls[0], request)).head.status == 200
    message = upstream.seen[0]
    assert message.body == b"".join(chunks)
    assert message.head.all("Transfer-Encoding") == ["chunked"]
    assert message.head.all("Content-Length") == []


async def test_trailers_of_a_request_stop_here() -> None:
    async with pair() as (upstream, app):
        request = get("/v2/a", "Transfer-Encoding: chunked", "Trailer: X-T", method="POST")
        response = await asked(app.urls[0], request + b"2\r\nab\r\n0\r\nX-T: secret-trailer\r\n\r\n")
        assert response.head.status == 200
        assert (await asked(app.urls[0], get("/v2/b"))).head.status == 200
    assert upstream.seen[0].body == b"ab"
    assert upstream.seen[0].head.get("Trailer") is None


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_a_gzip_body_goes_up_as_it_came(framing: str) -> None:
    body = gzip.compress(b'{"a": 1}' * 1000)
    async with pair() as (upstream, app):
        if framing == "length":
            request = get("/v2/a", "Content-Encoding: gzip", method="POST", body=body)
        else:
            head = get("/v2/a", "Content-Encoding: gzip", "Transfer-Encoding: chunked", method="POST")
            request = head + chunked(body[:20], body[20:])
        assert (await asked(app.urls[0], request)).head.status == 200
    assert upstream.seen[0].body == body
    assert upstream.seen[0].head.all("Content-Encoding") == ["gzip"]


STOPPED = [
    "Authorization: Bearer theirs-marker",
    "authorization: Basic theirs-marker",
    "Authorization_: theirs-marker",
    "Proxy-Authorization: theirs-marker",
    "Proxy_Authorization: theirs-marker",
    "Proxy-Connection: theirs-marker",
    "Proxy-Anything: theirs-marker",
    "Cookie: a=theirs-marker",
    "cookie: b=theirs-marker",
    "Forwarded: for=theirs-marker",
    "X-Forwarded-For: theirs-marker",
    "X-Forwarded-Host: theirs-marker",
    "X_Forwarded_Proto: theirs-marker",
    "x-forwarded-anything: theirs-marker",
    "X-Real-IP: theirs-marker",
    "X_Real_IP: theirs-marker",
    "X-Slproxy-Retry: theirs-marker",
    "x-slproxy-whatever: theirs-marker",
    "Keep-Alive: theirs-marker",
    "TE: theirs-marker",
    "Trailer: theirs-marker",
    "Upgrade: theirs-marker",
]


@pytest.mark.parametrize("line", [line for line in STOPPED if not line.startswith("Authorization_")])
async def test_what_is_the_clients_alone_stops_here(line: str) -> None:
    async with pair() as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", line, "X-Kept: 1"))).head.status == 200
    head = upstream.seen[0].head
    assert b"theirs-marker" not in head.raw
    assert head.all("X-Kept") == ["1"]
    assert [value for name, value in head.fields if name.lower().replace("_", "-") == "authorization"] == [
        f"Bearer {API_KEY}"
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["Connection: close, X-Foo"],
        ["Connection:", "Connection: x-foo"],
        ["Connection: keep-alive", "Connection: X-FOO , y"],
    ],
)
async def test_what_connection_names_is_hop_by_hop(lines: list[str]) -> None:
    async with pair() as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", *lines, "X-Foo: 1", "X-Bar: 2"))).head.status == 200
    head = upstream.seen[0].head
    assert head.all("X-Foo") == []
    assert head.all("X-Bar") == ["2"]
    assert head.all("Connection") == []


async def test_a_client_cannot_strip_what_is_ours_by_naming_it_in_connection() -> None:
    async with pair() as (upstream, app):
        named = "Content-Length, Host, Authorization, Via, Transfer-Encoding"
        request = get("/v2/a", f"Connection: {named}", method="POST", body=b"abc")
        assert (await asked(app.urls[0], request)).head.status == 200
    message = upstream.seen[0]
    assert message.body == b"abc"
    assert message.head.all("Authorization") == [f"Bearer {API_KEY}"]
    assert message.head.all("Host") == [upstream.url.removeprefix("http://")]
    assert len(message.head.all("Via")) == 1


async def test_a_header_that_cannot_be_passed_on_exactly_is_refused() -> None:
    async with pair() as (upstream, app):
        request = b"GET /v2/a HTTP/1.1\r\nHost: localhost\r\nX-Latin: caf\xe9\r\n\r\n"
        response = await asked(app.urls[0], request)
        if response.head.status != 200:
            problem(response, status=400, kind="bad-request")
    if upstream.seen:
        assert b"X-Latin: caf\xe9\r\n" in upstream.seen[0].head.raw


async def test_an_upgrade_is_not_passed_on_and_what_follows_is_no_tunnel() -> None:
    async with pair() as (upstream, app):
        request = get("/v2/a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        response = await asked(app.urls[0], request)
        assert response.head.status == 200
        assert (await asked(app.urls[0], get("/v2/b"))).head.status == 200
    assert [message.head.all("Upgrade") for message in upstream.seen] == [[], []]


# Expect: 100-continue.


@pytest.mark.parametrize("size", [5, 300_000])
async def test_continue_is_said_by_the_proxy_and_expect_never_goes_up(size: int) -> None:
    body = b"x" * size
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        head = get("/v2/a", "Expect: 100-continue", f"Content-Length: {size}", method="POST")
        writer.write(head)
        async with asyncio.timeout(SOON):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await read_message(reader)).head.status == 200
    assert upstream.seen[0].head.all("Expect") == []
    assert upstream.seen[0].body == body


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/v2/../x", [], 400),
        ("/nothing", [], 404),
        ("/v2/a", ["Origin: https://evil.test"], 403),
        ("/v2/a", ["X-Slproxy-Key: wrong"], 401),
    ],
)
async def test_a_request_that_is_refused_gets_no_continue(target: str, headers: list[str], status: int) -> None:
    async with pair(listen=ListenSettings(port=0, key=Secret(LOCAL_KEY))) as (upstream, app):
        key = [] if status == 401 else [f"X-Slproxy-Key: {LOCAL_KEY}"]
        request = get(target, "Expect: 100-continue", "Content-Length: 100000", *key, *headers, method="POST")
        response = await asked(app.urls[0], request)
        assert response.head.status == status
    assert upstream.seen == []


async def test_a_client_that_does_not_wait_for_continue_is_served() -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a", "Expect: 100-continue", method="POST", body=b"abc") + get("/v2/b"))
        async with asyncio.timeout(SOON):
            first = await read_message(reader, has_body=False)
            if first.head.status == 100:
                first = await read_message(reader)
            assert first.head.status == 200
            assert (await read_message(reader)).head.status == 200
    assert [message.body for message in upstream.seen] == [b"abc", b""]


# What comes down.


def lines_of(head: Head) -> list[str]:
    """Return the header lines of a reply, less what docs/contract.md, Answer, adds."""
    added = ("via", "server-timing", "ratelimit-policy", "ratelimit", "x-slproxy-attempts")
    return [line for line in head.raw.decode().split("\r\n")[1:] if line and line.split(":")[0].lower() not in added]


async def test_status_reason_and_headers_come_down_as_they_came() -> None:
    headers = [
        "X-One: 1",
        "Link: <a>",
        "x-middle: m",
        "Link: <b>",
        'ETag: W/"x"',
        "X-Empty:",
        "Date: Mon, 01 Jan 2024 00:00:00 GMT",
        "Server: cloudflare",
        "x-ratelimit-remaining-minute: 599",
        "Vary: Accept",
        "Content-Type: application/json;charset=utf-8",
    ]
    async with pair(replies(reply("209 Quite Unusual", b"{}", *headers))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a"))
    assert response.head.first == "HTTP/1.1 209 Quite Unusual"
    lines = [line.rstrip() for line in lines_of(response.head)]
    assert lines == [*headers, "Content-Length: 2"]


async def test_nothing_is_added_to_a_reply_but_what_the_contract_names() -> None:
    async with pair(replies(reply(body=b"abc"))) as (upstream, app):
        response = await asked(app.urls[0], get("/v2/a"))
        ours = ", ".join(upstream.seen[0].head.all("Via"))
    assert lines_of(response.head) == ["Content-Length: 3"]
    assert response.head.all("Via") == [ours]
    assert response.head.all("X-Slproxy-Attempts") == []
    (timing,) = response.head.all("Server-Timing")
    assert re.fullmatch(r"slproxy;dur=\d+(\.\d+)?, upstream;dur=\d+(\.\d+)?, wait;dur=\d+(\.\d+)?", timing)


async def test_server_timing_tells_milliseconds() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)
        writer.write(reply())

    async with ScriptedUpstream(script) as upstream, proxy(settings_for(upstream.url)) as app:
        response = await asked(app.urls[0], get("/v2/a"))
    told = re.findall(r"(\w+);dur=([\d.]+)", response.head.get("Server-Timing") or "")
    durations = {name: float(value) for name, value in told}
    assert 140 <= durations["upstream"] < 2000
    assert durations["slproxy"] < 140
    assert durations["wait"] == 0


async def test_what_would_change_a_browsers_view_of_localhost_stops_here() -> None:
    headers = [
        "Set-Cookie: a=marker",
        "set-cookie: b=marker",
        "Strict-Transport-Security: max-age=marker",
        "Alt-Svc: h3=marker",
        'Clear-Site-Data: "marker"',
        "Access-Control-Allow-Origin: marker",
        "access-control-anything: marker",
        "Connection: X-Hop",
        "X-Hop: marker",
        "Keep-Alive: timeout=marker",
        "Proxy-Authenticate: marker",
        "Upgrade: marker",
        "X-Kept: 1",
    ]
    async with pair(replies(reply("200 OK", b"{}", *headers))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a"))
    assert b"marker" not in response.head.raw
    assert lines_of(response.head) == ["X-Kept: 1", "Content-Length: 2"]


async def test_via_of_the_upstream_stays_before_ours() -> None:
    async with pair(replies(reply("200 OK", b"{}", "Via: 1.1 vegur"))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a"))
    assert re.fullmatch(r"1\.1 vegur, 1\.1 \S+", ", ".join(response.head.all("Via")))


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 T", "308 P", "201 Created"])
async def test_a_redirect_is_passed_on_and_points_at_the_proxy_when_it_pointed_at_the_api(status: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = message.head.get("Host")
        target = message.head.target.partition("?to=")[2]
        writer.write(reply(status, b"moved", "Location: " + target.replace("API", f"http://{host}")))

    async with pair(script) as (upstream, app):
        port = port_of(app.urls[0])
        api = port_of(upstream.url)
        for location, expected in {
            "API/v2/people/1?a=b&c=%2F#frag": f"http://localhost:{port}/v2/people/1?a=b&c=%2F#frag",
            "API": f"http://localhost:{port}",
            f"HTTP://127.0.0.1:{api}/v2/x": f"http://localhost:{port}/v2/x",
            "https://elsewhere.test/v2/x": "https://elsewhere.test/v2/x",
            f"https://127.0.0.1:{api}/v2/x": f"https://127.0.0.1:{api}/v2/x",
            f"http://127.0.0.1:{api}1/v2/x": f"http://127.0.0.1:{api}1/v2/x",
            "http://127.0.0.1.evil.test/": "http://127.0.0.1.evil.test/",
            "/v2/relative": "/v2/relative",
            "//elsewhere.test/x": "//elsewhere.test/x",
            "http://[broken": "http://[broken",
        }.items():
            before = len(upstream.seen)
            target = "/v2/a?to=" + location.replace("#", "%23")
            response = await asked(app.urls[0], get(target, host=f"localhost:{port}"))
            assert response.head.status == int(status[:3])
            assert response.head.all("Location") == [expected.replace("#", "%23")]
            assert response.body == b"moved"
            assert len(upstream.seen) == before + 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "x-unknown"])
async def test_a_compressed_reply_comes_down_as_it_came(encoding: str) -> None:
    body = gzip.compress(b"x" * 5000) if encoding == "gzip" else bytes(range(256)) * 20
    answer = reply("200 OK", body, f"Content-Encoding: {encoding}")
    chunks = reply("200 OK", chunked(body), f"Content-Encoding: {encoding}", "Transfer-Encoding: chunked", length=False)
    async with pair(replies(answer, chunks)) as (_, app):
        for _ in range(2):
            response = await asked(app.urls[0], get("/v2/a", "Accept-Encoding: gzip"))
            assert response.body == body
            assert response.head.all("Content-Encoding") == [encoding]


async def test_a_chunked_reply_comes_down_whole_and_is_followed_by_the_next() -> None:
    answer = reply("200 OK", chunked(b"a" * 100_000, b"b"), "Transfer-Encoding: chunked", length=False)
    async with pair(replies(answer)) as (upstream, app):
        reader, writer = await opened(app)
        for _ in range(3):
            writer.write(get("/v2/a"))
            async with asyncio.timeout(SOON):
                assert (await read_message(reader)).body == b"a" * 100_000 + b"b"
    assert upstream.connections == 1


async def test_a_reply_that_ends_with_its_connection_comes_down_whole() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 70_000)
        writer.close()

    async with pair(script) as (_, app):
        assert (await asked(app.urls[0], get("/v2/a"))).body == b"z" * 70_000


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", reply("200 OK", b"", "Content-Length: 1000", length=False), ["1000"]),
        ("HEAD", reply("200 OK", b"", "Transfer-Encoding: chunked", length=False), []),
        ("HEAD", reply("200 OK", b"", length=False), []),
        ("HEAD", reply("404 Not Found", b"", "Content-Length: 3", "Content-Encoding: gzip", length=False), ["3"]),
        ("GET", reply("204 No Content", b"", length=False), []),
        ("GET", reply("304 Not Modified", b"", "Content-Length: 1000", length=False), ["1000"]),
        ("DELETE", reply("204 No Content", b"", length=False), []),
    ],
)
async def test_a_reply_without_a_body_has_none_and_the_connection_goes_on(
    method: str, answer: bytes, length: list[str]
) -> None:
    async with pair(replies(answer, answer, reply(body=b"next"))) as (upstream, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            for _ in range(2):
                writer.write(get("/v2/a", method=method))
                response = await read_message(reader, has_body=False)
                assert response.head.first == answer.split(b"\r\n")[0].decode()
                assert response.head.all("Content-Length") == length
                assert response.head.all("Content-Type") == []
            writer.write(get("/v2/b"))
            assert (await read_message(reader)).body == b"next"
    assert len(upstream.seen) == 3


async def test_an_empty_reply_keeps_its_length_of_zero() -> None:
    async with pair(replies(reply("200 OK", b""))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a", method="POST"))
    assert lines_of(response.head) == ["Content-Length: 0"]


@pytest.mark.parametrize("interim", ["100 Continue", "103 Early Hints", "102 Processing"])
async def test_an_interim_reply_does_not_hide_the_final_one(interim: str) -> None:
    answer = f"HTTP/1.1 {interim}\r\nLink: <x>\r\n\r\n".encode() + reply(body=b"final")
    async with pair(replies(answer)) as (_, app):
        response = await asked(app.urls[0], get("/v2/a", method="POST", body=b"x"))
    assert response.body == b"final"


async def test_large_headers_of_a_reply_come_down() -> None:
    big = "X-Big: " + "b" * 20_000
    many = [f"X-{number}: v" for number in range(300)]
    async with pair(replies(reply("200 OK", b"{}", big, *many))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a"))
    assert response.head.status == 200
    assert lines_of(response.head) == [big, *many, "Content-Length: 2"]


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 banana OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
    ids=["garbage", "status", "length", "two lengths", "length and chunks", "101", "huge header", "tls"],
)
async def test_a_reply_that_is_not_http_is_a_502_of_ours(answer: bytes) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with pair(script) as (upstream, app):
        response = await asked(app.urls[0], get("/v2/a", method="POST", body=b"{}"))
        problem(response, status=502, kind="upstream-unreachable")
    assert len(upstream.seen) == 1


# Streaming.


async def test_a_chunk_reaches_the_client_before_the_next_one_is_sent() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await go_on.wait()
        go_on.clear()
        writer.write(b"1\r\na\r\n")
        await go_on.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async with pair(script) as (_, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        async with asyncio.timeout(SOON):
            head = await reader.readuntil(b"\r\n\r\n")
            go_on.set()
            started = time.monotonic()
            assert await reader.readuntil(b"a\r\n") == b"1\r\na\r\n"
            assert time.monotonic() - started < 1.0
            go_on.set()
            assert await reader.readuntil(b"0\r\n\r\n") == b"1\r\nb\r\n0\r\n\r\n"
    assert b"chunked" in head


async def test_a_piece_of_an_upload_reaches_the_upstream_before_the_next_one_is_sent() -> None:
    arrived = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"first" in await reader.readuntil(b"first\r\n")
        arrived.set()
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(reply())

    async with pair(script, whole=False) as (_, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"5\r\nfirst\r\n")
        async with asyncio.timeout(SOON):
            await arrived.wait()
            writer.write(b"4\r\nlast\r\n0\r\n\r\n")
            assert (await read_message(reader)).head.status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
    ],
    ids=["length", "between chunks", "inside a chunk"],
)
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_reply_that_breaks_off_is_aborted_and_not_sent_for_again(answer: bytes, end: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/v2/ok":
            writer.write(reply())
            return
        writer.write(answer)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close() if end == "close" else abort(writer)

    async with pair(script) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        got = b""
        ended = ""
        try:
            async with asyncio.timeout(SOON):
                while piece := await reader.read(4096):
                    got += piece
                ended = "closed"
        except ConnectionResetError:
            ended = "reset"
        assert not got.endswith(b"0\r\n\r\n")
        # A close is fine where a length is short of its promise; either way the client cannot take it for whole.
        assert ended == "reset" or b"Content-Length: 100" in got or b"chunked" in got
        assert (await asked(app.urls[0], get("/v2/ok"))).head.status == 200
    assert len([message for message in upstream.seen if message.head.target == "/v2/a"]) == 1


async def test_a_chunk_that_does_not_parse_aborts_the_reply() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await go_on.wait()
        writer.write(b"zz\r\n")
        await writer.drain()
        writer.close()

    async with pair(script) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        got = b""
        async with asyncio.timeout(SOON):
            await reader.readuntil(b"abc\r\n")
            go_on.set()
            with suppress(ConnectionError):
                got = await reader.read()
        assert got == b""
    assert len(upstream.seen) == 1


async def test_a_client_that_leaves_a_download_ends_it_upstream() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\na\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with pair(script) as (upstream, app):
        _, writer = await opened(app)
        writer.write(get("/v2/a"))
        await until(lambda: len(upstream.seen) == 1)
        await asyncio.sleep(0.05)
        abort(writer)
        await until(lambda: upstream.closed == 1, timeout=1.0)
        assert app.app.state()["requests"]["in_flight"] == 0  # type: ignore[index]


async def test_a_client_that_leaves_while_it_waits_ends_the_request_upstream() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        raise ConnectionResetError

    async with pair(script) as (upstream, app):
        _, writer = await opened(app)
        writer.write(get("/v2/a"))
        await until(lambda: len(upstream.seen) == 1)
        writer.close()
        await until(lambda: upstream.closed == 1, timeout=1.0)


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 500000"])
async def test_a_client_that_leaves_an_upload_ends_it_upstream_unfinished(framing: str) -> None:
    got = bytearray()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            got.extend(piece)
        raise ConnectionResetError

    async with pair(script, whole=False) as (upstream, app):
        _, writer = await opened(app)
        body = b"186a0\r\n" + b"x" * 100_000 if "chunked" in framing else b"x" * 100_000
        writer.write(get("/v2/a", framing, method="POST") + body)
        await until(lambda: len(got) > 50_000)
        abort(writer)
        await until(lambda: upstream.closed == 1, timeout=1.0)
    assert len(upstream.seen) == 1
    assert not got.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["chunks", "length"])
@pytest.mark.parametrize("status", ["413 Payload Too Large", "401 Unauthorized", "200 OK"])
async def test_an_early_answer_reaches_a_client_that_is_still_sending(status: str, framing: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(status, b"enough", "Connection: close"))
        await writer.drain()
        writer.close()

    async with pair(script, whole=False) as (upstream, app):
        reader, writer = await opened(app)
        if framing == "chunks":
            writer.write(get("/v2/a", "Transfer-Encoding: chunked", method="POST"))
            piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        else:
            writer.write(get("/v2/a", "Content-Length: 100000000", method="POST"))
            piece = b"x" * 0x4000

        async def upload() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(piece)
                    await writer.drain()

        sending = asyncio.create_task(upload())
        async with asyncio.timeout(SOON):
            response = await read_message(reader)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert response.head.first == f"HTTP/1.1 {status}"
    assert response.body == b"enough"
    assert len(upstream.seen) == 1


# Connections.


async def test_a_client_of_http_10_is_served_and_its_connection_closed() -> None:
    answer = reply("200 OK", chunked(b"abc"), "Transfer-Encoding: chunked", length=False)
    async with pair(replies(answer)) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(b"GET /v2/a HTTP/1.0\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(SOON):
            got = await reader.read()
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"200"
    assert b"transfer-encoding" not in head.lower()
    assert body == b"abc"
    assert upstream.seen[0].head.first == "GET /v2/a HTTP/1.1"


async def test_one_connection_serves_many_requests_and_one_upstream_connection_is_enough() -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            for number in range(5):
                writer.write(get(f"/v2/{number}", method="POST", body=b"x" * number * 30_000))
                assert (await read_message(reader)).head.status == 200
                writer.write(get("/nothing"))
                assert (await read_message(reader)).head.status == 404
    assert upstream.connections == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02 if message.head.target == "/v2/0" else 0)
        writer.write(reply(body=message.head.target.encode()))

    async with pair(script) as (_, app):
        reader, writer = await opened(app)
        writer.write(b"".join(get(f"/v2/{number}") for number in range(5)))
        async with asyncio.timeout(SOON):
            bodies = [(await read_message(reader)).body for _ in range(5)]
    assert bodies == [f"/v2/{number}".encode() for number in range(5)]


async def test_connection_close_of_the_client_is_honoured_and_not_passed_on() -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a", "Connection: close"))
        async with asyncio.timeout(SOON):
            assert (await read_message(reader)).head.get("Connection") == "close"
            assert await reader.read() == b""
    assert upstream.seen[0].head.get("Connection") is None


# Connections to the upstream that misbehave.


async def test_a_reply_that_nobody_asked_for_is_never_given_to_the_next_request() -> None:
    poisoned = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply(body=message.head.target.encode()))
        if message.head.target == "/v2/first":
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(reply("200 OK", b"poison"))
            await writer.drain()
            await asyncio.sleep(0.05)
            poisoned.set()

    async with pair(script) as (_, app):
        assert (await asked(app.urls[0], get("/v2/first"))).body == b"/v2/first"
        async with asyncio.timeout(SOON):
            await poisoned.wait()
        for target in ("/v2/second", "/v2/third"):
            assert (await asked(app.urls[0], get(target, method="POST", body=b"x"))).body == target.encode()


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", reply("200 OK", b"poison")),
        ("HEAD", reply("200 OK", b"", "Content-Length: 83", length=False) + reply("200 OK", b"poison")),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n" + reply("200 OK", b"poison")),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n" + reply("200 OK", b"poison")),
        ("GET", reply("200 OK", b"{}") + reply("200 OK", b"poison")),
        ("GET", reply("200 OK", b"{}") + b"junk"),
    ],
)
async def test_what_follows_a_whole_reply_is_never_given_to_the_next_request(method: str, answer: bytes) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer if message.head.target == "/v2/first" else reply(body=b"mine"))

    async with pair(script) as (_, app):
        for _ in range(3):
            first = await asked(app.urls[0], get("/v2/first", method=method), method=method)
            assert first.head.status in (200, 204, 304, 502)
            assert b"poison" not in first.body
            assert (await asked(app.urls[0], get("/v2/next", method="POST", body=b"x"))).body == b"mine"


async def test_a_head_that_dribbles_in_is_no_answer_in_time() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: 1\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with pair(script, response_timeout=0.3) as (_, app):
        started = time.monotonic()
        problem(await asked(app.urls[0], get("/v2/a", method="POST")), status=504, kind="upstream-timeout")
        assert time.monotonic() - started < 1.3


async def test_a_client_that_pauses_an_upload_is_not_the_upstreams_silence() -> None:
    async with pair(response_timeout=0.2) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/first"))
        async with asyncio.timeout(SOON):
            assert (await read_message(reader)).head.status == 200
            writer.write(get("/v2/a", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
            await asyncio.sleep(0.5)
            writer.write(b"3\r\ndef\r\n0\r\n\r\n")
            assert (await read_message(reader)).head.status == 200
    assert upstream.seen[-1].body == b"abcdef"


async def test_an_upstream_that_does_not_take_the_body_is_504() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(SOON)

    async with pair(script, whole=False, response_timeout=0.3) as (_, app):
        request = get("/v2/a", method="POST", body=b"x" * 20_000_000)
        problem(await asked(app.urls[0], request), status=504, kind="upstream-timeout")


async def test_a_body_that_stalls_is_aborted_after_the_idle_timeout() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        await reader.read()
        raise ConnectionResetError

    async with pair(script, idle_timeout=0.2) as (upstream, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        got = b""
        async with asyncio.timeout(1.5):
            with suppress(ConnectionError):
                while piece := await reader.read(4096):
                    got += piece
        assert not got.endswith(b"0\r\n\r\n")
        await until(lambda: upstream.closed == 1, timeout=1.0)


async def test_a_client_that_pauses_a_download_is_not_the_upstreams_silence() -> None:
    body = b"x" * 30_000_000
    async with pair(replies(reply(body=body)), idle_timeout=0.2) as (_, app):
        reader, writer = await opened(app)
        writer.write(get("/v2/a"))
        await asyncio.sleep(0.8)
        async with asyncio.timeout(SOON):
            assert len((await read_message(reader)).body) == len(body)


# Errors of the proxy's own.


async def test_a_refused_connection_is_502() -> None:
    async with ScriptedUpstream() as upstream:
        url = upstream.url
    async with proxy(settings_for(url), clock=FakeTime().clock()) as app:
        response = await asked(app.urls[0], get("/v2/a"))
        problem(response, status=502, kind="upstream-unreachable")
        assert response.head.get("Proxy-Status") == "slproxy; error=connection_refused"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_reset_with_no_reply_is_502(end: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close() if end == "close" else abort(writer)

    async with pair(script) as (upstream, app):
        response = await asked(app.urls[0], get("/v2/a", method="POST", body=b"{}"))
        problem(response, status=502, kind="upstream-unreachable")
        assert response.head.get("Proxy-Status") == "slproxy; error=connection_terminated"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nX-Half: "], ids=["nothing", "half a head"])
async def test_no_response_headers_in_time_is_504(sent: bytes) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(SOON)

    async with pair(script, response_timeout=0.2) as (upstream, app):
        started = time.monotonic()
        response = await asked(app.urls[0], get("/v2/a", method="POST", body=b"{}"))
        problem(response, status=504, kind="upstream-timeout")
        assert response.head.get("Proxy-Status") == "slproxy; error=http_response_timeout"
        assert 0.15 < time.monotonic() - started < 1.2
    assert len(upstream.seen) == 1


async def test_a_head_request_gets_the_head_of_a_problem_alone() -> None:
    async with pair() as (_, app):
        reader, writer = await opened(app)
        async with asyncio.timeout(SOON):
            writer.write(get("/nothing", method="HEAD"))
            response = await read_message(reader, has_body=False)
            assert response.head.status == 404
            assert response.head.get("Proxy-Status")
            writer.write(get("/v2/a"))
            assert (await read_message(reader)).head.status == 200


async def test_a_reply_of_the_upstream_has_no_proxy_status() -> None:
    async with pair(replies(reply("404 Not Found", b'{"error":"Not Found"}'))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a"))
    assert response.head.all("Proxy-Status") == []
    assert response.body == b'{"error":"Not Found"}'


async def test_the_hosts_name_never_appears_in_a_problem_of_another_library() -> None:
    settings = settings_for("http://127.0.0.1:9")
    settings = replace(
        settings, upstream=replace(UpstreamSettings(), api_url="http://localhost:9", accounts_url="http://localhost:9")
    )
    async with proxy(settings, clock=FakeTime().clock()) as app:
        response = await asked(app.urls[0], get("/v2/a?secret-query=1"))
        document = problem(response, status=502, kind="upstream-unreachable")
    assert "secret-query" not in json.dumps(document)
    assert "Connect call failed" not in json.dumps(document)


def test_settings_stand_as_the_contract_lists_them() -> None:
    shape = Settings.__dataclass_fields__
    assert shape["limits"].default == LimitSettings()
    assert (LimitSettings().max_target, LimitSettings().max_headers) == (32 * 1024, 64 * 1024)
    assert (LimitSettings().replay_memory, LimitSettings().replay_disk) == (2**20, 64 * 2**20)


# What stands behind a request that ends its connection.


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        pytest.param(b"", b"GET /v2/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a request"),
        pytest.param(
            b"POST /v2/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 51\r\n\r\n",
            b"DELETE /v2/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
            id="the head of a request, and its body in another packet",
        ),
    ],
)
@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.2"])
async def test_behind_a_request_for_an_upgrade_nothing_is_read_and_the_connection_ends(
    upgrade: str, first: bytes, rest: bytes
) -> None:
    request = get("/v2/a", "Connection: Upgrade", f"Upgrade: {upgrade}")
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(request + first)
        await until(lambda: len(upstream.seen) == 1)
        with suppress(ConnectionError):
            writer.write(rest)
        async with asyncio.timeout(SOON):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert [message.head.target for message in upstream.seen] == ["/v2/a"]
        assert await asked(app.urls[0], get("/v2/after"))


@pytest.mark.parametrize(
    "head",
    [
        "CONNECT localhost:443 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "TRACE /v2/a HTTP/1.1",
        "GET v2/a HTTP/1.1",
        "GET /v2/../a HTTP/1.1",
        "GET http://evil.test/v2/a HTTP/1.1",
        "GET /v2/a HTTP/2.0",
        "GET /v2/a HTTP/0.9",
        "GET /v2/a RTSP/1.0",
    ],
)
async def test_behind_a_request_that_was_not_understood_nothing_is_read_and_the_connection_ends(head: str) -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(f"{head}\r\nHost: localhost\r\n\r\n".encode() + get("/v2/smuggled"))
        async with asyncio.timeout(SOON):
            answer = await reader.read()
        assert re.match(rb"HTTP/1\.1 (?:4|5)\d\d ", answer)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert upstream.seen == []


@pytest.mark.parametrize(
    "lines",
    [
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: identity, chunked"],
        ["Transfer-Encoding: ,chunked"],
        ["Transfer-Encoding:", "Content-Length: 5"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    ],
    ids=repr,
)
async def test_a_transfer_coding_that_is_not_chunked_alone_is_refused(lines: list[str]) -> None:
    async with pair() as (upstream, app):
        request = get("/v2/a", *lines, method="POST") + b"0\r\n\r\n"
        problem(await asked(app.urls[0], request), status=400, kind="bad-request")
        assert upstream.seen == []


async def test_an_empty_transfer_coding_is_refused_without_a_body_too() -> None:
    async with pair() as (upstream, app):
        problem(await asked(app.urls[0], get("/v2/a", "Transfer-Encoding:")), status=400, kind="bad-request")
        assert upstream.seen == []


async def test_chunks_in_http_1_0_are_refused() -> None:
    async with pair() as (upstream, app):
        request = b"POST /v2/a HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        problem(await asked(app.urls[0], request), status=400, kind="bad-request")
        assert upstream.seen == []


async def test_a_body_that_speaks_of_rtsp_is_a_body() -> None:
    body = b"DESCRIBE rtsp://a RTSP/1.0\n"
    async with pair() as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/a", method="POST", body=body))).head.status == 200
        assert upstream.seen[0].body == body


@pytest.mark.parametrize("trailer", ["X-Sum: 1", "Connection: X-A", "Authorization: Bearer evil"])
async def test_a_trailer_is_never_a_header_of_the_next_request(trailer: str) -> None:
    """aiohttp keeps the last trailer for the next head, so the connection ends with the request that had some."""
    request = (
        get("/v2/a", "Transfer-Encoding: chunked", method="POST") + f"2\r\n{{}}\r\n0\r\n{trailer}\r\n\r\n".encode()
    )
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        writer.write(request)
        first = await read_message(reader)
        assert first.head.status == 200
        assert first.head.get("Connection") == "close"
        with suppress(ConnectionError):
            writer.write(get("/v2/b", "X-A: 1"))
        async with asyncio.timeout(SOON):
            assert await reader.read() == b""
        assert [message.head.target for message in upstream.seen] == ["/v2/a"]
        assert upstream.seen[0].head.get("X-Sum") is None


async def test_a_trailer_that_comes_with_the_next_request_is_never_its_header() -> None:
    head = get("/v2/a", "Transfer-Encoding: chunked", method="POST")
    async with pair() as (upstream, app):
        _, writer = await opened(app)
        writer.write(head + b"3\r\nabc\r\n")
        await until(lambda: app.app.server is not None and app.app.server.in_flight == 1)
        with suppress(ConnectionError):
            writer.write(b"0\r\nX-Evil: 1\r\n\r\n" + head.replace(b"/v2/a", b"/v2/c") + b"3\r\n")
            await until(lambda: len(upstream.seen) == 1)
            writer.write(b"abc\r\n0\r\n\r\n")
        assert (await asked(app.urls[0], get("/v2/after"))).head.status == 200
        assert [message.head.target for message in upstream.seen] == ["/v2/a", "/v2/after"]
        assert all(message.head.get("X-Evil") is None for message in upstream.seen)


async def test_chunks_without_trailers_leave_the_connection_open() -> None:
    request = get("/v2/a", "Transfer-Encoding: chunked", method="POST")
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        for pieces in ([b"2\r\n{}\r\n0\r\n\r\n"], [b"2\r\n{}\r", b"\n0\r\n", b"\r\n"], [b"0\r\n\r\n"]):
            writer.write(request)
            for piece in pieces:
                await asyncio.sleep(0)
                writer.write(piece)
            answer = await read_message(reader)
            assert answer.head.status == 200
            assert answer.head.get("Connection") is None
        assert [message.body for message in upstream.seen] == [b"{}", b"{}", b""]


async def test_a_length_beyond_63_bits_is_refused() -> None:
    async with pair() as (upstream, app):
        request = get("/v2/a", "Content-Length: 18446744073709551610", method="POST")
        problem(await asked(app.urls[0], request), status=400, kind="bad-request")
        assert upstream.seen == []
