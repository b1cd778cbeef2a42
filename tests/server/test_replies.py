"""Replies as they come down: status, headers and body."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import struct
import sys

import pytest

from slproxy.config import AuthSettings, Secret
from tests.support.pair import asked, chunked, lines_of, opened, pair, problem
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message, get, port_of, read_message, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import SOON


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
        "Service-Worker-Allowed: /marker",
        "Proxy-Status: slproxy; error=connection_refused; details=marker",
        "X-Slproxy-Attempts: marker",
        "X-Kept: 1",
    ]
    async with pair(replies(reply("200 OK", b"{}", *headers))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a"))
    assert b"marker" not in response.head.raw
    assert lines_of(response.head) == ["X-Kept: 1", "Content-Length: 2"]


PAGE = ("Content-Type: text/html", "X-Content-Type-Options: none", "Content-Security-Policy: script-src 'self'")


SHOWN = (
    *(f"Sec-Fetch-Dest: {name}" for name in ("document", "iframe", "frame", "fencedframe", "embed", "object", "xslt")),
    *("Sec-Fetch-Dest: worker", "Sec-Fetch-Dest: sharedworker", "sec-fetch-dest:  Document "),
    "Sec-Fetch-Dest: empty\r\nSec-Fetch-Dest: document",
    # Of a host that is not trustworthy, such as one in accept_hosts.
    "Upgrade-Insecure-Requests: 1",
)


async def test_what_a_browser_would_run_has_no_rights_of_the_proxys_origin() -> None:
    async with pair(replies(reply("200 OK", b"<script>", *PAGE))) as (_, app):
        for header in SHOWN:
            response = await asked(app.urls[0], get("/v2/a", header))
            assert response.head.all("Content-Security-Policy") == ["script-src 'self'", "sandbox"], header
            assert response.head.all("X-Content-Type-Options") == ["nosniff"], header
            assert response.body == b"<script>"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin", "Upgrade-Insecure-Requests: 1"],
        ["Sec-Fetch-Dest: image"],
        ["User-Agent: Mozilla/5.0"],
    ],
    ids=repr,
)
async def test_whoever_else_asks_gets_the_reply_as_it_came(headers: list[str]) -> None:
    async with pair(replies(reply("200 OK", b"<script>", *PAGE))) as (_, app):
        response = await asked(app.urls[0], get("/v2/a", *headers))
    assert lines_of(response.head) == [*PAGE, "Content-Length: 8"]


async def test_a_script_for_a_service_worker_never_goes_up() -> None:
    async with pair() as (upstream, app):
        for header in ("Service-Worker: script", "Sec-Fetch-Dest: serviceworker"):
            problem(await asked(app.urls[0], get("/v2/a.js", header)), status=403, kind="origin-refused")
    assert upstream.seen == []


async def test_the_proxys_own_replies_are_what_they_say_and_nothing_else() -> None:
    async with pair() as (_, app):
        for target in ("/_slproxy/status.json", "/_slproxy/healthz", "/_slproxy/nothing", "/v1/x"):
            response = await asked(app.urls[0], get(target))
            assert response.head.all("X-Content-Type-Options") == ["nosniff"], target


TOKEN = API_KEY
LEAKS = {
    "a header": f"X-Echo: Authorization: Bearer {TOKEN}",
    "a location": f"Location: /v2/b?access_token={TOKEN}",
    "a location, percent-encoded": f"Location: /v2/b?t={''.join(f'%{ord(each):02x}' for each in TOKEN)}",
    "another case": f"X-Echo: {TOKEN.upper()}",
    "a header that stops here anyway": f"Set-Cookie: session={TOKEN}",
    "the name of a header": f"X-{TOKEN}: 1",
    "the middle of a value": f'WWW-Authenticate: Bearer error="invalid_token", token="{TOKEN}"',
}


async def test_nothing_of_a_reply_that_shows_the_live_token_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    statuses = ("302 Found", "404 Not Found", "401 Unauthorized", "503 Busy", f"200 {TOKEN}")
    leaking = [reply("200 OK", b"the body", leak) for leak in LEAKS.values()]
    leaking += [reply(status, b"the body", LEAKS["a header"]) for status in statuses]

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(leaking[int(message.head.target.rpartition("/")[2])])

    async with pair(script) as (_, app):
        for number, leak in enumerate(leaking):
            response = await asked(app.urls[0], get(f"/v2/{number}"))
            assert "token" in str(problem(response, status=502, kind="upstream-unreachable")["detail"]), leak
            for leaked in (TOKEN, TOKEN.upper(), "the body"):
                assert leaked not in (response.head.raw + response.body).decode(), leak
                assert leaked not in caplog.text, leak


async def test_a_token_as_short_as_a_word_is_not_found_within_words() -> None:
    auth = AuthSettings(api_key=Secret("test-key"))
    harmless, telling = "X-Request-Id: test-key-4711, my.test-key", "Location: /b?t=test-key"
    async with (
        ScriptedUpstream(replies(reply("200 OK", b"{}", harmless), reply("302 F", b"", telling))) as upstream,
        proxy(settings_for(upstream.url, auth=auth)) as app,
    ):
        assert (await asked(app.urls[0], get("/v2/a"))).head.status == 200
        problem(await asked(app.urls[0], get("/v2/b")), status=502, kind="upstream-unreachable")


async def test_nor_of_one_that_was_kept_for_want_of_a_better_one() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(upstream.seen) > 1:
            raise ConnectionResetError
        writer.write(reply("503 Busy", b"", LEAKS["a header"]))

    async with pair(script) as (upstream, app):
        problem(await asked(app.urls[0], get("/v2/a")), status=502, kind="upstream-unreachable")
    assert len(upstream.seen) > 1


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


# Where struct tcp_info has the number of segments with data that have come (linux/tcp.h, tcpi_data_segs_in).
DATA_SEGMENTS = struct.Struct("=152xI")


def segments(writer: asyncio.StreamWriter) -> int:
    """Return how many segments of data have come on a connection: over loopback, each write makes one."""
    told = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS.size)
    return int(DATA_SEGMENTS.unpack(told)[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how many segments have come")
async def test_a_request_goes_up_and_what_there_is_of_its_reply_comes_down_in_one_write() -> None:
    came_up = []

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came_up.append(segments(writer))
        if message.head.target == "/v2/chunked":
            writer.write(reply("200 OK", chunked(b"a", b"b"), "Transfer-Encoding: chunked", length=False))
        elif message.head.method == "HEAD":
            writer.write(reply("200 OK", b"", "Content-Length: 1000", length=False))
        else:
            writer.write(reply("200 OK", b"x" * 1000))

    asking = [
        ("GET", get("/v2/a")),
        ("GET", get("/v2/chunked")),
        ("HEAD", get("/v2/a", method="HEAD")),
        ("POST", get("/v2/a", method="POST", body=b"y" * 1000)),
        ("GET", get("/nowhere")),
        ("GET", get("/_slproxy/healthz")),
    ]
    came_down = []
    async with pair(script) as (_, app):
        reader, writer = await opened(app)
        for method, request in asking:
            writer.write(request)
            async with asyncio.timeout(SOON):
                await read_message(reader, has_body=method != "HEAD")
            came_down.append(segments(writer))
    assert came_up == [1, 2, 3, 4]
    assert came_down == [1, 2, 3, 4, 5, 6]


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
