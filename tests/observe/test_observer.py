"""What listeners are told: the begin and the end of each request, attempt, wait and renewal, in the order of events."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import replace

import pytest

from slproxy.app import App
from slproxy.observe import Attempt, Exchange, Listener, Observer, Renewal, TokenEvent, Wait
from slproxy.store import MemoryStore
from tests.support.clock import FakeTime
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, raw, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import until


class Recorder(Listener):
    """Remembers what it is told, as words."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.exchanges: list[Exchange] = []
        self.renewals: list[Renewal] = []

    def request_began(self, exchange: Exchange) -> None:
        assert math.isnan(exchange.ended)
        self.told.append(f"{exchange.method} {exchange.path} began")

    def request_ended(self, exchange: Exchange) -> None:
        assert exchange.ended >= exchange.began
        self.told.append(f"{exchange.method} {exchange.path} ended {exchange.status}")
        self.exchanges.append(exchange)

    def attempt_began(self, exchange: Exchange, attempt: Attempt) -> None:
        assert exchange.attempts[-1] is attempt
        self.told.append(f"attempt {len(exchange.attempts)} began {attempt.reason}".rstrip())

    def attempt_ended(self, exchange: Exchange, attempt: Attempt) -> None:
        assert attempt.ended >= attempt.began
        self.told.append(f"attempt {len(exchange.attempts)} ended {attempt.status or attempt.fault}")

    def wait_began(self, exchange: Exchange, wait: Wait) -> None:
        assert exchange.waits[-1] is wait
        self.told.append(f"{wait.reason} began")

    def wait_ended(self, exchange: Exchange, wait: Wait) -> None:
        assert wait.ended >= wait.began
        self.told.append(f"{wait.reason} ended")

    def renewal_began(self, renewal: Renewal) -> None:
        self.told.append(f"renewal began: {renewal.reason}")

    def renewal_ended(self, renewal: Renewal) -> None:
        assert renewal.ended >= renewal.began
        self.told.append(f"renewal ended: {renewal.outcome}")
        self.renewals.append(renewal)

    def token_event(self, event: TokenEvent) -> None:
        self.told.append(f"{event.kind} ({event.grant}): {event.detail}")


class OnlyEnds(Listener):
    """Overrides one event."""

    def request_ended(self, exchange: Exchange) -> None:
        """Hear nothing else."""


def test_a_listener_is_called_for_the_events_that_it_overrides_and_no_others() -> None:
    one, other = OnlyEnds(), Recorder()
    observer = Observer([one, other])
    assert observer.request_ended == (one.request_ended, other.request_ended)
    assert observer.attempt_began == (other.attempt_began,)


def test_an_event_that_nobody_listens_to_is_an_empty_loop() -> None:
    observer = Observer()
    events = (
        *(observer.request_began, observer.request_ended, observer.attempt_began, observer.attempt_ended),
        *(observer.wait_began, observer.wait_ended, observer.renewal_began, observer.renewal_ended),
        observer.token_event,
    )
    assert set(events) == {()}


async def asked(url: str, request: bytes) -> Recorder:
    """Send one request through a proxy with a recorder, on an API key."""
    recorder = Recorder()
    async with proxy(settings_for(url), clock=FakeTime().clock(), listeners=[recorder]) as app:
        await raw(app.urls[0], request)
        await until(lambda: bool(recorder.exchanges))
    return recorder


async def test_a_request_that_is_sent_once() -> None:
    async with ScriptedUpstream(replies(reply("200 OK", b'{"a":1}', "x-ratelimit-endpoint-cost: 3"))) as upstream:
        recorder = await asked(upstream.url, get("/v2/people?email=jane@company.com", "User-Agent: curl/8.5"))
    assert recorder.told == [
        "GET /v2/people began",
        "attempt 1 began",
        "attempt 1 ended 200",
        "GET /v2/people ended 200",
    ]
    exchange = recorder.exchanges[0]
    assert (exchange.client, exchange.bytes_received, exchange.bytes_sent) == ("curl", 0, 7)
    assert exchange.attempts[0].cost == 3


async def test_a_request_that_is_repeated_tells_each_attempt_its_reason_and_the_wait_between() -> None:
    async with ScriptedUpstream(replies(reply("503 Service Unavailable"), reply())) as upstream:
        recorder = await asked(upstream.url, get("/v2/a", method="PUT", body=b"12345"))
    assert recorder.told == [
        "PUT /v2/a began",
        "attempt 1 began",
        "attempt 1 ended 503",
        "backoff began",
        "backoff ended",
        "attempt 2 began 503",
        "attempt 2 ended 200",
        "PUT /v2/a ended 200",
    ]
    exchange = recorder.exchanges[0]
    assert exchange.bytes_received == 5, "it was read once"
    assert exchange.waited == sum(wait.ended - wait.began for wait in exchange.waits) > 0


