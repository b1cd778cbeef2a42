"""Requests as they go up: headers, bodies, and 100 Continue."""

from __future__ import annotations

import asyncio
import gzip
from dataclasses import replace

import pytest

from slproxy.config import ListenSettings, Secret
from tests.support.pair import LOCAL_KEY, asked, chunked, opened, pair, problem
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import get, read_message
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import SOON


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


async def test_with_via_off_the_upstream_hears_of_no_proxy_and_the_client_does() -> None:
    async with ScriptedUpstream() as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, upstream=replace(settings.upstream, via="off"))
        async with proxy(settings) as app:
            response = await asked(app.urls[0], get("/v2/a"))
            await asked(app.urls[0], get("/v2/a", "Via: 1.0 fred"))
    assert [message.head.all("Via") for message in upstream.seen] == [[], ["1.0 fred"]]
    assert len(response.head.all("Via")) == 1


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
        # It may leave the body out, and what it sends next would be taken for that.
        assert response.head.get("Connection") == "close"
    assert upstream.seen == []


async def test_http_1_0_gets_no_interim_response() -> None:
    async with pair() as (upstream, app):
        head = b"POST /v2/a HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        reader, writer = await opened(app)
        writer.write(head + b"a")
        await asyncio.sleep(0)
        writer.write(b"bc")
        async with asyncio.timeout(SOON):
            assert (await read_message(reader)).head.status == 200
    assert [message.body for message in upstream.seen] == [b"abc"]


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
