"""What one proxy keeps through a reload: its retry budget, and that it is shutting down."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from slproxy.app import App
from slproxy.config.schema import RetrySettings
from slproxy.retry import RetryBudget
from tests.support.clock import FakeTime
from tests.support.pacing import Line, ManualClock
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, raw, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import until

DOWN = reply("503 Service Unavailable", b"{}")


async def reloaded(app: App, turn: int) -> None:
    settings = replace(app.settings, retry=replace(app.settings.retry, deadline=100.0 + turn))
    assert (await app.reload(settings))[0] == ["retry.deadline"]


async def test_the_retry_budget_is_one_for_the_proxy_however_often_it_is_reloaded() -> None:
    async with ScriptedUpstream(replies(DOWN)) as upstream:
        async with proxy(settings_for(upstream.url), clock=FakeTime().clock()) as app:
            for turn in range(8):
                assert (await raw(app.urls[0], get("/v2/a"))).head.status == 503
                await reloaded(app, turn)
        assert len(upstream.seen) == 8 + RetryBudget.FLOOR


async def test_a_reload_puts_another_share_of_retries_in_force() -> None:
    async with ScriptedUpstream(replies(DOWN)) as upstream:
        settings = replace(settings_for(upstream.url), retry=RetrySettings(attempts=2, budget=0.0))
        async with proxy(settings, clock=FakeTime().clock()) as app:
            await app.reload(replace(settings, retry=RetrySettings(attempts=2, budget=1.0)))
            for _ in range(20):
                await raw(app.urls[0], get("/v2/a"))
        assert len(upstream.seen) == 40


async def test_a_request_of_before_a_reload_is_told_as_well_when_the_proxy_goes_down() -> None:
    """It may not wait for longer than the requests in flight are given."""

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply("503 Service Unavailable", b"{}", "Retry-After: 40"))

    go_on, clock = asyncio.Event(), ManualClock(10)
    async with ScriptedUpstream(script) as upstream, proxy(settings_for(upstream.url), clock=clock.proxys()) as app:
        asking = Line(app, clock).begin("/v2/a")
        await until(lambda: len(upstream.seen) == 1)
        await reloaded(app, 1)
        going_down = asyncio.create_task(app.drain(at_once=asyncio.Event()))
        await until(lambda: app.is_draining)
        go_on.set()
        assert (await asking).head.status == 503
        await going_down
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("when", ["before", "while it drains"])
async def test_a_reload_does_not_end_a_drain(when: str) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    go_on = asyncio.Event()
    async with ScriptedUpstream(script) as upstream, proxy(settings_for(upstream.url)) as app:
        asking = Line(app).begin("/v2/a")
        await until(lambda: len(upstream.seen) == 1)
        if when == "before":
            await reloaded(app, 1)
        going_down = asyncio.create_task(app.drain(at_once=asyncio.Event()))
        await until(lambda: app.is_draining)
        if when == "while it drains":
            await reloaded(app, 1)
        assert app.own_pages.state()["draining"] is True
        assert app.own_pages.state()["ready"] is False
        go_on.set()
        assert (await asking).head.status == 200
        await going_down
