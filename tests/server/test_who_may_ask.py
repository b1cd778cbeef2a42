"""Host, Origin, key and Via: who may ask the proxy."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from slproxy.config import ListenSettings, Secret
from tests.support.clock import FakeTime
from tests.support.pair import LOCAL_KEY, asked, opened, pair, problem
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import get, port_of, read_message
from tests.support.waiting import SOON


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
