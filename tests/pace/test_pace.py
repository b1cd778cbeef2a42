"""The team's budget, over real sockets: who is held, for how long, in which order, and what everybody is told of it.

The proxy goes by the upstream's clock, so an upstream that says that it is a second before the minute's end makes holds
of a second. Such a clock starts with the first request: what a test needs before that costs nothing of it.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector

import slproxy
from slproxy.config import AuthSettings, Secret
from slproxy.errors import LoginRequired
from slproxy.observe import BudgetReading
from slproxy.pace import PROBE_TIMEOUT
from slproxy.pace.pacer import LOG_INTERVAL
from slproxy.sandbox import Sandbox
from slproxy.store import MemoryStore
from tests.support.commands import free_port, pointed_at, state_of
from tests.support.pacing import (
    MINUTE,
    Line,
    ManualClock,
    Ticking,
    line_to,
    logged,
    paced,
    rate_limit,
    salesloft,
    spend_all,
    told_at_once,
    waited,
)
from tests.support.pair import problem
from tests.support.programs import Program, program, run, verified
from tests.support.proxies import settings_for
from tests.support.raw_http import Message, abort, get, port_of, raw, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import PATIENCE, SOON, until

LABEL = re.compile(r"[ -~]{1,200}")


@dataclass
class Script:
    """An upstream at a second of a minute that says of its budget what it is told to say."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(30.0))
    remaining: int | None = None
    # What a reply says besides, by the request's path.
    says: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # The status and more headers, line by line, of a path's first replies; then comes the usual one.
    first: dict[str, list[str]] = field(default_factory=dict)
    # What a reply waits for, by the request's path.
    slow: dict[str, asyncio.Event] = field(default_factory=dict)

    async def __call__(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = message.head.target.partition("?")[0]
        headers = [f"Date: {formatdate(self.clock(), usegmt=True)}", *self.says.get(path, ())]
        if self.remaining is not None:
            headers.append(f"x-ratelimit-remaining-minute: {self.remaining}")
        if path in self.slow:
            await self.slow[path].wait()
        status = "200 OK"
        if self.first.get(path):
            status, *more = self.first[path].pop(0).splitlines()
            headers += more
        bare = status[:3] in ("204", "304")
        writer.write(reply(status, b"" if bare else b"{}", *headers, length=not bare))


@asynccontextmanager
async def scripted(
    script: Script, handler: Handler | None = None, *, connections: int = 100, **pace: object
) -> AsyncIterator[tuple[Line, ScriptedUpstream]]:
    """Run an upstream that follows a script, and a proxy by the same clock; ``handler`` stands before the script."""
    async with ScriptedUpstream(handler or script) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, upstream=replace(settings.upstream, max_connections=connections))
        async with line_to(paced(settings, limit_given=False, **pace), clock=script.clock) as line:
            yield line, upstream


def targets(upstream: ScriptedUpstream) -> list[str]:
    return [message.head.target for message in upstream.seen]


# Foresight.


@pytest.mark.parametrize(("page", "cost"), [(1, 1), (100, 1), (101, 3), (150, 3), (151, 8), (251, 10), (501, 30)])
async def test_a_page_is_charged_before_it_is_sent(page: object, cost: int) -> None:
    async with salesloft(20) as (line, sandbox):
        await spend_all(line, sandbox, but=cost)
        answer = await line.at_once(f"/v2/people?page={page}", "Prefer: wait=0")
        assert (answer.head.status, sandbox.remaining()) == (200, 0)
    async with salesloft(20) as (line, sandbox):
        await spend_all(line, sandbox, but=cost - 1)
        told_at_once(await line.at_once(f"/v2/people?page={page}", "Prefer: wait=1"))
        assert (len(sandbox.requests), sandbox.remaining()) == (1, cost - 1)


