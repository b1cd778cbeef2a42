"""The listener of ``metrics.port``: who scrapes and probes gets what it asks for, and nobody gets more."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.app import App
from slproxy.config import AuthSettings, ListenSettings, MetricsSettings, Secret, Settings
from slproxy.errors import ConfigError
from slproxy.observe import AccessLog
from slproxy.store import MemoryStore
from tests.support.metrics import series
from tests.support.pair import LOCAL_KEY, asked, problem
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until

NOBODY = "http://127.0.0.1:9"


def with_metrics(settings: Settings, **listen: object) -> Settings:
    return replace(
        settings,
        listen=replace(settings.listen, **listen),  # type: ignore[arg-type]
        metrics=MetricsSettings(port=0),
    )


async def scraped(app: App) -> dict[str, float]:
    answer = await asked(app.open_urls[0], get("/metrics", host="10.1.2.3:9464"))
    assert answer.head.status == 200
    return series(answer.body.decode())


@pytest.mark.parametrize("prefix", ["/", "/_slproxy/"])
@pytest.mark.parametrize("name", ["healthz", "readyz", "metrics"])
async def test_its_pages_ask_for_neither_key_nor_host(prefix: str, name: str) -> None:
    settings = with_metrics(settings_for(NOBODY), key=Secret(LOCAL_KEY))
    async with proxy(settings) as app:
        for request in (get(prefix + name, host="10.1.2.3"), f"GET {prefix}{name} HTTP/1.0\r\n\r\n".encode()):
            answer = await asked(app.open_urls[0], request)
            assert (answer.head.status, answer.head.get("Proxy-Status")) == (200, "slproxy")


@pytest.mark.parametrize(
    "target", ["/v2/me.json", "/_slproxy/status.json", "/_slproxy/", "/", "/metrics/../status.json"]
)
async def test_it_serves_nothing_else_and_sends_nothing(target: str) -> None:
    async with ScriptedUpstream() as upstream, proxy(with_metrics(settings_for(upstream.url))) as app:
        refused = problem(await asked(app.open_urls[0], get(target)), status=404, kind="not-found")
    assert "/metrics" in str(refused["hint"])
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/metrics", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST"), 400),
        (get("/metrics", "X: " + "x" * 70_000), 431),
        (get("/" + "x" * 40_000), 414),
        (get("http://127.0.0.1/metrics"), 404),
        (b"\x16\x03\x01\x02\x00", 400),
    ],
    ids=["framed twice", "long headers", "long target", "absolute target", "TLS"],
)
async def test_what_does_not_parse_or_is_too_long_is_refused_as_elsewhere(request_bytes: bytes, status: int) -> None:
    async with proxy(with_metrics(settings_for(NOBODY))) as app:
        assert (await asked(app.open_urls[0], request_bytes)).head.status == status
        assert (await asked(app.open_urls[0], get("/healthz"))).head.status == 200


async def test_its_pages_are_only_read() -> None:
    async with proxy(with_metrics(settings_for(NOBODY))) as app:
        posted = await asked(app.open_urls[0], get("/metrics", method="POST", body=b"{}"))
        head = await asked(app.open_urls[0], get("/metrics", method="HEAD"), method="HEAD")
    problem(posted, status=405, kind="method-refused")
    assert posted.head.get("Allow") == "GET, HEAD"
    assert (head.head.status, head.body) == (200, b"")


async def test_readyz_tells_no_reason_there() -> None:
    settings = settings_for(NOBODY, auth=AuthSettings(grant="authorization_code", client_id="cid"))
    async with proxy(with_metrics(settings)) as app:
        told = problem(await asked(app.urls[0], get("/_slproxy/readyz")), status=503, kind="login-required")
        untold = problem(await asked(app.open_urls[0], get("/readyz")), status=503, kind="login-required")
        assert (await scraped(app))["slproxy_login_required"] == 1
    assert untold["detail"] != told["detail"]


async def test_on_the_port_of_clients_the_metrics_are_a_page_like_others() -> None:
    settings = replace(settings_for(NOBODY), listen=ListenSettings(port=0, key=Secret(LOCAL_KEY)))
    async with proxy(settings) as app:
        assert app.open_urls == []
        problem(await asked(app.urls[0], get("/_slproxy/metrics")), status=401, kind="key-required")
        problem(await asked(app.urls[0], get("/_slproxy/metrics", host="10.1.2.3")), status=421, kind="host-refused")
        answer = await asked(app.urls[0], get("/_slproxy/metrics", f"X-Slproxy-Key: {LOCAL_KEY}"))
    assert answer.head.status == 200
    assert series(answer.body.decode())["slproxy_ready"] == 1


async def test_it_answers_until_the_proxy_has_drained_and_says_so() -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    go_on = asyncio.Event()
    async with ScriptedUpstream(script) as upstream, proxy(with_metrics(settings_for(upstream.url))) as app:
        asking = asyncio.create_task(asked(app.urls[0], get("/v2/a")))
        await until(lambda: len(upstream.seen) == 1)
        going_down = asyncio.create_task(app.drain(at_once=asyncio.Event()))
        await until(lambda: app.is_draining)
        problem(await asked(app.open_urls[0], get("/readyz")), status=503, kind="draining")
        found = await scraped(app)
        assert (found["slproxy_ready"], found["slproxy_requests_in_flight"]) == (0, 1)
        go_on.set()
        await going_down
        assert (await asking).head.status == 200
        assert (await asked(app.open_urls[0], get("/healthz"))).head.status == 200
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port_of(app.open_urls[0]))


async def test_who_scrapes_and_probes_is_neither_logged_nor_counted() -> None:
    lines = io.StringIO()
    journal = AccessLog(lines, pretty=False, colour=False)
    async with proxy(with_metrics(settings_for(NOBODY)), listeners=[journal]) as app:
        for name in ("healthz", "metrics", "nothing"):
            await asked(app.open_urls[0], get(f"/{name}"))
        found = await scraped(app)
    assert lines.getvalue() == ""
    assert not any(name.startswith("slproxy_requests_total") for name in found)


async def test_a_reload_leaves_it_where_it_is_and_what_it_tells_is_of_what_is_in_force() -> None:
    settings = with_metrics(settings_for(NOBODY))
    async with proxy(settings) as app:
        asked_for = replace(
            settings, pace=replace(settings.pace, limit=60), metrics=MetricsSettings(host="127.0.0.9", port=9)
        )
        assert (await app.reload(asked_for))[1] == ["metrics.host", "metrics.port"]
        assert (await scraped(app))["slproxy_budget_limit"] == 60


async def test_where_nothing_is_counted_there_is_no_budget() -> None:
    settings = with_metrics(settings_for(NOBODY))
    async with proxy(replace(settings, pace=replace(settings.pace, mode="off"))) as app:
        assert not any(name.startswith("slproxy_budget") for name in await scraped(app))


async def test_who_connects_and_asks_nothing_keeps_nobody_from_it(caplog: pytest.LogCaptureFixture) -> None:
    async with proxy(with_metrics(settings_for(NOBODY))) as app:
        port = port_of(app.open_urls[0])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        assert (await asked(app.open_urls[0], get("/healthz"))).head.status == 200
        assert (await asked(app.urls[0], get("/_slproxy/healthz"))).head.status == 200
        for _, writer in idle:
            writer.close()
    assert "more connections than metrics.port takes (16)" in caplog.text


async def test_a_port_that_is_taken_is_told_by_its_setting() -> None:
    async with proxy(with_metrics(settings_for(NOBODY))) as app:
        taken = replace(settings_for(NOBODY), metrics=MetricsSettings(port=port_of(app.open_urls[0])))
        async with App(taken) as another:
            with pytest.raises(ConfigError, match=r"^metrics\.port: 127\.0\.0\.1:\d+ is in use\."):
                await another.listen()
            assert another.urls == []


async def test_a_proxy_at_a_socket_can_be_scraped(tmp_path: Path) -> None:
    settings = with_metrics(settings_for(NOBODY), uds=str(tmp_path / "proxy.sock"))
    async with proxy(settings) as app:
        assert (await scraped(app))["slproxy_ready"] == 1


async def test_what_is_so_at_the_moment_is_told(tmp_path: Path) -> None:
    async with running_sandbox() as sandbox:
        store = MemoryStore()
        login = login_at(sandbox)
        await store.write(login)
        settings = with_metrics(settings_for(sandbox.url, auth=sandbox_auth(sandbox)))
        async with proxy(settings, store=store) as app:
            await asked(app.urls[0], get("/v2/people.json?per_page=1", "X-Slproxy-Client: report"))
            found = await scraped(app)
    assert found["slproxy_token_expiry_timestamp_seconds"] == pytest.approx(login.token.expires_at, abs=2)
    assert found["slproxy_login_required"] == 0
    assert found["slproxy_client_cost_total{client=report}"] == 1
    assert found["slproxy_operation_requests_total{operation=/v2/people}"] == 1
    assert found["slproxy_budget_limit"] == 600
    assert found["slproxy_budget_remaining"] == 599
    assert found["slproxy_connections{side=upstream}"] == 1
    assert found["slproxy_attempts_total{outcome=200}"] == 1
