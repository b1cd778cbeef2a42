"""Methods: which pass, and which are refused."""

from __future__ import annotations

import asyncio

import pytest

from slproxy.config.schema import PolicySettings
from tests.support.pair import asked, opened, pair, problem
from tests.support.raw_http import Message, get, read_message, reply
from tests.support.waiting import SOON


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


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b" GET /v2/a HTTP/1.1", 400),
        (b"\tGET /v2/a HTTP/1.1", 400),
        (b"GET\t/v2/a HTTP/1.1", 400),
        (b"GET\t/v2/a\tHTTP/1.1", 400),
        (b"\x00GET /v2/a HTTP/1.1", 400),
        (b"'GET' \"/v2/a\" HTTP/1.1", 501),  # an apostrophe may stand in a token
        (b"G\"T'\\ /v2/a HTTP/1.1", 400),
        (b"GE/T /v2/a HTTP/1.1", 400),
        (b"BREW /v2/a HTTP/1.1", 501),
        (b"get /v2/a HTTP/1.1", 501),
    ],
)
async def test_a_line_that_begins_with_no_token_is_400_and_an_unknown_token_501(
    line: bytes, status: int, pieces: str
) -> None:
    async with pair() as (upstream, app):
        reader, writer = await opened(app)
        request = line + b"\r\nHost: localhost\r\n\r\n"
        for piece in [request] if pieces == "whole" else [request[at : at + 1] for at in range(len(request))]:
            writer.write(piece)
            await asyncio.sleep(0)
        async with asyncio.timeout(SOON):
            response = await read_message(reader)
        problem(response, status=status, kind="bad-request" if status == 400 else "method-refused")
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