async def test_a_refused_request_waits_for_the_rate_limit() -> None:
    limited = reply("429 Too Many Requests", b"{}", "Retry-After: 0")
    async with ScriptedUpstream(replies(limited, reply())) as upstream:
        recorder = await asked(upstream.url, get("/v2/a", method="POST", body=b"{}"))
    assert [attempt.reason for attempt in recorder.exchanges[0].attempts] == ["", "429"]


async def test_a_request_without_a_reply_tells_the_fault() -> None:
    async with ScriptedUpstream() as upstream:
        url = upstream.url  # where nobody listens once the block has ended
    recorder = await asked(url, get("/v2/a", "X-Slproxy-Retry: off"))
    assert recorder.told[1:3] == ["attempt 1 began", "attempt 1 ended connection_refused"]
    assert recorder.exchanges[0].error == "upstream-unreachable"


@pytest.mark.parametrize(
    ("request_", "path", "status"),
    [
        (get("/v2/../a"), "/v2/../a", 400),
        (get("/elsewhere?secret"), "/elsewhere", 404),
        (b"GET /v2/a HTTP/1.1\r\nHost localhost\r\n\r\n", "-", 400),
    ],
    ids=["a refused target", "no path of the proxy", "what does not parse"],
)
async def test_what_the_proxy_answers_itself_is_told_without_an_attempt(
    request_: bytes, path: str, status: int
) -> None:
    async with ScriptedUpstream() as upstream:
        recorder = await asked(upstream.url, request_)
    assert [(each.path, each.status, each.attempts) for each in recorder.exchanges] == [(path, status, [])]


async def test_a_rejected_token_is_renewed_once_and_the_request_tells_it() -> None:
    recorder = Recorder()
    async with running_sandbox() as sandbox:
        auth = sandbox_auth(sandbox, grant="client_credentials")
        async with proxy(settings_for(sandbox.url, auth=auth), listeners=[recorder]) as app:
            await raw(app.urls[0], get("/v2/me.json"))
            await raw(app.urls[0], get("/v2/me.json", "X-Sandbox-Fault: expire-token"))
            await until(lambda: len(recorder.exchanges) == 2)
    first, second = recorder.exchanges
    assert (first.renewals, second.renewals) == (0, 1)
    assert [attempt.reason for attempt in second.attempts] == ["", "401"]
    at = recorder.told.index("renewal began: rejected")
    assert recorder.told[at - 2 : at + 5] == [
        "attempt 1 ended 401",
        "token began",
        "renewal began: rejected",
        "renewal ended: renewed",
        "token ended",
        "attempt 2 began 401",
        "attempt 2 ended 200",
    ]


async def test_each_request_that_a_renewal_is_shared_by_waits_for_the_token() -> None:
    recorder = Recorder()
    async with running_sandbox() as sandbox:
        auth = sandbox_auth(sandbox, grant="client_credentials")
        async with proxy(settings_for(sandbox.url, auth=auth), listeners=[recorder]) as app:
            await asyncio.gather(*(raw(app.urls[0], get("/v2/me.json")) for _ in range(3)))
            await raw(app.urls[0], get("/v2/me.json"))
            await until(lambda: len(recorder.exchanges) == 4)
    assert len(recorder.renewals) == 1
    waits = [[wait.reason for wait in each.waits] for each in recorder.exchanges]
    assert waits == [["token"], ["token"], ["token"], []], "the last one found a token"
    assert all(each.waited > 0 for each in recorder.exchanges[:3])


async def test_a_request_that_is_refused_at_once_does_not_wait() -> None:
    recorder, time = Recorder(), FakeTime()
    async with ScriptedUpstream() as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, pace=replace(settings.pace, limit=1))
        async with proxy(settings, clock=time.clock(), listeners=[recorder]) as app:
            await raw(app.urls[0], get("/v2/a"))
            assert (await raw(app.urls[0], get("/v2/b", "Prefer: wait=0"))).head.status == 429
        await until(lambda: bool(recorder.exchanges) and recorder.exchanges[-1].path == "/v2/b")
    assert recorder.exchanges[-1].waits == []


class Faulty(Listener):
    """Has a defect, which shows in the second attempt."""

    def attempt_ended(self, exchange: Exchange, attempt: Attempt) -> None:
        if attempt.reason:
            raise RuntimeError("a defect")


async def test_an_answer_to_a_defect_tells_the_attempts() -> None:
    async with (
        ScriptedUpstream(replies(reply("503 Service Unavailable"), reply())) as upstream,
        proxy(settings_for(upstream.url), clock=FakeTime().clock(), listeners=[Faulty()]) as app,
    ):
        answered = await raw(app.urls[0], get("/v2/a"))
    assert (answered.head.status, answered.head.get("X-Slproxy-Attempts")) == (500, "2")


class Closing(Recorder):
    """Remembers its end as well."""

    def close(self) -> None:
        self.told.append("closed")


