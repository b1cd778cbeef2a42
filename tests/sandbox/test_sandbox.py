"""The sandbox itself: that it stands alone, what it records of requests, and its own pages."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from dataclasses import FrozenInstanceError
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import ClientSession

import slproxy.sandbox
from slproxy.sandbox import Options, Sandbox, running
from slproxy.sandbox.request_log import LENGTH, RecordedRequest, RequestLog
from tests.support.raw_http import port_of, raw
from tests.support.sandboxes import bearer

NOW = 1_750_000_020.0


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with running(clock=lambda: NOW) as sandbox:
        yield sandbox


def test_the_sandbox_imports_nothing_but_itself_aiohttp_and_the_standard_library() -> None:
    allowed = {"aiohttp", *sys.stdlib_module_names}
    for path in Path(slproxy.sandbox.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                assert node.level == 0, path
                assert module.startswith("slproxy.sandbox.") or module.partition(".")[0] in allowed, path


@pytest.mark.parametrize(
    "target",
    [
        "/v2/people?x=%2F%2f&y=a+b&z=%zz&&q=[]{}|^",
        "/v2/a%2Db%20c%C3%A9~%7e",
        "/v2/%252e%252e/x",
        "/v2/%0a?x",
        "//v2/x",
        "/v2/" + "a" * 40_000,
    ],
)
async def test_a_target_is_recorded_byte_for_byte(target: str, sandbox: Sandbox) -> None:
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    key = f"Authorization: Bearer {sandbox.options.api_key}\r\n\r\n"
    reply = await raw(sandbox.url, (head + key).encode())
    assert reply.head.status in (200, 404)
    assert [request.target for request in sandbox.requests] == [target]


async def test_headers_are_recorded_in_order_with_repeats_and_bytes_kept(sandbox: Sandbox) -> None:
    await raw(
        sandbox.url, b"GET /v2/me HTTP/1.1\r\nHost: h\r\nX-b: 1\r\nx-B: 2\r\nX-A: \xe9\r\nConnection: close\r\n\r\n"
    )
    (request,) = sandbox.requests
    assert request.headers == (("Host", "h"), ("X-b", "1"), ("x-B", "2"), ("X-A", "\xe9"), ("Connection", "close"))
    assert (request.method, request.at, request.token, request.status) == ("GET", NOW, None, 401)


async def test_two_authorization_headers_are_no_good_token(sandbox: Sandbox) -> None:
    line = f"Authorization: Bearer {sandbox.options.api_key}\r\n"
    reply = await raw(sandbox.url, f"GET /v2/me HTTP/1.1\r\nHost: h\r\n{line}{line}Connection: close\r\n\r\n".encode())
    assert reply.head.status == 401


async def test_an_absolute_target_is_answered_as_its_origin_form(sandbox: Sandbox) -> None:
    head = f"GET http://h/v2/me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {sandbox.options.api_key}\r\n"
    assert (await raw(sandbox.url, f"{head}\r\n".encode())).head.status == 200
    assert sandbox.requests[0].target == "http://h/v2/me"


@pytest.mark.parametrize(("size", "kept"), [(0, True), (64 * 1024, True), (64 * 1024 + 1, False), (9 << 20, False)])
async def test_a_body_up_to_64_kib_is_kept_and_a_longer_one_told_by_length_and_digest(
    size: int, kept: bool, sandbox: Sandbox, session: ClientSession
) -> None:
    body = b"x" * size
    async with session.post(sandbox.url + "/v2/imports", data=BytesIO(body), headers=bearer(sandbox)) as response:
        assert response.status == 200
    (request,) = sandbox.requests
    assert (request.length, request.sha256) == (size, hashlib.sha256(body).hexdigest())
    assert request.body == (body if kept else b"")
    assert request.token == sandbox.options.api_key


async def test_a_compressed_body_is_kept_as_it_came(sandbox: Sandbox, session: ClientSession) -> None:
    headers = {**bearer(sandbox), "Content-Encoding": "br"}
    async with session.post(sandbox.url + "/v2/imports", data=b"not really", headers=headers) as response:
        assert response.status == 200
    assert sandbox.requests[0].body == b"not really"


async def test_a_request_is_recorded_before_its_body_has_come(sandbox: Sandbox) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sandbox.url))
    writer.write(b"POST /v2/imports HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert [(request.method, request.status) for request in sandbox.requests] == [("POST", None)]
    writer.close()
    await writer.wait_closed()


def test_the_ledger_is_bounded() -> None:
    log: RequestLog[RecordedRequest] = RequestLog()
    for number in range(LENGTH + 5):
        log.add(RecordedRequest(method="GET", target=str(number), headers=(), at=0))
    assert (len(log.entries), log.entries[0].target) == (LENGTH, "5")


async def test_a_cleared_ledger_stays_clear_of_what_was_under_way(sandbox: Sandbox, session: ClientSession) -> None:
    async with session.get(sandbox.url + "/v2/me", headers=bearer(sandbox)):
        assert len(sandbox.requests) == 1
    sandbox.requests.clear()
    async with session.get(sandbox.url + "/v2/me", headers=bearer(sandbox)):
        assert len(sandbox.requests) == 1


async def test_a_stopped_sandbox_starts_again_on_its_port_with_its_state(session: ClientSession) -> None:
    sandbox = Sandbox()
    await sandbox.start()
    token, url = sandbox.issue().access_token, sandbox.url
    await sandbox.stop()
    await sandbox.stop()
    await sandbox.start(port=port_of(url))
    async with session.get(url + "/v2/me", headers=bearer(sandbox, token)) as response:
        assert response.status == 200
    await sandbox.stop()


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Options().budget = 1  # type: ignore[misc]


async def test_each_sandbox_starts_with_the_same_team_and_writes_to_its_own(session: ClientSession) -> None:
    async def people(sandbox: Sandbox) -> bytes:
        async with session.get(sandbox.url + "/v2/people?per_page=100", headers=bearer(sandbox)) as response:
            return await response.read()

    async with running() as one, running() as other:
        before = await people(one)
        assert await people(other) == before
        async with session.delete(one.url + "/v2/people/120", headers=bearer(one)) as response:
            assert response.status == 204
        assert await people(one) != before
        assert await people(other) == before


# Its own pages


async def test_the_requests_page_masks_tokens(sandbox: Sandbox, session: ClientSession) -> None:
    pair = sandbox.issue()
    headers = bearer(sandbox, pair.access_token) | {"X-Api-Key": "very-secret-key"}
    async with session.get(sandbox.url + "/v2/me", headers=headers):
        pass
    async with session.get(sandbox.url + "/_sandbox/requests") as response:
        text = await response.text()
        (request,) = (await response.json())["requests"]
    assert pair.access_token not in text
    assert "very-secret-key" not in text
    assert request["token"] == "…" + pair.access_token[-4:]
    assert (request["target"], request["status"]) == ("/v2/me", 200)


async def test_the_state_counts_and_reset_forgets(sandbox: Sandbox, session: ClientSession) -> None:
    token = sandbox.issue().access_token
    async with session.delete(sandbox.url + "/v2/people/1", headers=bearer(sandbox, token)):
        pass
    async with session.post(sandbox.url + "/oauth/token"):
        pass
    async with session.get(sandbox.url + "/_sandbox/state") as response:
        told = {"requests": 1, "token_requests": 1, "tokens_alive": 1, "budget_remaining": 599}
        assert await response.json() == {"now": NOW, **told}
    sandbox.advance(5)
    async with session.post(sandbox.url + "/_sandbox/reset") as response:
        told = {"requests": 0, "token_requests": 0, "tokens_alive": 0, "budget_remaining": 600}
        assert await response.json() == {"now": NOW, **told}
    async with session.get(sandbox.url + "/v2/people/1", headers=bearer(sandbox)) as response:
        assert response.status == 200


async def test_the_clock_is_moved_by_its_page(sandbox: Sandbox, session: ClientSession) -> None:
    pair = sandbox.issue(lifetime=60)
    async with session.post(sandbox.url + "/_sandbox/clock", json={"advance": 61}) as response:
        assert await response.json() == {"now": NOW + 61}
    async with session.get(sandbox.url + "/v2/me", headers=bearer(sandbox, pair.access_token)) as response:
        assert response.status == 401


async def test_a_fault_is_armed_listed_and_cleared_by_its_page(sandbox: Sandbox, session: ClientSession) -> None:
    url = sandbox.url + "/_sandbox/faults"
    armed = {"fault": "status=503;times=2", "on": "api", "path": "/v2/people"}
    async with session.post(url, json=armed) as response:
        assert await response.json() == {**armed, "left": 2}
    async with session.get(sandbox.url + "/v2/people", headers=bearer(sandbox)) as response:
        assert response.status == 503
    async with session.get(url) as response:
        assert await response.json() == {"faults": [{**armed, "left": 1}]}
    async with session.delete(url) as response:
        assert await response.json() == {"faults": []}
    async with session.get(sandbox.url + "/v2/people", headers=bearer(sandbox)) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "page", "body", "status"),
    [
        ("POST", "faults", '{"fault": "explode"}', 400),
        ("POST", "faults", '{"fault": "reset", "on": "moon"}', 400),
        ("POST", "faults", '{"fault": "reset", "path": 1}', 400),
        ("POST", "faults", "{", 400),
        ("POST", "faults", "[]", 400),
        ("POST", "clock", '{"advance": "soon"}', 400),
        ("POST", "clock", "{}", 400),
        ("GET", "nothing", "", 404),
        ("GET", "", "", 200),
        ("HEAD", "state", "", 200),
    ],
)
async def test_a_page_says_what_it_takes(
    method: str, page: str, body: str, status: int, sandbox: Sandbox, session: ClientSession
) -> None:
    async with session.request(method, f"{sandbox.url}/_sandbox/{page}", data=body) as response:
        assert response.status == status
        if status == 400:
            assert "error" in await response.json()
    assert not sandbox.requests, "its own pages are not the API's"


async def test_an_upload_that_breaks_off_is_recorded_without_a_body_or_a_status(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sandbox.url))
    writer.write(b"POST /v2/imports HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc")
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert [(request.length, request.status) for request in sandbox.requests] == [(0, None)]
    assert not caplog.records