async def test_what_is_in_flight_is_spent() -> None:
    script = Script(slow={"/v2/people": (go_on := asyncio.Event())})
    async with scripted(script) as (line, upstream):
        asked = [line.begin("/v2/people?page=501") for _ in range(600 // 30)]
        await until(lambda: len(upstream.seen) == len(asked))
        told_at_once(await line.at_once("/v2/me", "Prefer: wait=0"))
        go_on.set()
        assert {answer.head.status for answer in await asyncio.gather(*asked)} == {200}
        assert len(upstream.seen) == len(asked)


async def test_what_an_endpoint_costs_is_learned_and_charged_the_next_time() -> None:
    script = Script(remaining=4, says={f"/v2/costly/{n}": ("x-ratelimit-endpoint-cost: 5",) for n in (1, 2)})
    async with scripted(script) as (line, upstream):
        assert (await line.at_once("/v2/costly/1")).head.status == 200
        told_at_once(await line.at_once("/v2/costly/2", "Prefer: wait=1"))
        # Another endpoint, and another method on that one, are not that one.
        assert (await line.at_once("/v2/cheap/1")).head.status == 200
        script.remaining = 3
        assert (await line.ask("/v2/costly/1", method="PUT", body=b"{}")).head.status == 200
        assert targets(upstream) == ["/v2/costly/1", "/v2/cheap/1", "/v2/costly/1"]
        assert line.minute["by_endpoint"] == {
            "GET /v2/costly/{id}": 5,
            "GET /v2/cheap/{id}": 1,
            "PUT /v2/costly/{id}": 5,
        }


async def test_what_others_have_spent_holds_the_next_one() -> None:
    async with salesloft(20) as (line, sandbox):
        assert rate_limit((await line.at_once("/v2/me")).head)[:2] == (600, 599)
        await spend_all(line, sandbox)
        told_at_once(await line.at_once("/v2/me", "Prefer: wait=1"))
        assert line.minute["by_others"] == 598
        assert line.minute["spent"] == 2


async def test_a_reply_that_comes_late_never_raises_the_budget() -> None:
    script = Script(remaining=500, slow={"/v2/slow": (go_on := asyncio.Event())})

    async def out_of_order(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What a reply tells is of the moment at which the upstream wrote it.
        told = replace(script, remaining=script.remaining)
        await told(message, reader, writer)

    async with scripted(script, out_of_order) as (line, upstream):
        slow = line.begin("/v2/slow")
        await until(lambda: len(upstream.seen) == 1)
        script.remaining = 0
        await line.at_once("/v2/me")
        go_on.set()
        late = await slow
        assert late.head.get("x-ratelimit-remaining-minute") == "500"
        assert rate_limit(late.head)[1] == 0
        told_at_once(await line.at_once("/v2/me", "Prefer: wait=1"))


@pytest.mark.parametrize("limit", [20, 1_000])
async def test_the_limit_is_learned(limit: int) -> None:
    async with salesloft(5, budget=limit) as (line, sandbox):
        assert rate_limit((await line.at_once("/v2/me")).head)[:2] == (limit, limit - 1)
        left = [f"/v2/people?page={'501' if limit > 600 else 1}"] * ((limit - 1) // (30 if limit > 600 else 1))
        answers = await asyncio.gather(*(line.at_once(target) for target in left))
        assert {answer.head.status for answer in answers} == {200}
        assert {request.status for request in sandbox.requests} == {200}
        sandbox.spend(sandbox.remaining())
        if limit == 20:
            told_at_once(await line.at_once("/v2/me", "Prefer: wait=1"))


async def test_a_limit_that_was_set_is_kept_where_salesloft_allows_more() -> None:
    async with salesloft(20, limit=5, limit_given=True) as (line, sandbox):
        answers = await asyncio.gather(*(line.at_once("/v2/me") for _ in range(5)))
        assert {answer.head.status for answer in answers} == {200}
        refused = await line.at_once("/v2/me", "Prefer: wait=1")
        told_at_once(refused)
        assert rate_limit(refused.head)[:2] == (5, 0)
        assert sandbox.remaining() == 595


async def test_a_limit_that_was_set_does_not_hide_a_lower_one() -> None:
    async with salesloft(20, budget=3, limit=5, limit_given=True) as (line, _):
        assert rate_limit((await line.at_once("/v2/me")).head)[:2] == (3, 2)


async def test_a_reserve_leaves_its_share_to_others() -> None:
    async with salesloft(20, budget=10, reserve=0.5) as (line, sandbox):
        answers = [await line.at_once("/v2/me", "Prefer: wait=1") for _ in range(6)]
        assert [answer.head.status for answer in answers] == [200] * 5 + [429]
        assert rate_limit(answers[-1].head)[:2] == (5, 0)
        assert sandbox.remaining() == 5


async def test_an_upstream_that_tells_nothing_is_paced_by_our_own_clock() -> None:
    async with ScriptedUpstream() as upstream:
        clock = ManualClock(59)
        settings = paced(settings_for(upstream.url), limit=3, limit_given=True)
        async with line_to(settings, clock=clock) as line:
            answers = [await line.at_once("/v2/me") for _ in range(3)]
            assert rate_limit(answers[-1].head)[:2] == (3, 0)
            held = await line.hold("/v2/me")
            clock.advance(0.99)
            assert line.held == 1
            clock.advance(0.01)
            assert (await held).head.status == 200
            assert waited((await held).head) == 1.0


# Waiting.


async def test_metrics_read_the_budget_its_queue_and_what_others_spend() -> None:
    async with salesloft(59) as (line, sandbox):
        await spend_all(line, sandbox)
        held = [await line.hold("/v2/me"), *[await line.hold("/v2/me", "X-Slproxy-Priority: bulk") for _ in range(2)]]
        expected = BudgetReading(limit=600, quota=600, remaining=0, interactive=1, bulk=2, by_others=0)
        assert line.app.pacer.reading() == expected
        line.clock.advance(1.0)
        await asyncio.gather(*held)
        read = line.app.pacer.reading()
        assert read is not None
        assert (read.interactive, read.bulk, read.by_others) == (0, 0, 599)
        assert {of: wait.counts for of, wait in line.app.listeners.tally.waits.items()} == {
            ("rate limit", False): [0, 1, 0, 0, 0, 0, 0, 0],
            ("rate limit", True): [0, 2, 0, 0, 0, 0, 0, 0],
        }


@pytest.mark.parametrize("wrong", [-90.0, 90.0], ids=["slow by 90 s", "fast by 90 s"])
async def test_what_would_overdraw_is_held_until_the_upstreams_next_minute_whatever_our_own_clock_says(
    wrong: float,
) -> None:
    async with salesloft(59, wrong=wrong) as (line, sandbox):
        await spend_all(line, sandbox)
        held = [await line.hold("/v2/me", "X-Slproxy-Client: report") for _ in range(3)]
        line.clock.advance(0.99)
        assert line.held == 3
        line.clock.advance(0.01)
        answers = await asyncio.gather(*held)
        assert [answer.head.status for answer in answers] == [200] * 3
        assert [request.status for request in sandbox.requests] == [200] * 4
        assert [waited(answer.head) for answer in answers] == [1.0] * 3
        assert rate_limit(answers[-1].head)[0] == 600
        # What is told of the minute that is over, and of the one that has begun.
        minute, minutes = line.minute, line.budget["last_minutes"]
        assert isinstance(minutes, list)
        (last,) = minutes
        assert (last["at"], last["spent"], last["by_others"]) == ("2026-11-18T11:07:00Z", 1, 599)
        assert (minute["at"], minute["spent"], minute["by_client"]) == ("2026-11-18T11:08:00Z", 3, {"report": 3})
        assert (minute["waited"], minute["longest_wait"]) == (3, 1.0)


async def test_those_who_wait_are_sent_in_the_order_in_which_they_came() -> None:
    # One connection, so that the upstream sees them in the order in which they were sent.
    async with salesloft(59, connections=1) as (line, sandbox), ClientSession(connector=TCPConnector(limit=0)) as pool:
        await spend_all(line, sandbox)
        held: list[asyncio.Task[object]] = []

        async def pooled(target: str) -> None:
            async with pool.get(line.url + target) as response:
                assert response.status == 200

        for number in range(0, 12, 2):
            held.append(await line.hold(f"/v2/people/{number + 1}"))
            held.append(asyncio.create_task(pooled(f"/v2/people/{number + 2}")))
            await until(lambda number=number: line.held == number + 2)  # type: ignore[misc]
        line.clock.advance(1.0)
        await asyncio.gather(*held)
        assert [request.target for request in sandbox.requests[1:]] == [f"/v2/people/{n}" for n in range(1, 13)]
        assert {request.status for request in sandbox.requests} == {200}


async def test_a_cheap_request_does_not_overtake_a_dear_one() -> None:
    async with salesloft(59, connections=1) as (line, sandbox):
        await spend_all(line, sandbox, but=5)
        dear = await line.hold("/v2/people?page=501")
        cheap = await line.hold("/v2/me")
        line.clock.advance(1.0)
        assert [answer.head.status for answer in await asyncio.gather(dear, cheap)] == [200, 200]
        assert [request.target for request in sandbox.requests[1:]] == ["/v2/people?page=501", "/v2/me"]


async def test_a_429_is_seen_by_nobody_and_everybody_waits_it_out() -> None:
    body = b'{"data": 1}' * 1_000
    async with salesloft(59) as (line, sandbox):
        assert (await line.at_once("/v2/me")).head.status == 200
        sandbox.spend(sandbox.remaining())
        writes = [
            line.begin("/v2/people", "Content-Type: application/json", method="POST", body=body),
            line.begin("/v2/people/1", method="DELETE"),
            line.begin("/v2/people/2", "Content-Type: application/json", method="PATCH", body=body),
        ]
        await until(lambda: any(request.status == 429 for request in sandbox.requests))
        # Whoever comes now is not sent, but waits as well.
        other = line.begin("/v2/me")
        await until(lambda: line.held == 4)
        line.clock.advance(1.0)
        answers = await asyncio.gather(*writes, other)
        assert 429 not in {answer.head.status for answer in answers}
        late = [request for request in sandbox.requests if request.status != 429][1:]
        assert all(request.at >= MINUTE + 60 for request in late)
        assert sorted(request.method for request in late) == ["DELETE", "GET", "PATCH", "POST"]
        assert {request.length for request in late if request.method in ("POST", "PATCH")} == {len(body)}
        # What told it was sent before the minute was known to be over.
        assert all(request.at < MINUTE + 60 for request in sandbox.requests if request.status == 429)
        assert answers[0].head.get("X-Slproxy-Attempts") == "2"
        assert waited(answers[0].head) > 0


async def test_a_retry_after_on_a_429_holds_everybody_for_as_long_and_no_longer() -> None:
    script = Script(first={"/v2/people": ["429 Too Many Requests\nRetry-After: 6"]})
    async with scripted(script) as (line, upstream):
        refused = line.begin("/v2/people", method="POST", body=b"{}")
        await until(lambda: line.minute["refused"] == 1)
        other = line.begin("/v2/me")
        await until(lambda: line.held == 2)
        line.clock.advance(5.99)
        assert (line.held, len(upstream.seen)) == (2, 1)
        line.clock.advance(0.01)
        assert [answer.head.status for answer in await asyncio.gather(refused, other)] == [200, 200]
        assert [message.body for message in upstream.seen if message.head.method == "POST"] == [b"{}", b"{}"]


async def test_a_429_stops_those_who_wait_for_a_connection_as_well() -> None:
    async with salesloft(57, connections=2) as (line, sandbox):
        assert (await line.at_once("/v2/me")).head.status == 200
        sandbox.spend(sandbox.remaining() - 10)
        asked = [line.begin(f"/v2/people?{n}") for n in range(40)]
        await until(lambda: line.held == 30)
        line.clock.advance(3.0)
        answers = await asyncio.gather(*asked)
        assert {answer.head.status for answer in answers} == {200}
        assert sum(request.status == 429 for request in sandbox.requests) <= 2
        assert all(waited(answer.head) > 0 for answer in answers if answer.head.get("X-Slproxy-Attempts"))
        assert (line.held, line.budget["in_flight"]) == (0, 0)


async def test_who_waits_for_a_connection_is_held_no_longer_than_pace_max_wait() -> None:
    script = Script(first={"/v2/slow": ["429 Too Many Requests"]}, slow={"/v2/slow": (go_on := asyncio.Event())})
    async with scripted(script, connections=1, max_wait=1.0) as (line, upstream):
        slow = line.begin("/v2/slow", "X-Slproxy-Retry: off")
        await until(lambda: len(upstream.seen) == 1)
        other = line.begin("/v2/me")
        await until(lambda: line.budget["in_flight"] == 2)
        go_on.set()
        assert (await slow).head.status == 429
        told_at_once(await other)
        assert targets(upstream) == ["/v2/slow"]


@pytest.mark.parametrize("prefer", [(), ("Prefer: wait=30",)], ids=["as long as it takes", "half a minute"])
async def test_the_first_of_a_minute_is_asked_again_where_another_clock_counts(prefer: tuple[str, ...]) -> None:
    """Date is half a second ahead here; that it is not is inferred only (docs/salesloft.md, Rate limit)."""
    clock = ManualClock(59.0)

    async def half_a_second_late(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        date = f"Date: {formatdate(at := clock(), usegmt=True)}"
        if MINUTE + 60 <= at < MINUTE + 60.5:
            writer.write(reply("429 Too Many Requests", b"", date))
        else:
            left = 0 if at < MINUTE + 60 else 599
            writer.write(reply("200 OK", b"{}", date, f"x-ratelimit-remaining-minute: {left}"))

    async with scripted(Script(clock), half_a_second_late) as (line, _):
        assert (await line.at_once("/v2/me")).head.status == 200
        held = [await line.hold("/v2/me", *prefer) for _ in range(5)]
        clock.advance(1.0)
        await until(lambda: (line.minute["refused"], line.held) == (1, 5))
        clock.advance(1.0)
        answers = await asyncio.gather(*held)
        assert {answer.head.status for answer in answers} == {200}
        assert line.minute["refused"] == 1


async def test_who_is_refused_on_the_way_down_is_told_where_its_minute_comes_too_late() -> None:
    script = Script(
        ManualClock(5),
        first={"/v2/people": ["429 Too Many Requests"]},
        slow={"/v2/people": (go_on := asyncio.Event())},
    )
    async with scripted(script) as (line, upstream):
        asked = line.begin("/v2/people")
        await until(lambda: len(upstream.seen) == 1)
        down = asyncio.create_task(line.app.drain(at_once=asyncio.Event()))
        await until(lambda: line.app.is_draining)
        go_on.set()
        answer = await asyncio.wait_for(asked, SOON)
        # SalesLoft's own last word, since there is no time for a better one.
        assert (answer.head.status, answer.head.get("Proxy-Status")) == (429, None)
        await asyncio.wait_for(down, SOON)


async def test_who_was_refused_keeps_its_place_among_those_who_wait() -> None:
    async with salesloft(58) as (line, sandbox):
        assert (await line.at_once("/v2/me")).head.status == 200
        sandbox.spend(sandbox.remaining())
        refused = line.begin("/v2/people?first", "Prefer: wait=9")
        await until(lambda: any(request.status == 429 for request in sandbox.requests))
        others = [await line.hold(f"/v2/people?{n}") for n in range(20)]
        await until(lambda: line.held == 21)
        line.clock.advance(2.0)
        answer = await refused
        assert (answer.head.status, answer.head.get("X-Slproxy-Attempts")) == (200, "2")
        assert {other.head.status for other in await asyncio.gather(*others)} == {200}
        sent = [request.target for request in sandbox.requests if request.at >= MINUTE + 60]
        assert sent[0] == "/v2/people?first"
        assert waited(answer.head) > 0


async def test_the_cure_of_a_429_has_a_time_of_its_own() -> None:
    """Where nothing may be held, what SalesLoft has refused is still cured."""
    async with salesloft(58, max_wait=0.0) as (line, sandbox):
        assert (await line.at_once("/v2/me")).head.status == 200
        sandbox.spend(sandbox.remaining())
        asked = await line.hold("/v2/people", method="POST", body=b"{}")
        line.clock.advance(2.0)
        answer = await asked
        assert (answer.head.status, answer.head.get("X-Slproxy-Attempts")) == (200, "2")


async def test_interactive_goes_before_bulk_and_bulk_gets_a_tenth() -> None:
    async with salesloft(58, connections=1) as (line, sandbox):
        await spend_all(line, sandbox)
        held = [await line.hold(f"/v2/people?bulk={n}", "X-Slproxy-Priority: Bulk") for n in range(5)]
        held += [await line.hold(f"/v2/people?soon={n}", "X-Slproxy-Priority: interactive") for n in range(25)]
        assert line.queue == {"interactive": 25, "bulk": 5}
        line.clock.advance(2.0)
        await asyncio.gather(*held)
        order = [request.target.partition("?")[2] for request in sandbox.requests[1:]]
    assert [each for each in order if each.startswith("soon")] == [f"soon={n}" for n in range(25)]
    assert [each for each in order if each.startswith("bulk")] == [f"bulk={n}" for n in range(5)]
    assert all(each.startswith("soon") for each in order[:5])
    # A tenth of what goes while both wait; the rest afterwards.
    assert sum(each.startswith("bulk") for each in order[:20]) in (1, 2, 3)


async def test_at_the_top_of_the_minute_no_more_connections_are_used_than_allowed() -> None:
    together = most = 0
    script = Script(ManualClock(59), remaining=0)

    async def counting(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        # A turn of the loop or two, so that others could come in between.
        for _ in range(20):
            await asyncio.sleep(0)
        script.remaining = 500 if script.clock() >= MINUTE + 60 else 0
        await script(message, reader, writer)
        together -= 1

    async with scripted(script, counting, connections=3) as (line, upstream):
        await line.at_once("/v2/me")
        held = [await line.hold("/v2/me") for _ in range(20)]
        line.clock.advance(1.0)
        answers = await asyncio.gather(*held)
    assert {answer.head.status for answer in answers} == {200}
    assert len(upstream.seen) == 21
    assert (most, upstream.connections) == (3, 3)


async def test_a_burst_is_spread_over_the_minute() -> None:
    async with salesloft(0, budget=100, burst=0.1) as (line, sandbox):
        assert (await line.at_once("/v2/me")).head.status == 200  # tells the limit
        asked = [line.begin("/v2/me") for _ in range(11)]
        await until(lambda: (line.held, len(sandbox.requests)) == (2, 10))
        # Ten may go at once; one and a half come free each second.
        for second, held in ((0.66, 2), (0.67, 1), (1.33, 1), (1.34, 0)):
            line.clock.advance_to(second)
            assert line.held == held
        assert {answer.head.status for answer in await asyncio.gather(*asked)} == {200}


# Over budget.


@pytest.mark.parametrize("prefer", [("Prefer: wait=1",), ("Prefer: respond-async", "Prefer: wait=2")], ids=" | ".join)
async def test_a_request_that_may_not_wait_so_long_is_told_at_once(prefer: tuple[str, ...]) -> None:
    async with salesloft(30) as (line, sandbox):
        await spend_all(line, sandbox)
        assert told_at_once(await line.at_once("/v2/me", *prefer)) == 30
        assert (len(sandbox.requests), line.held) == (1, 0)


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=\u0661"])
async def test_a_preference_that_is_none_is_not_one(prefer: str) -> None:
    async with salesloft(30) as (line, sandbox):
        await spend_all(line, sandbox)
        held = await line.hold("/v2/me", f"Prefer: {prefer}")
        held.cancel()
        await until(lambda: line.held == 0)


async def test_without_any_wait_what_is_over_budget_is_told_at_once_and_the_rest_goes() -> None:
    async with salesloft(30, budget=10, max_wait=0.0) as (line, sandbox):
        assert (await line.at_once("/v2/me")).head.status == 200
        answers = await asyncio.gather(*(line.at_once("/v2/me") for _ in range(30)))
        refused = [answer for answer in answers if answer.head.status == 429]
        assert {told_at_once(answer) for answer in refused} <= set(range(26, 32))
        assert len(refused) == 21
        assert {request.status for request in sandbox.requests} == {200}


@pytest.mark.parametrize("others_wait", [False, True])
async def test_a_request_that_may_not_wait_is_answered_at_once_also_when_the_last_of_it_is_in_flight(
    others_wait: bool,
) -> None:
    """What is in flight may have been counted by the reply that came last, or not: nobody knows, nobody may wait."""
    script = Script(remaining=1, slow={"/v2/slow": (go_on := asyncio.Event())})
    async with scripted(script) as (line, upstream):
        slow = line.begin("/v2/slow")
        await until(lambda: len(upstream.seen) == 1)
        assert (await line.at_once("/v2/me")).head.status == 200
        waiting = await line.hold("/v2/people") if others_wait else None
        told_at_once(await line.at_once("/v2/me", "Prefer: wait=0"))
        go_on.set()
        await slow
        if waiting is not None:
            waiting.cancel()


async def test_nobody_waits_for_long_to_learn_whether_the_budget_is_back() -> None:
    """A new minute is opened by one request; whoever may not wait for its reply is told, and the others soon go."""
    script = Script(ManualClock(59), remaining=0, slow={"/v2/first": (go_on := asyncio.Event())})
    async with scripted(script) as (line, upstream):
        await line.at_once("/v2/me")
        first, second = await line.hold("/v2/first"), await line.hold("/v2/me?second")
        script.remaining = None
        line.clock.advance(1.0)
        await until(lambda: len(upstream.seen) == 2)
        assert told_at_once(await line.at_once("/v2/me?hasty", "Prefer: wait=0")) <= 2
        line.clock.advance(PROBE_TIMEOUT - 0.01)
        assert line.held == 1
        line.clock.advance(0.01)
        assert (await second).head.status == 200
        assert not first.done()
        go_on.set()
        assert (await first).head.status == 200


async def test_whoever_comes_back_after_retry_after_is_served() -> None:
    async with salesloft(59) as (line, sandbox):
        await spend_all(line, sandbox)
        seconds = told_at_once(await line.at_once("/v2/me", "Prefer: wait=0"))
        assert seconds <= 2
        line.clock.advance(seconds)
        answer = await line.at_once("/v2/me", "Prefer: wait=0")
        assert answer.head.status == 200
        assert {request.status for request in sandbox.requests} == {200}


async def test_retry_after_counts_those_who_wait_already() -> None:
    async with salesloft(50, budget=10) as (line, sandbox):
        # By us, for what others spend is expected of them in the next minute as well.
        for _ in range(10):
            await line.at_once("/v2/me")
        # Ten fit into the next minute and ten into the one after it: they wait for 10 s and for 70.
        held = [await line.hold("/v2/me") for _ in range(20)]
        seconds = told_at_once(await line.at_once("/v2/me"))
        assert 10 + 60 + 60 - 10 <= seconds <= 10 + 60 + 60 + 2
        told_at_once(await line.at_once("/v2/me", "Prefer: wait=60"))
        assert (line.held, len(sandbox.requests)) == (20, 10)
        for task in held:
            task.cancel()
        await until(lambda: line.held == 0)


@pytest.mark.parametrize(
    ("retry_after", "sent"), [("", 1), ("\nRetry-After: 6", 2), ("\nRetry-After: 30", 1)], ids=["bare", "6 s", "30 s"]
)
async def test_the_cure_of_a_429_holds_nobody_for_longer_than_wished(retry_after: str, sent: int) -> None:
    script = Script(first={"/v2/me": [f"429 Too Many Requests{retry_after}"] * 4})
    async with scripted(script) as (line, upstream):
        asked = line.begin("/v2/me", "Prefer: wait=6")
        if sent > 1:
            await until(lambda: line.held == 1)
            line.clock.advance(6.0)
        answer = await asked
        # SalesLoft's own last word.
        assert answer.head.status == 429
        assert answer.head.get("Proxy-Status") is None
        assert len(upstream.seen) == sent
        assert waited(answer.head) <= 6.5


async def test_who_finds_no_room_beside_those_who_wait_for_the_minute_is_told_when_it_comes() -> None:
    clock = ManualClock(20.0)
    async with running_sandbox(clock=clock) as sandbox:
        settings = settings_for(sandbox.url)
        settings = replace(settings, limits=replace(settings.limits, max_connections=3))
        async with line_to(settings, clock=clock) as line:
            await spend_all(line, sandbox)
            held = [await line.hold("/v2/me") for _ in range(3)]
            answer = await line.ask("/v2/me")
            problem(answer, status=503, kind="overloaded")
            assert answer.head.get("Retry-After") == "40"
            clock.advance(40.1)
            assert {each.head.status for each in await asyncio.gather(*held)} == {200}


GATEWAY = b"<html><h1>429 Too Many Requests</h1></html>"


@pytest.mark.parametrize("mode", ["pace", "observe", "off"])
@pytest.mark.parametrize(
    ("says", "waits"),
    [
        (("x-ratelimit-remaining-minute: 550",), 1.75),
        (("x-ratelimit-remaining-minute: 550", "x-ratelimit-endpoint-cost: 0", "Retry-After: 2"), 6.0),
        (("Retry-After: 3", "Content-Type: text/html", "Server: gateway"), 9.0),
    ],
    ids=["plenty left", "plenty left, 2 s", "3 s"],
)
async def test_a_429_that_is_not_about_the_budget_is_waited_out_by_whoever_got_it_alone(
    says: tuple[str, ...], waits: float, mode: str
) -> None:
    """One client that polled such an endpoint let 103 of 936 requests of others through."""
    clock = ManualClock(30.0)

    async def limited(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        date = f"Date: {formatdate(clock(), usegmt=True)}"
        if message.head.target == "/v2/odd":
            writer.write(reply("429 Too Many Requests", GATEWAY, date, *says))
        else:
            writer.write(reply("200 OK", b"{}", date, "x-ratelimit-remaining-minute: 540"))

    async with scripted(Script(clock), limited, mode=mode) as (line, upstream):
        for _ in range(2):
            since, others = clock.elapsed, clock.sleeping
            poll = line.begin("/v2/odd", method="POST", body=b"{}")
            while not poll.done():
                await until(lambda others=others, poll=poll: poll.done() or clock.sleeping > others)  # type: ignore[misc]
                for path in ("/v2/me", "/v2/odder"):
                    answer = await line.at_once(path, "Prefer: wait=0")
                    assert answer.head.status == 200
                    if mode != "off":
                        assert rate_limit(answer.head)[1] > 400
                clock.advance(0.25)
                await asyncio.sleep(0)
            answer = await poll
            assert (answer.head.status, answer.body, answer.head.get("Proxy-Status")) == (429, GATEWAY, None)
            assert answer.head.get("X-Slproxy-Attempts") == "4"
            assert clock.elapsed - since == pytest.approx(waits, abs=0.5)
        assert targets(upstream).count("/v2/odd") == 8


async def test_a_429_that_tells_nothing_is_looked_into_by_another_endpoints_request_while_plenty_is_left() -> None:
    odd = "429 Too Many Requests\nContent-Type: text/html\nRetry-After: 20"
    script = Script(first={"/v2/odd": [odd]}, says={"/v2/me": ("x-ratelimit-remaining-minute: 540",)})
    script.slow = {"/v2/slow": (go_on := asyncio.Event())}
    async with scripted(script) as (line, upstream):
        assert (await line.at_once("/v2/me")).head.status == 200
        held = await line.hold("/v2/odd", method="POST", body=b"{}")
        looking = line.begin("/v2/slow")
        await until(lambda: "/v2/slow" in targets(upstream))
        # One at a time, and nobody is told anything of it.
        other = await line.hold("/v2/me")
        go_on.set()
        assert [each.head.status for each in await asyncio.gather(looking, other)] == [200, 200]
        for _ in range(3):
            answer = await line.at_once("/v2/me", "Prefer: wait=0")
            assert (answer.head.status, rate_limit(answer.head)[1] > 500) == (200, True)
        line.clock.advance(19.9)
        assert targets(upstream).count("/v2/odd") == 1
        line.clock.advance(0.2)
        answer = await held
        assert (answer.head.status, answer.head.get("X-Slproxy-Attempts")) == (200, "2")
        assert line.minute["refused"] == 0


async def test_who_is_held_for_its_endpoint_may_leave_and_goes_when_pacing_ends() -> None:
    odd = ["429 Too Many Requests\nRetry-After: 20"]
    script = Script(first={"/v2/odd": odd}, says={"/v2/me": ("x-ratelimit-remaining-minute: 540",)})
    async with scripted(script) as (line, _):
        assert (await line.at_once("/v2/me")).head.status == 200
        held = [await line.hold(f"/v2/odd?{n}") for n in range(3)]
        held[1].cancel()
        await until(lambda: line.budget["waiting"] == {"unknown": 2})
        await line.app.reload(paced(line.app.settings, mode="off"))
        assert [each.head.status for each in await asyncio.gather(held[0], held[2])] == [200, 200]


async def test_a_wish_is_the_upstreams_to_read_too_and_what_is_said_to_us_is_not() -> None:
    wishes = ["Prefer: respond-async, wait=5", 'pReFeR: foo; bar="x"']
    async with scripted(Script()) as (line, upstream):
        answer = await line.ask("/v2/me", *wishes, "X-Slproxy-Priority: bulk", "X-Slproxy-Client: report")
        assert answer.head.status == 200
    (seen,) = upstream.seen
    assert [f"{name}: {value}" for name, value in seen.head.fields if name.lower() == "prefer"] == wishes
    assert not [name for name, _ in seen.head.fields if name.lower().startswith("x-slproxy")]


# Leaving.


LONG = get("/v2/people", "Content-Length: 1000000", method="POST") + b"x" * 200_000


@pytest.mark.parametrize(
    ("request_", "end"),
    [
        (get("/v2/me"), abort),
        (get("/v2/me"), asyncio.StreamWriter.close),
        (get("/v2/people", method="POST", body=b"x" * 100), abort),
        (get("/v2/people", method="POST", body=b"x" * 100), asyncio.StreamWriter.close),
        (LONG, abort),
        (LONG, asyncio.StreamWriter.close),
    ],
    ids=["reset", "closed", "a POST, reset", "a POST, closed", "a large body, reset", "a large body, closed"],
)
async def test_a_client_that_leaves_while_it_is_held_frees_its_place(
    request_: bytes, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    async with salesloft(30) as (line, sandbox):
        await spend_all(line, sandbox)
        spent = line.minute["spent"]
        writer = await line.leave_open(request_)
        await until(lambda: line.held == 1)
        end(writer)
        await until(lambda: line.held == 0)
        assert (line.budget["in_flight"], line.minute["spent"], len(sandbox.requests)) == (0, spent, 1)


async def test_clients_that_leave_just_as_they_are_sent_leave_no_trace() -> None:
    dice = random.Random(5)
    async with salesloft(59) as (line, sandbox):
        await spend_all(line, sandbox)
        writers = [await line.leave_open(get(f"/v2/me?n={n}")) for n in range(40)]
        await until(lambda: line.held == len(writers))
        stays = await line.hold("/v2/me")

        async def leave(writer: asyncio.StreamWriter) -> None:
            # Around the top of the minute, where the first one goes to see whether the budget is back.
            await asyncio.sleep(dice.uniform(0.0, 0.15))
            (abort if dice.random() < 0.5 else asyncio.StreamWriter.close)(writer)

        leaving = asyncio.gather(*(leave(writer) for writer in writers))
        await asyncio.sleep(0.05)
        line.clock.advance(1.0)
        await leaving
        assert (await stays).head.status == 200
        assert line.app.server is not None
        server = line.app.server
        await until(lambda: (line.held, line.budget["in_flight"], server.in_flight) == (0, 0, 0))
        answer = await line.at_once("/v2/me")
        assert answer.head.status == 200
        reached = len([request for request in sandbox.requests if request.at >= MINUTE + 60])
        spent = line.minute["spent"]
        assert isinstance(spent, int)
        # Whatever reached SalesLoft is counted; what may have reached it, too.
        assert reached <= spent <= reached + len(writers)
        assert {request.status for request in sandbox.requests} <= {200, None}


# Tokens.


@asynccontextmanager
async def logged_in(
    sandbox: Sandbox, accounts: str | None = None, *, lifetime: float | None = None, clock: ManualClock | None = None
) -> AsyncIterator[Line]:
    """Run a proxy with a login of the sandbox's, which the proxy takes to last for ``lifetime``."""
    store = MemoryStore()
    record = login_at(sandbox, lifetime=lifetime, now=None if clock is None else clock())
    await store.write(replace(record, accounts_url=accounts or sandbox.url))
    settings = replace(settings_for(sandbox.url, accounts=accounts), auth=sandbox_auth(sandbox))
    async with line_to(settings, store=store, clock=clock) as line:
        yield line


async def test_a_token_that_is_renewed_while_a_request_is_held_is_sent_in_its_newest_form() -> None:
    """airbytehq/airbyte#13660: the token of a request that waits is not that of its start."""
    clock = ManualClock(59)
    async with running_sandbox(clock=clock) as sandbox, logged_in(sandbox, clock=clock) as line:
        await spend_all(line, sandbox)
        held = [await line.hold("/v2/me") for _ in range(3)]
        credentials = line.app.credentials
        newer = await credentials.renew(stale=await credentials.bearer())
        assert line.held == 3
        clock.advance(1.0)
        assert {answer.head.status for answer in await asyncio.gather(*held)} == {200}
        old, *sent = [request.token for request in sandbox.requests]
        assert sent == [newer.token] * 3
        assert old != newer.token


async def test_a_renewal_does_not_wait_behind_those_who_are_held() -> None:
    # By the proxy's reckoning the token lasts for two seconds more, which pass while it holds others.
    async with running_sandbox(clock=Ticking(20)) as sandbox, logged_in(sandbox, lifetime=2.0) as line:
        await spend_all(line, sandbox)
        held = [await line.hold("/v2/me") for _ in range(5)]
        renewals = len(sandbox.token_requests)
        await line.app.credentials.renew(stale=await line.app.credentials.bearer())
        assert len(sandbox.token_requests) == renewals + 1
        assert line.held == 5
        for task in held:
            task.cancel()


async def test_without_a_login_nobody_waits_for_a_budget() -> None:
    clock = ManualClock(59)
    async with running_sandbox(clock=clock) as sandbox, logged_in(sandbox, clock=clock) as line:
        await spend_all(line, sandbox)
        held = await line.hold("/v2/me")
        sandbox.revoke_all()
        credentials = line.app.credentials
        with pytest.raises(LoginRequired):
            await credentials.renew(stale=await credentials.bearer())
        problem(await line.at_once("/v2/me"), status=503, kind="login-required")
        # It was told at once, and was not queued first.
        assert line.held == 1
        clock.advance(1.0)
        problem(await held, status=503, kind="login-required")
        assert len(sandbox.requests) == 1
        await until(lambda: line.held == 0)
        assert (line.budget["in_flight"], line.minute["spent"]) == (0, 0)


async def asked_of_a_rate_limited_token_endpoint(retry_after: int) -> list[float]:
    """Return when it was asked, in seconds since the first time."""
    asked: list[float] = []

    async def accounts(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(time.monotonic())
        writer.write(reply("429 Too Many Requests", b"{}", f"Retry-After: {retry_after}"))

    async with running_sandbox() as sandbox, ScriptedUpstream(accounts) as token_endpoint:
        # Due to be renewed, and good for another minute.
        store = MemoryStore()
        record = login_at(sandbox, now=time.time() - 7140.0)
        await store.write(replace(record, accounts_url=token_endpoint.url))
        settings = replace(settings_for(sandbox.url, accounts=token_endpoint.url), auth=sandbox_auth(sandbox))
        async with line_to(settings, store=store) as line:
            await until(lambda: len(asked) == 1)
            # Without regard to it, the next tries would come after 1 s and after 2 s more.
            while time.monotonic() - asked[0] < 2.5:
                assert (await line.at_once("/v2/me")).head.status == 200
                await asyncio.sleep(0.1)
    return [round(at - asked[0], 1) for at in asked]


async def test_a_429_of_the_token_endpoint_is_respected_and_a_valid_token_goes_on() -> None:
    waits = (30, 600, 1000)
    asked = await asyncio.gather(*(asked_of_a_rate_limited_token_endpoint(wait) for wait in waits))
    assert dict(zip(waits, asked, strict=True)) == {wait: [0.0] for wait in waits}


# What is told.


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "204 No Content", "304 Not Modified", "403 No",
                                    "404 Not Found", "418 Teapot", "500 Oops"])  # fmt: skip
async def test_every_reply_of_salesloft_tells_of_the_budget(status: str) -> None:
    script = Script(remaining=77, first={"/v2/me": [status]})
    async with scripted(script) as (line, _):
        answer = await line.at_once("/v2/me")
        assert answer.head.status == int(status[:3])
        assert rate_limit(answer.head)[:2] == (600, 77)
        assert 29 <= rate_limit(answer.head)[2] <= 31


async def test_an_error_of_the_proxys_own_tells_of_the_budget_too() -> None:
    async with salesloft(20) as (line, _):
        answer = await line.at_once("/v2/me", "X-Sandbox-Fault: reset", "X-Slproxy-Retry: off")
        problem(answer, status=502, kind="upstream-unreachable")
        assert rate_limit(answer.head)[:2] == (600, 599)
        # What Check refuses is about something else.
        assert (await line.at_once("/v1/me")).head.get("RateLimit") is None


@pytest.mark.parametrize(("reserve", "whose"), [(0.0, "The team's budget, 600"), (0.5, "This proxy's part")])
async def test_who_is_over_budget_is_told_whose_it_is(reserve: float, whose: str) -> None:
    async with salesloft(20, reserve=reserve) as (line, sandbox):
        await spend_all(line, sandbox)
        answer = await line.at_once("/v2/me", "Prefer: wait=1")
        told_at_once(answer)
        assert json.loads(answer.body)["detail"].startswith(whose)


async def test_what_salesloft_tells_itself_is_left_as_it_is() -> None:
    own = (
        'RateLimit-Policy: "default";q=7;w=1',
        'RateLimit: "default";r=3;t=1',
        "x-ratelimit-endpoint-cost: 2",
        "X-RateLimit-Limit-Minute: 600",
        "x-ratelimit-remaining-minute: junk",
    )
    async with scripted(Script(says={"/v2/me": own})) as (line, _):
        answer = await line.at_once("/v2/me")
    told = [f"{name}: {value}" for name, value in answer.head.fields if "ratelimit" in name.lower()]
    assert told == list(own)


async def test_the_proxys_own_pages_tell_nothing_of_a_request_and_cost_nothing() -> None:
    async with salesloft(20) as (line, sandbox):
        await spend_all(line, sandbox)
        for page in ("healthz", "readyz", "status.json"):
            answer = await line.at_once(f"/_slproxy/{page}")
            assert (answer.head.status, answer.head.get("RateLimit")) == (200, None)
        assert line.minute["spent"] == 1


async def test_observing_holds_nobody_and_still_tells() -> None:
    async with scripted(Script(remaining=0), mode="observe") as (line, _):
        answers = [await line.at_once("/v2/me", "X-Slproxy-Client: report", "Prefer: wait=0") for _ in range(5)]
        assert [answer.head.status for answer in answers] == [200] * 5
        assert [rate_limit(answer.head)[1] for answer in answers] == [0] * 5
        assert (line.budget["mode"], line.minute["by_client"]) == ("observe", {"report": 5})


async def test_the_601st_request_goes_at_once_where_the_budget_is_only_observed() -> None:
    async with scripted(Script(), mode="observe") as (line, _):
        pages = [line.at_once("/v2/people?page=501") for _ in range(20)]
        assert {answer.head.status for answer in await asyncio.gather(*pages)} == {200}
        answer = await line.at_once("/v2/me")
        assert (answer.head.status, rate_limit(answer.head)[1], line.minute["spent"]) == (200, 0, 601)


async def test_where_pacing_is_off_nothing_is_told_and_nobody_is_held() -> None:
    async with scripted(Script(remaining=0), mode="off") as (line, _):
        for _ in range(3):
            answer = await line.at_once("/v2/me")
            assert answer.head.status == 200
            assert not [name for name, _ in answer.head.fields if name.lower() in ("ratelimit", "ratelimit-policy")]
        assert json.loads((await line.at_once("/_slproxy/status.json")).body)["budget"] is None


# Labels.


@pytest.mark.parametrize(
    ("headers", "label"),
    [((b"X-Slproxy-Client: report", b"User-Agent: curl/8.5.0"), "report"), ((b"User-Agent: curl/8.5.0",), "curl"),
     ((b"X-Slproxy-Client: a\tb",), "unknown"), ((), "unknown")],
)  # fmt: skip
async def test_a_client_goes_by_its_label(headers: tuple[bytes, ...], label: str) -> None:
    async with scripted(Script()) as (line, _):
        await raw(line.url, b"\r\n".join([b"GET /v2/me HTTP/1.1", b"Host: localhost", *headers, b"", b""]))
        assert line.minute["by_client"] == {label: 1}


async def test_thousands_of_labels_and_endpoints_stay_few() -> None:
    async with scripted(Script()) as (line, _), ClientSession(connector=TCPConnector(limit=20)) as session:

        async def ask(number: int) -> None:
            # Letters, since a number is an id and no endpoint of its own.
            name = "".join(chr(ord("a") + int(digit)) for digit in str(number))
            async with session.get(f"{line.url}/v2/{name}", headers={"X-Slproxy-Client": f"client {number}"}) as answer:
                assert answer.status == 200

        await asyncio.gather(*(ask(number) for number in range(500)))
        for name in ("by_client", "by_endpoint"):
            spent = line.minute[name]
            assert isinstance(spent, dict)
            assert sum(spent.values()) == 500
            assert len(spent) <= 101
            assert spent["others"] >= 399
            assert list(spent.values()) == sorted(spent.values(), reverse=True)


@pytest.mark.parametrize(
    "path",
    [b"x" * 30_000, b"a/" * 10_000, b"\xc2\x9b31m", b"\xe2\x80\xae\xc3\xa9", b"%1b%5b31m", b"%E2%80%AE", b"<script>"],
    ids=["long", "deep", "C1 control", "right to left", "escaped", "escaped unicode", "markup"],
)
async def test_an_endpoint_is_told_in_few_characters_that_harm_no_terminal(path: bytes) -> None:
    async with scripted(Script()) as (line, _):
        answer = await raw(line.url, b"GET /v2/" + path + b"?secret=marker HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.head.status in (200, 400)
        told = line.minute["by_endpoint"]
        assert isinstance(told, dict)
        assert sum(told.values()) == (answer.head.status == 200)
        for name in told:
            assert LABEL.fullmatch(name), f"{len(name)} characters: {name[:80]!r}"
            assert "marker" not in name


# Other settings.


@asynccontextmanager
async def others_held(count: int) -> AsyncIterator[tuple[Line, Sandbox, list[asyncio.Task[Message]]]]:
    """Hold so many requests until the clock is a second on."""
    async with salesloft(59) as (line, sandbox):
        await spend_all(line, sandbox)
        yield line, sandbox, [await line.hold("/v2/me") for _ in range(count)]


async def test_the_log_says_all_who_wait_and_once_a_second_at_most(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "slproxy.pace")
    async with salesloft(40) as (line, sandbox):
        await spend_all(line, sandbox)
        held = [await line.hold("/v2/me", f"X-Slproxy-Client: c{n % 3}") for n in range(12)]

        def said() -> list[str]:
            return [each.getMessage() for each in caplog.records if "waiting for the rate limit" in each.getMessage()]

        assert len(said()) == 1
        line.clock.advance(LOG_INTERVAL)
        assert len(said()) == 2
        assert said()[0].startswith("1 request waiting for")
        assert said()[1].startswith("12 requests waiting for")
        assert said()[1].endswith("c0 4, c1 4, c2 4")
        assert line.budget["waiting"] == {"c0": 4, "c1": 4, "c2": 4}
        # Nobody comes, and nothing is said.
        line.clock.advance(2 * LOG_INTERVAL)
        assert len(said()) == 2
        for task in held:
            task.cancel()


async def test_other_rules_keep_what_is_known_and_who_waits() -> None:
    async with others_held(3) as (line, sandbox, held):
        settings = line.app.settings
        changed, later = await line.app.reload(paced(settings, max_wait=0.0, reserve=0.5))
        assert (sorted(changed), later) == (["pace.max_wait", "pace.reserve"], [])
        assert line.held == 3
        refused = await line.at_once("/v2/me")
        told_at_once(refused)
        assert rate_limit(refused.head)[:2] == (300, 0)
        await line.app.reload(paced(settings, limit=2, limit_given=True, max_wait=75.0))
        assert (line.held, line.budget["ours"]) == (3, 2)
        line.clock.advance(1.0)
        assert [(await task).head.status for task in held[:2]] == [200, 200]
        # The third is over the new limit, and waits on.
        assert (line.held, sandbox.remaining()) == (1, 598)
        held[2].cancel()


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("upstream", {"idle_timeout": 33.0}),
        ("upstream", {"max_connections": 50}),
        ("retry", {"attempts": 3}),
        ("policy", {"read_only": True}),
        ("limits", {"max_target": 4096}),
        ("auth", {"leeway": 60.0}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
async def test_settings_that_are_not_about_the_team_keep_what_is_known_of_its_budget(
    section: str, changes: dict[str, object]
) -> None:
    async with salesloft(30) as (line, sandbox):
        await spend_all(line, sandbox)
        settings = line.app.settings
        await line.app.reload(replace(settings, **{section: replace(getattr(settings, section), **changes)}))
        told_at_once(await line.at_once("/v2/me", "Prefer: wait=1"))
        assert len(sandbox.requests) == 1


async def test_another_key_is_another_budget() -> None:
    async with scripted(Script(remaining=0)) as (line, _):
        await line.at_once("/v2/me")
        told_at_once(await line.at_once("/v2/me", "Prefer: wait=1"))
        await line.app.reload(replace(line.app.settings, auth=AuthSettings(api_key=Secret("ak_" + "7b" * 32))))
        assert (await line.at_once("/v2/me", "Prefer: wait=1")).head.status == 200


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_those_who_are_held_when_pacing_ends_still_go(mode: str) -> None:
    async with others_held(3) as (line, sandbox, held):
        sleeping = line.clock.sleeping
        await line.app.reload(paced(line.app.settings, mode=mode))
        # At once, as everything without pacing: so that the upstream refuses them, and they are sent again.
        await until(lambda: line.clock.sleeping == sleeping + 3)
        line.clock.advance(2.0)
        answers = await asyncio.gather(*held)
        assert {answer.head.status for answer in answers} == {200}
        assert 429 in {request.status for request in sandbox.requests}
        answer = await line.at_once("/v2/me")
        assert (answer.head.status, answer.head.get("RateLimit") is None) == (200, mode == "off")
        await line.app.reload(paced(line.app.settings, mode="pace"))
        assert rate_limit((await line.at_once("/v2/me")).head)[0] == 600


# The program.


@asynccontextmanager
async def serving(home: Path, second: float, **env: str) -> AsyncIterator[tuple[Program, Sandbox]]:
    """Run a proxy as a process, and others who have spent all of the minute."""
    async with running_sandbox(clock=Ticking(second)) as sandbox:
        settings = pointed_at(sandbox.url, SALESLOFT_API_KEY=sandbox.options.api_key, SLPROXY_LOG__FORMAT="json", **env)
        async with program("serve", home=home, env=settings) as running:
            await verified(running)
            sandbox.requests.clear()
            sandbox.spend(sandbox.remaining() - 1)
            assert (await raw(running.url, get("/v2/me"))).head.status == 200
            yield running, sandbox


async def held_by(running: Program, count: int) -> None:
    """Wait until the process holds so many."""
    async with asyncio.timeout(SOON):
        while True:
            budget = (await state_of(running))["budget"]
            assert isinstance(budget, dict)
            if sum(budget["queue"].values()) == count:
                return
            await asyncio.sleep(0.02)


@pytest.mark.heavy
async def test_sigterm_lets_those_go_whose_minute_comes_in_time(tmp_path: Path) -> None:
    async with serving(tmp_path, 58) as (running, sandbox):
        held = [asyncio.create_task(raw(running.url, get("/v2/me"))) for _ in range(5)]
        await held_by(running, 5)
        running.process.send_signal(15)
        answers = await asyncio.gather(*held)
        assert {answer.head.status for answer in answers} == {200}
        async with asyncio.timeout(PATIENCE):
            assert await running.process.wait() == 0
        assert [request.status for request in sandbox.requests] == [200] * 6


@pytest.mark.heavy
async def test_a_process_tells_who_waits_takes_other_rules_and_ends_at_once(tmp_path: Path) -> None:
    """The minute comes after the 30 s that requests get at the end, so nobody need wait for it."""
    port = str(free_port())
    async with serving(tmp_path, 5, SLPROXY_LISTEN__PORT=port) as (running, sandbox):
        since = time.monotonic()
        held = [
            asyncio.create_task(
                raw(running.url, get(f"/v2/people/{n}?q=marker-{n}", f"X-Slproxy-Client: {name}", *more))
            )
            for n in range(10)
            for name, *more in (("report",), ("sync", "X-Slproxy-Priority: bulk"))
        ]
        await held_by(running, 20)
        _, out, err = await run("status", home=tmp_path, env={"SLPROXY_LISTEN__PORT": port})
        assert "0 of 600 left, resets in " in out, out + err
        assert "20 requests waiting: report 10, sync (bulk) 10" in out
        assert re.search(r"^clients +slproxy 1, unknown 1; 598 by others$", out, re.MULTILINE), out
        assert re.search(r"^endpoints +GET /v2/me 2$", out, re.MULTILINE), out
        # SIGHUP: those who wait go on, and whoever comes may not.
        (tmp_path / "slproxy.toml").write_text("[pace]\nmax_wait = 0\n")
        running.process.send_signal(1)
        await until(lambda: any("changed: pace.max_wait" in line for line in running.errors))
        told_at_once(await raw(running.url, get("/v2/me")))
        await held_by(running, 20)
        began = time.monotonic()
        running.process.send_signal(15)
        for answer in await asyncio.gather(*held):
            problem(answer, status=503, kind="draining")
        async with asyncio.timeout(PATIENCE):
            assert await running.process.wait() == 0
        assert time.monotonic() - began < SOON
        assert len(sandbox.requests) == 1
        lasted = time.monotonic() - since
    waits = [
        str(line["message"]) for line in logged(running) if "waiting for the rate limit" in str(line.get("message"))
    ]
    assert 1 <= len(waits) <= lasted + 2
    assert any("report" in line or "sync (bulk)" in line for line in waits)
    lines = [line for line in logged(running) if line.get("error") == "draining"]
    assert len(lines) == 20
    assert all(0 < float(str(line["wait_ms"])) < lasted * 1000 for line in lines)
    assert "marker" not in running.output
    assert sandbox.options.api_key not in running.output


@pytest.mark.parametrize(
    "budget",
    [7, [], {"this_minute": 1}, {"this_minute": {}, "queue": []}, {"remaining": 5}],
    ids=["a number", "a list", "half of it", "other types", "an older one"],
)
@pytest.mark.parametrize("version", ["9", slproxy.__version__])
async def test_status_survives_a_budget_that_it_does_not_know(tmp_path: Path, budget: object, version: str) -> None:
    """Another version of the proxy may answer there."""

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", json.dumps({"version": version, "profile": "default", "budget": budget}).encode()))

    async with ScriptedUpstream(script) as other:
        code, out, err = await run(
            "status", home=tmp_path, env={"SLPROXY_LISTEN__PORT": str(port_of(other.url)), "SALESLOFT_API_KEY": "ak_x"}
        )
    assert re.search("^proxy +up", out, re.MULTILINE), out + err
    assert "Traceback" not in err
    assert code == 0
