"""The audit of a proxy: a line for each request and each event of the token, with nothing in it that is secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.app import App
from slproxy.config import Settings
from slproxy.config.schema import LogSettings
from slproxy.errors import ConfigError
from slproxy.store import MemoryStore
from tests.support.disks import full_at
from tests.support.pair import asked, problem
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message, get, raw, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until


def audited(settings: Settings, path: Path, *, required: bool = False) -> Settings:
    return replace(settings, log=LogSettings(audit=path, audit_required=required))


def lines_in(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer in each way in which an answer can end."""
    match message.head.target.partition("?")[0]:
        case "/v2/pieces":
            writer.write(reply(body=b"x" * 100)[:-50])
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"x" * 50)
        case "/v2/chunks":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"0\r\n\r\n")
        case "/v2/half":
            writer.write(reply(body=b"x" * 100)[:-50])
            await writer.drain()
            writer.close()
        case "/v2/nothing":
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        case "/v2/gone":
            writer.close()
        case _:
            writer.write(reply(body=b'{"a":1}'))


@asynccontextmanager
async def serving(path: Path, *, required: bool = False) -> AsyncIterator[App]:
    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, retry=replace(settings.retry, attempts=1))
        async with proxy(audited(settings, path, required=required)) as app:
            yield app


ENDS = {
    "a whole reply": (get("/v2/whole?email=marker"), 200, 1),
    "a reply in pieces": (get("/v2/pieces?email=marker"), 200, 1),
    "a chunked reply": (get("/v2/chunks?email=marker"), 200, 1),
    "a chunked reply to HTTP/1.0": (b"GET /v2/chunks HTTP/1.0\r\nHost: localhost\r\n\r\n", 200, 1),
    "a reply to HEAD": (get("/v2/whole", method="HEAD"), 200, 1),
    "no content": (get("/v2/nothing"), 204, 1),
    "a write": (get("/v2/whole", "Authorization: marker", "Cookie: marker", method="POST", body=b"marker"), 200, 1),
    "an upstream that fails": (get("/v2/gone", method="POST"), 502, 1),
    "a refusal": (get("/nothing?marker"), 404, 0),
    "what does not parse": (b"GET /v2/a HTTP/1.1\r\nHost marker\r\n\r\n", 400, 0),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\x00", 400, 0),
    "a page of the proxy's own": (get("/_slproxy/status.json"), 200, 0),
}


@pytest.mark.parametrize(("request_", "status", "attempts"), ENDS.values(), ids=ENDS)
async def test_each_request_has_one_line_once_it_is_answered(
    tmp_path: Path, request_: bytes, status: int, attempts: int
) -> None:
    path = tmp_path / "audit"
    async with serving(path) as app:
        method = "HEAD" if request_.startswith(b"HEAD") else "GET"
        await asked(app.urls[0], request_, method=method)
        # The line comes first: there is nothing to wait for.
        (line,) = lines_in(path)
    assert len(lines_in(path)) == 1
    assert (line["kind"], line["status"], line["attempts"]) == ("request", status, attempts)
    assert line["id"]
    assert "marker" not in path.read_text()
    assert API_KEY not in path.read_text()


async def test_an_answer_that_broke_off_has_a_line_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with serving(path) as app:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await raw(app.urls[0], get("/v2/half"))
        await until(lambda: bool(path.read_text()))
    (line,) = lines_in(path)
    assert (line["status"], line["ended"], line["level"]) == (200, "upstream broke off", "warning")