async def test_a_renewal_that_the_proxy_finishes_on_its_way_down_is_told_before_the_end() -> None:
    recorder = Closing()
    async with running_sandbox() as sandbox:
        auth = sandbox_auth(sandbox, grant="client_credentials")
        async with proxy(settings_for(sandbox.url, auth=auth), listeners=[recorder]) as app:
            asking = asyncio.ensure_future(raw(app.urls[0], get("/v2/me.json")))
            await until(lambda: "renewal began: expiry" in recorder.told)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await asking
    assert recorder.told[-1] == "closed"
    assert "renewal ended: renewed" in recorder.told


async def test_what_the_proxy_asks_for_itself_is_a_request_without_its_query() -> None:
    recorder = Recorder()
    async with (
        ScriptedUpstream() as upstream,
        App(settings_for(upstream.url), listeners=[recorder]) as app,
    ):
        await app.ask("/v2/me.json?x=1")
    assert recorder.told[0] == "GET /v2/me.json began"
    assert recorder.told[-1] == "GET /v2/me.json ended 200"


# Why there was no further attempt

UNAVAILABLE = reply("503 Service Unavailable")


@pytest.mark.parametrize(
    ("request_", "script", "why"),
    [
        (get("/v2/a"), [reply()], ""),
        (get("/v2/a"), [reply("404 Not Found")], ""),
        (get("/v2/a"), [UNAVAILABLE, reply()], ""),
        (get("/v2/a"), [reply("500 Internal Server Error")], "not a transient error"),
        (get("/v2/a"), [UNAVAILABLE, reply("500 Internal Server Error")], "not a transient error"),
        (get("/v2/a", "X-Slproxy-Retry: off"), [UNAVAILABLE], "X-Slproxy-Retry: off"),
        (get("/v2/a", method="POST", body=b"{}"), [UNAVAILABLE], "method not repeatable"),
        (get("/v2/a"), [UNAVAILABLE] * 4, "out of retry.attempts"),
        (
            get("/v2/a"),
            [reply("503 Service Unavailable", b"{}", "Retry-After: 90")],
            "Retry-After over retry.max_wait",
        ),
        (
            get("/v2/a", "Prefer: wait=2"),
            [reply("503 Service Unavailable", b"{}", "Retry-After: 3")],
            "over the wait that is allowed",
        ),
        (get("/v2/a"), [reply("503 Service Unavailable", b"{}", "Retry-After: 50")] * 3, "out of retry.deadline"),
        (get("/v2/a"), [reply("401 Unauthorized")], "no newer token to be had"),
    ],
    ids=[
        *("a success", "a client's error", "a retry that helped", "a lasting 500", "a 500 after a retry", "as asked"),
        *("a POST", "attempts", "too long", "the client's wait", "the deadline", "an API key"),
    ],
)
async def test_it_is_told_why_a_request_was_not_sent_again(request_: bytes, script: list[bytes], why: str) -> None:
    async with ScriptedUpstream(replies(*script)) as upstream:
        recorder = await asked(upstream.url, request_)
    assert recorder.exchanges[0].not_retried == why


async def test_a_request_whose_body_is_too_large_to_keep_is_not_sent_again() -> None:
    recorder = Recorder()
    async with ScriptedUpstream(replies(UNAVAILABLE)) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, limits=replace(settings.limits, replay_memory=10, replay_disk=10))
        async with proxy(settings, clock=FakeTime().clock(), listeners=[recorder]) as app:
            await raw(app.urls[0], get("/v2/a", method="PUT", body=b"x" * 100))
            await until(lambda: bool(recorder.exchanges))
    assert recorder.exchanges[0].not_retried == "body too large to keep"


# Token events


async def test_a_refused_login_a_new_one_and_a_logout_are_told() -> None:
    recorder, store = Recorder(), MemoryStore()
    async with running_sandbox() as sandbox:
        login = replace(login_at(sandbox, lifetime=-1), login=1)
        await store.write(replace(login, token=replace(login.token, refresh_token="unknown")))
        settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
        async with proxy(settings, store=store, listeners=[recorder]) as app:
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 503
            await store.delete()
            await store.write(replace(login_at(sandbox), login=2, user_id=7, team_id=3))
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
            await store.delete()
            assert (await raw(app.urls[0], get("/v2/me.json", "X-Sandbox-Fault: expire-token"))).head.status == 503
            told = [each for each in recorder.told if "(authorization_code)" in each]
    assert [each.partition(" (")[0] for each in told] == ["refusal", "login", "logout"]
    assert "invalid_grant" in told[0]
    assert "user 7 of team 3" in told[1]


async def test_a_rejected_api_key_is_told_once() -> None:
    async with ScriptedUpstream(replies(*[reply("401 Unauthorized")] * 9)) as upstream:
        recorder = Recorder()
        async with proxy(settings_for(upstream.url), clock=FakeTime().clock(), listeners=[recorder]) as app:
            for _ in range(3):
                await raw(app.urls[0], get("/v2/a"))
    assert [each for each in recorder.told if each.startswith("refusal")] == [
        "refusal (api_key): SalesLoft rejects the API key (401)."
    ]
