"""The inspector as its page sees it, on real sockets (docs/inspector.md)."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from dataclasses import replace

import pytest

from slproxy.clock import Clock
from slproxy.config import InspectSettings, Settings
from slproxy.config.schema import PolicySettings
from slproxy.forward import Inbound
from slproxy.http import by_name
from slproxy.inspect.har import Archive
from slproxy.inspect.pages import PIECE
from slproxy.sandbox import Sandbox
from tests.support.inspector import PAGE, act, archive, details, post, stream
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, abort, get, raw, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import until


def inspecting(url: str, **rules: object) -> Settings:
    return replace(settings_for(url), inspect=InspectSettings(**rules))  # type: ignore[arg-type]


async def test_a_tab_is_told_what_there_is_and_then_what_happens(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        url = app.urls[0]
        await raw(url, get("/v2/me.json", "X-Slproxy-Client: report"))
        async with stream(url) as tab:
            assert tab.head.get("Content-Type") == "text/event-stream"
            hello = (await tab.next()).data
            assert hello["bodies"] == {"on": False, "until": None}
            assert hello["limits"] == {"entries": 1000, "memory": 16 * 2**20}
            assert (hello["read_only"], hello["sandbox"], hello["stream"]) == (False, True, True)
            assert (await tab.next("budget")).data["spent"] == 1
            row = await tab.row(1)
            assert (row["method"], row["path"], row["status"], row["client"]) == ("GET", "/v2/me.json", 200, "report")
            assert row["ms"] == pytest.approx(row["proxy_ms"] + row["upstream_ms"] + row["stream_ms"], abs=0.3)
            await raw(url, get("/v2/people.json?page=1"))
            row = await tab.row(2)
            assert (row["path"], row["query"], row["attempts"], row["cost"]) == ("/v2/people.json", True, 1, 1)


async def test_what_is_under_way_is_told_and_what_it_waits_for() -> None:
    go_on = asyncio.Event()

    async def slow(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    async with ScriptedUpstream(slow) as upstream, proxy(settings_for(upstream.url)) as app, stream(app.urls[0]) as tab:
        asked = asyncio.create_task(raw(app.urls[0], get("/v2/me.json")))
        row = await tab.row(1, "open")
        assert row["upstream_ms"] > 0
        open_details = await details(app.urls[0], 1)
        assert open_details["attempts"][0]["ms"] is None
        go_on.set()
        await asked
        assert (await tab.row(1))["status"] == 200


async def test_renewals_and_refusals_have_rows(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app, stream(app.urls[0]) as tab:
        assert (await raw(app.urls[0], get("/v3/nothing"))).head.status == 404
        row = await tab.row(1)
        assert (row["status"], row["error"], row["attempts"]) == (404, "not-found", 0)
        told = await details(app.urls[0], 1)
        assert json.loads(told["response"]["body"]["text"])["type"] == "not-found"


async def test_who_comes_back_is_told_only_what_has_changed(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        url = app.urls[0]
        async with stream(url) as tab:
            await raw(url, get("/v2/me.json"))
            await tab.row(1)
            seen = tab.last_id
        await raw(url, get("/v2/users.json"))
        async with stream(url, f"Last-Event-ID: {seen}") as tab:
            assert [each["n"] for each in (await tab.next("rows")).data["rows"]] == [2]
        async with stream(url, query=f"?after={seen}") as tab:
            assert [each["n"] for each in (await tab.next("rows")).data["rows"]] == [2]
        async with stream(url, "Last-Event-ID: 00000000-9") as tab:  # of another start
            assert [each["n"] for each in (await tab.next("rows")).data["rows"]] == [1, 2]


async def test_what_does_not_parse_has_a_row_and_its_answer(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        await raw(app.urls[0], b"GET /v2/me.json HTTP/1.1\r\nHost localhost\r\n\r\n")
        told = await details(app.urls[0], 1)
    assert (told["row"]["status"], told["row"]["error"]) == (400, "bad-request")
    assert json.loads(told["response"]["body"]["text"])["type"] == "bad-request"


async def test_pages_of_the_proxys_own_are_not_recorded(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        for page in ("/_slproxy/healthz", "/_slproxy/status.json", f"{PAGE}har"):
            await raw(app.urls[0], get(page))
        assert (await archive(app.urls[0]))["log"]["entries"] == []


async def test_details_show_both_heads_as_they_came_and_as_they_went() -> None:
    answer = reply("200 Fine", b'{"a": 1}', "Content-Type: application/json", "Set-Cookie: a=b", "X-A: 1")
    async with ScriptedUpstream(replies(answer)) as upstream, proxy(settings_for(upstream.url)) as app:
        await raw(
            app.urls[0], get("/v2/x?b=%20", "X-Slproxy-Client: me", "X-B: 2", "Cookie: c=d", "Authorization: Bearer e")
        )
        told = await details(app.urls[0], 1)
    assert told["target"] == "/v2/x?b=%20"
    assert told["request"]["headers"] == [
        ["Host", "localhost"],
        ["X-Slproxy-Client", "me"],
        ["X-B", "2"],
        ["Cookie", "•••"],
        ["Authorization", "Bearer •••"],
    ]
    sent = dict(told["request"]["sent_headers"])
    assert sent.pop("Via").startswith("1.1 slproxy-")
    assert sent == {"Host": f"127.0.0.1:{upstream.port}", "X-B": "2", "Authorization": "Bearer •••"}
    assert told["response"]["headers"][:2] == [["Content-Type", "application/json"], ["Set-Cookie", "•••"]]
    assert "Set-Cookie" not in dict(told["response"]["sent_headers"])
    assert "Server-Timing" in dict(told["response"]["sent_headers"])
    assert (told["response"]["status"], told["response"]["reason"]) == (200, "Fine")
    assert told["response"]["body"] == {"kind": "unrecorded", "type": "application/json", "size": 8, "kept": 0}


async def test_each_attempt_says_why_it_was_made() -> None:
    answers = replies(reply("503 No", b""), reply("200 OK", b"{}"))
    async with ScriptedUpstream(answers) as upstream, proxy(settings_for(upstream.url)) as app:
        await raw(app.urls[0], get("/v2/x"))
        told = await details(app.urls[0], 1)
    assert [(each["status"], each["why"]) for each in told["attempts"]] == [(503, ""), (200, "503")]
    assert [each["reason"] for each in told["waits"]] == ["backoff"]
    assert told["row"]["attempts"] == 2


async def test_bodies_are_kept_when_asked_for_and_told_as_cut() -> None:
    large = json.dumps({"data": "x" * 100_000}).encode()
    zipped = gzip.compress(b'{"z": 1}')
    answers = replies(
        reply("200 OK", large, "Content-Type: application/json"),
        reply("200 OK", zipped, "Content-Type: application/json", "Content-Encoding: gzip"),
        reply("200 OK", b"\x00\xff", "Content-Type: image/png"),
    )
    async with ScriptedUpstream(answers) as upstream, proxy(inspecting(upstream.url, bodies="on")) as app:
        url = app.urls[0]
        await post(url, "/v2/x", b'{"c": 2}', "Content-Type: application/json")
        await raw(url, get("/v2/x"))
        await raw(url, get("/v2/x"))
        first, second, third = [await details(url, n) for n in (1, 2, 3)]
    assert first["request"]["body"]["text"] == '{"c": 2}'
    body = first["response"]["body"]
    assert (body["kind"], body["size"], body["kept"], body["cut"]) == ("text", len(large), 64 * 1024, True)
    assert large.decode().startswith(body["text"])
    assert (second["response"]["body"]["text"], second["response"]["body"]["size"]) == ('{"z": 1}', len(zipped))
    assert (third["response"]["body"]["kind"], third["response"]["body"]["base64"]) == ("binary", "AP8=")


async def test_bodies_are_recorded_for_as_long_as_the_page_says(sandbox: Sandbox) -> None:
    passed = [0.0]
    clock = Clock(now=lambda: time.time() + passed[0])
    async with proxy(settings_for(sandbox.url), clock=clock) as app, stream(app.urls[0]) as tab:
        url = app.urls[0]
        status, told = await act(url, "bodies", {"on": True, "minutes": 10})
        assert status == 200
        assert told["on"]
        assert (await tab.next("bodies")).data == told
        await raw(url, get("/v2/me.json"))
        assert (await details(url, 1))["response"]["body"]["kind"] == "text"
        passed[0] = 601.0
        await raw(url, get("/v2/me.json"))
        assert (await details(url, 2))["response"]["body"]["kind"] == "unrecorded"
        assert (await tab.next("bodies")).data == {"on": False, "until": None}
        assert (await act(url, "bodies", {"on": True, "minutes": -1}))[0] == 400


async def test_what_is_cleared_is_gone_and_what_is_pinned_stays(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app, stream(app.urls[0]) as tab:
        url = app.urls[0]
        await raw(url, get("/v2/me.json"))
        await raw(url, get("/v2/users.json"))
        await tab.row(2)
        assert await act(url, "pin", {"n": 1, "pinned": True}) == (200, {"n": 1, "pinned": True})
        assert (await tab.row(1))["pinned"]
        assert (await act(url, "clear", {}))[0] == 200
        await tab.next("cleared")
        assert (await details(url, 1))["row"]["pinned"]
        assert (await raw(url, get(f"{PAGE}exchanges/2"))).head.status == 404
        assert (await act(url, "pin", {"n": 2, "pinned": True}))[0] == 404


async def test_a_request_is_sent_again_as_it_came_or_edited(sandbox: Sandbox) -> None:
    async with ScriptedUpstream() as upstream, proxy(inspecting(upstream.url, bodies="on")) as app:
        url = app.urls[0]
        async with stream(url) as tab:
            await post(
                url, "/v2/people?x=1", b'{"a": 1}', "Content-Type: application/json", "X-Slproxy-Client: me", "X-B: 2"
            )
            assert await act(url, "resend", {"n": 1}) == (200, {"n": 2})
            row = await tab.row(2)
            assert (row["resent"], row["client"], row["status"], row["in"]) == (1, "me", 200, 8)
            first, second = upstream.seen
            assert (second.head.first, second.body) == (first.head.first, first.body)
            assert [each for each in second.head.fields if each[0] != "Via"] == [
                each for each in first.head.fields if each[0] != "Via"
            ]
            edit = {
                "method": "PUT",
                "target": "/v2/people/7",
                "headers": [["Content-Type", "application/json"], ["X-Key", "•••"]],
                "body": '{"ä": 2}',
            }
            assert await act(url, "resend", {"n": 1, "edit": edit}) == (200, {"n": 3})
            await tab.row(3)
            third = upstream.seen[2]
            assert (third.head.first, third.body) == ("PUT /v2/people/7 HTTP/1.1", '{"ä": 2}'.encode())
            assert third.head.get("X-Key") is None
            assert (await details(url, 3))["response"]["body"]["text"] == "{}"


async def test_nothing_is_sent_again_whose_body_was_not_kept(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        url = app.urls[0]
        await post(url, "/v2/people.json", b'{"email_address": "a@b.test"}', "Content-Type: application/json")
        await raw(url, get("/v2/me.json?access_token=x"))
        assert (await act(url, "resend", {"n": 1}))[1]["type"] == "not-recorded"
        assert (await act(url, "resend", {"n": 2}))[1]["type"] == "not-recorded"
        assert (await act(url, "resend", {"n": 9}))[0] == 404


@pytest.mark.parametrize(
    "edit",
    [
        {"method": "GET", "target": "/v2/x y", "headers": [], "body": ""},
        {"method": "GET", "target": "v2/x", "headers": [], "body": ""},
        {"method": "GET\r\nX: y", "target": "/v2/x", "headers": [], "body": ""},
        {"method": "GET", "target": "/v2/x\r\nX: y", "headers": [], "body": ""},
        {"method": "GET", "target": "/v2/x", "headers": [["A", "b\r\nAuthorization: c"]], "body": ""},
        {"method": "GET", "target": "/v2/x", "headers": [["A:", "b"]], "body": ""},
        {"method": "GET", "target": "/v2/x", "headers": [["A"]], "body": ""},
        {"method": "GET", "target": "/v2/x", "headers": {}, "body": ""},
        {"method": "GET", "target": "/v2/x", "headers": [], "body": "\ud800"},
        {"method": "GET", "target": "/v2/../oauth", "headers": [], "body": ""},
        {"method": "GET", "target": "/oauth/token", "headers": [], "body": ""},
        {"method": "TRACE", "target": "/v2/x", "headers": [], "body": ""},
        {"method": "GET", "target": f"{PAGE}har", "headers": [], "body": ""},
        {"method": "GET", "target": "/v2/x", "headers": [["Host", "evil.test"]], "body": ""},
        "x",
    ],
)
async def test_an_edit_that_the_proxy_would_refuse_is_refused(edit: object) -> None:
    async with ScriptedUpstream() as upstream, proxy(settings_for(upstream.url)) as app:
        await raw(app.urls[0], get("/v2/me.json"))
        status, problem = await act(app.urls[0], "resend", {"n": 1, "edit": edit})
        assert 400 <= status < 500, problem
        assert len(upstream.seen) == 1


async def test_in_read_only_mode_writes_are_not_sent_again_and_the_rest_works() -> None:
    async with ScriptedUpstream() as upstream:
        settings = replace(inspecting(upstream.url, bodies="on"), policy=PolicySettings(read_only=True))
        async with proxy(settings) as app:
            url = app.urls[0]
            await raw(url, get("/v2/me.json"))
            edit = {"method": "POST", "target": "/v2/x", "headers": [], "body": ""}
            assert (await act(url, "resend", {"n": 1, "edit": edit}))[1]["type"] == "method-refused"
            assert (await act(url, "resend", {"n": 1}))[0] == 200
            assert (await act(url, "pin", {"n": 1, "pinned": True}))[0] == 200
            assert (await act(url, "bodies", {"on": False}))[0] == 200
            assert (await act(url, "clear", {}))[0] == 200
            await until(lambda: len(upstream.seen) == 2)


async def test_an_archive_is_one_of_version_1_2_and_masks_people_on_request(sandbox: Sandbox) -> None:
    async with proxy(inspecting(sandbox.url, bodies="on")) as app:
        url = app.urls[0]
        await raw(url, get("/v2/me.json?email=jane@company.com", "Authorization: Bearer secret"))
        plain, masked = await archive(url, "?n=1,1%2C1"), await archive(url, "?n=1&mask=1")
    assert plain["log"]["version"] == "1.2"
    (entry,) = plain["log"]["entries"]
    assert set(entry) >= {"startedDateTime", "time", "request", "response", "cache", "timings"}
    assert entry["request"]["url"] == "http://localhost/v2/me.json?email=jane@company.com"
    assert entry["request"]["queryString"] == [{"name": "email", "value": "jane@company.com"}]
    assert json.loads(entry["response"]["content"]["text"])["data"]["name"] == "Jane Smith"
    assert sum(each for each in entry["timings"].values()) == pytest.approx(entry["time"], abs=0.5)
    text = json.dumps(masked)
    assert "secret" not in json.dumps(plain)
    for personal in ("Jane", "Smith", "jane@", "company.com"):
        assert personal not in text, personal


async def test_an_archive_that_is_read_slowly_keeps_nothing_that_gave_way(sandbox: Sandbox) -> None:
    async with proxy(inspecting(sandbox.url, entries=20)) as app:
        for _ in range(20):
            await raw(app.urls[0], get("/v2/me.json"))
        asked = Inbound(method="GET", target=f"{PAGE}har", headers=[(b"Host", b"localhost")], has_body=False)
        answer = await app.own_pages.page(asked, asked.target, True, by_name(asked.headers), None)
        assert isinstance(answer.body, Archive)
        reading = answer.body.chunks()
        assert b"/v2/me.json" in await anext(reading)
        app.inspector.ring.clear(lambda _: True)
        assert sum(b"/v2/me.json" in piece for piece in [piece async for piece in reading]) == PIECE - 1


async def test_a_client_that_leaves_and_an_upstream_that_breaks_off_are_told(sandbox: Sandbox) -> None:
    async def broken(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await writer.drain()
        abort(writer)

    async with (
        ScriptedUpstream(broken) as upstream,
        proxy(settings_for(upstream.url)) as app,
        stream(app.urls[0]) as tab,
    ):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await raw(app.urls[0], get("/v2/me.json"))
        assert (await tab.row(1))["ended"] == "upstream broke off"