async def test_probes_have_no_line_and_the_proxys_own_requests_have(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with serving(path) as app:
        await asked(app.urls[0], get("/_slproxy/healthz"))
        await asked(app.urls[0], get("/_slproxy/readyz"))
        await app.ask("/v2/me.json?marker")
    (line,) = lines_in(path)
    assert (line["client"], line["path"], line["operation"]) == ("slproxy", "/v2/me.json", "/v2/me")


async def test_events_of_the_token_have_lines(tmp_path: Path) -> None:
    path, store = tmp_path / "audit", MemoryStore()
    async with running_sandbox() as sandbox:
        login = replace(login_at(sandbox, lifetime=-1), login=1)
        await store.write(replace(login, token=replace(login.token, refresh_token="unknown")))
        settings = audited(settings_for(sandbox.url, auth=sandbox_auth(sandbox)), path)
        async with proxy(settings, store=store) as app:
            await raw(app.urls[0], get("/v2/me.json"))
            await store.delete()
            await store.write(replace(login_at(sandbox), login=2))
            await raw(app.urls[0], get("/v2/me.json", "X-Sandbox-Fault: expire-token"))
        record = await store.read()
    lines = [line for line in lines_in(path) if line["kind"] != "request"]
    assert [(line["kind"], line["level"], line["profile"]) for line in lines] == [
        ("refusal", "warning", "default"),
        ("renewal", "warning", "default"),
        ("login", "info", "default"),
        ("renewal", "info", "default"),
    ]
    assert (lines[3]["reason"], lines[3]["outcome"]) == ("rejected", "renewed")
    assert float(str(lines[3]["ms"])) > 0
    assert record is not None
    for secret in (record.token.access_token, record.token.refresh_token, login.token.access_token):
        assert str(secret) not in path.read_text()


async def test_a_file_that_cannot_be_had_stops_the_start(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        with pytest.raises(ConfigError, match=r"log\.audit"):
            async with proxy(audited(settings_for(upstream.url), tmp_path / "none" / "audit")):
                pass


async def test_one_that_cannot_be_opened_anew_is_told_and_goes_on_in_the_old_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, rotated = tmp_path / "audit", tmp_path / "audit.1"
    async with serving(path) as app:
        path.rename(rotated)
        path.symlink_to(tmp_path / "else")
        assert app.listeners.audit is not None
        app.listeners.audit.reopen()
        await asked(app.urls[0], get("/v2/a"))
    assert len(lines_in(rotated)) == 1
    assert "symbolic link" in caplog.text
    assert "The old file is still written to." in caplog.text


# A full disk


async def test_a_full_disk_is_a_warning_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit"
    async with serving(path) as app:
        await asked(app.urls[0], get("/v2/1"))
        with full_at(path.stat().st_size + 10):
            for number in range(2, 5):
                assert (await asked(app.urls[0], get(f"/v2/{number}"))).head.status == 200
            ready = await asked(app.urls[0], get("/_slproxy/readyz"))
        assert (await asked(app.urls[0], get("/v2/5"))).head.status == 200
        after = await asked(app.urls[0], get("/_slproxy/readyz"))
    warning = json.loads(ready.body)["warning"]
    assert ready.head.status == 200
    assert f"The audit log {path} cannot be written: File too large; 2 lines are lost." in warning
    assert "warning" not in json.loads(after.body)
    # The one that was cut is whole.
    assert [line.get("path", line.get("lost")) for line in lines_in(path)] == ["/v2/1", "/v2/2", 2, "/v2/5"]
    told = [record.message for record in caplog.records if record.name == "slproxy.audit"]
    assert len(told) == 2
    assert "requests are served without it" in told[0]
    assert told[1] == "the audit log is written again"


async def test_where_the_audit_is_required_a_full_disk_refuses_requests_until_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with serving(path, required=True) as app:
        await asked(app.urls[0], get("/v2/1"))
        with full_at(path.stat().st_size + 10):
            # Nobody knew before: it was sent. It does not look answered, since no line tells of it.
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await raw(app.urls[0], get("/v2/pieces"))
            refused = await asked(app.urls[0], get("/v2/2"))
            ready = await asked(app.urls[0], get("/_slproxy/readyz"))
            assert (await asked(app.urls[0], get("/_slproxy/healthz"))).head.status == 200
            assert (await asked(app.urls[0], get("/_slproxy/status.json"))).head.status == 200
        assert (await asked(app.urls[0], get("/_slproxy/readyz"))).head.status == 200
        assert (await asked(app.urls[0], get("/v2/3"))).head.status == 200
    assert "File too large" in str(problem(refused, status=503, kind="audit-unwritable")["detail"])
    problem(ready, status=503, kind="audit-unwritable")
    assert [line.get("path", line.get("lost")) for line in lines_in(path)] == ["/v2/1", "/v2/pieces", 2, "/v2/3"]
