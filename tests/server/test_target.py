"""Targets: what reaches the upstream byte for byte, and what is refused; limits of target and headers."""

from __future__ import annotations

import json

import pytest

from slproxy.config.schema import PolicySettings
from tests.support.pair import asked, pair, problem
from tests.support.raw_http import get, port_of


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
        [f"X-{number}: a" for number in range(1024)],
    ],
    ids=["one header", "twenty headers of 4 KiB", "nine thousand small ones", "more than one in 64 bytes"],
)
async def test_a_header_block_over_the_limit_is_431(headers: list[str]) -> None:
    async with pair() as (upstream, app):
        problem(await asked(app.urls[0], get("/v2/a", *headers)), status=431, kind="too-large")
    assert upstream.seen == []


async def test_a_header_block_of_60_kib_and_a_thousand_headers_pass() -> None:
    async with pair() as (upstream, app):
        assert (
            await asked(app.urls[0], get("/v2/a", *[f"X-{number}: a" for number in range(1000)]))
        ).head.status == 200
        upstream.seen.clear()
        response = await asked(app.urls[0], get("/v2/a", *[f"X-{number}: " + "a" * 2000 for number in range(30)]))
        assert response.head.status == 200
    assert upstream.seen[0].head.get("X-29") == "a" * 2000
