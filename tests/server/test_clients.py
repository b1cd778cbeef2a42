"""Clients with keys of their own: docs/contract.md, Clients."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from dataclasses import replace

import pytest

from slproxy.clock import Clock
from slproxy.config import ClientSettings, ListenSettings, Secret
from slproxy.config.schema import PolicySettings
from slproxy.forward.policy import Policy, client_of
from slproxy.forward.rules import Client, Rules
from slproxy.http import by_name
from slproxy.observe import Exchange, Listener
from tests.support.pair import asked, pair, problem
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get
from tests.support.scripted import ScriptedUpstream

KEY, OTHER = "report-key-1f9a", "agent-key-77b2"
REPORT = ClientSettings(key=Secret(KEY))
BASIC = base64.b64encode(f"any:{KEY}".encode()).decode()
SHOWN = [f"X-Slproxy-Key: {KEY}", f"Authorization: Bearer {KEY}", f"Authorization: Basic {BASIC}"]


@pytest.mark.parametrize("shown", SHOWN)
async def test_a_client_shows_its_key_as_it_would_the_local_one_and_salesloft_never_sees_it(shown: str) -> None:
    async with pair(clients={"report": REPORT}) as (upstream, app):
        assert (await asked(app.urls[0], get("/v2/me", shown))).head.status == 200
        assert (await asked(app.urls[0], get("/v2/me", shown))).head.status == 200
    assert all(KEY.encode() not in message.head.raw for message in upstream.seen)


@pytest.mark.parametrize("listen", [ListenSettings(port=0), ListenSettings(port=0, key=Secret("local-key-7f3a"))])
async def test_where_there_is_any_key_a_request_without_one_is_refused(listen: ListenSettings) -> None:
    async with pair(clients={"report": REPORT}, listen=listen) as (upstream, app):
        for headers in ([], ["X-Slproxy-Key: wrong"], ["X-Slproxy-Client: report"]):
            problem(await asked(app.urls[0], get("/v2/me", *headers)), status=401, kind="key-required")
        if listen.key is not None:
            assert (await asked(app.urls[0], get("/v2/me", f"X-Slproxy-Key: {listen.key.reveal()}"))).head.status == 200
    assert len(upstream.seen) == (listen.key is not None)


async def test_rules_of_a_client_hold_for_it_alone_and_a_refusal_names_both() -> None:
    clients = {
        "report": replace(
            REPORT, read_only=True, accept_paths=("/v2/people", "/v2/me"), reject_paths=("/v2/people/7",)
        ),
        "agent": ClientSettings(key=Secret(OTHER)),
    }
    ours, theirs = f"X-Slproxy-Key: {KEY}", f"X-Slproxy-Key: {OTHER}"
    refused = [
        (get("/v2/people", ours, method="POST", body=b"{}"), 405, "method-refused", "read_only"),
        (get("/v2/cadences", ours), 404, "not-found", "accept_paths"),
        (get("/v2/people/7", ours), 404, "not-found", "reject_paths"),
        (get("/v2/people%2F..%2Fcadences", ours), 400, "bad-target", ""),
        (get("/v2/me%252f..%252fcadences", ours), 404, "not-found", "accept_paths"),
    ]
    async with pair(clients=clients) as (upstream, app):
        # Twice: the second time what follows from the headers is known.
        for request, status, kind, rule in refused * 2:
            document = problem(await asked(app.urls[0], request), status=status, kind=kind)
            assert document.get("rule") == (f"client.report.{rule}" if rule else None)
            assert document.get("client") == ("report" if rule else None)
            assert "slproxy.toml" not in str(document)
            if rule:
                assert document["hint"] == "Ask whoever runs this proxy, if it should."
        for target in ("/v2/people/8", "/v2/me.json", "/v2/people?page=2"):
            assert (await asked(app.urls[0], get(target, ours))).head.status == 200
        assert (await asked(app.urls[0], get("/v2/cadences", theirs, method="POST", body=b"{}"))).head.status == 200
    assert len(upstream.seen) == 4


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override: DELETE", "X-Original-URL: /v2/cadences"])
async def test_no_header_takes_a_client_past_its_rules(header: str) -> None:
    async with pair(clients={"report": replace(REPORT, read_only=True)}) as (upstream, app):
        response = await asked(app.urls[0], get("/v2/people", f"X-Slproxy-Key: {KEY}", header))
        assert response.head.status in (404, 405)
        document = json.loads(response.body)
        assert (document["client"], document["rule"]) == ("report", "client.report.read_only")
        assert document["hint"] == "Ask whoever runs this proxy, if it should."
    assert not upstream.seen


NARROW = {
    "read_only": PolicySettings(read_only=True),
    "accept_paths": PolicySettings(accept_paths=("/v2/people",)),
    "reject_paths": PolicySettings(reject_paths=("/v2/me",)),
}
REFUSED = {
    "a write": ("read_only", 405, "/v2/people", "DELETE", []),
    "another method": ("read_only", 405, "/v2/people", "GET", ["X-HTTP-Method-Override: DELETE"]),
    "another method, of fewer paths": ("accept_paths", 405, "/v2/people", "GET", ["X-HTTP-Method-Override: DELETE"]),
    "another method, but for some paths": ("reject_paths", 405, "/v2/people", "GET", ["X-Method-Override: PUT"]),
    "another path": ("read_only", 404, "/v2/people", "GET", ["X-Original-URL: /v2/me"]),
    "another path, of fewer": ("accept_paths", 404, "/v2/people", "GET", ["X-Rewrite-URL: /v2/me"]),
    "another method, in the query": ("reject_paths", 405, "/v2/people?_method=PUT", "GET", []),
    "a path that is not accepted": ("accept_paths", 404, "/v2/me", "GET", []),
    "a path of another version": ("accept_paths", 404, "/v3/people", "GET", []),
    "a path that may be read as another": ("accept_paths", 404, "/v2/people%252f..%252fme", "GET", []),
    "a path that is rejected": ("reject_paths", 404, "/v2/me.json", "GET", []),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_by_the_policy_names_its_rule_and_whose_key_was_shown(case: str) -> None:
    rule, status, target, method, headers = REFUSED[case]
    listen = ListenSettings(port=0, key=Secret("local-key-7f3a"))
    clients = {"report": replace(REPORT, read_only=True), "agent": ClientSettings(key=Secret(OTHER))}
    every = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]
    reads = every[:3]
    async with pair(clients=clients, policy=NARROW[rule], listen=listen) as (upstream, app):
        for name, key in (("report", KEY), ("agent", OTHER), (None, "local-key-7f3a")) * 2:
            # What follows from the headers is known by then.
            assert (await asked(app.urls[0], get("/v2/people", f"X-Slproxy-Key: {key}"))).head.status == 200
            response = await asked(app.urls[0], get(target, f"X-Slproxy-Key: {key}", *headers, method=method))
            document = problem(response, status=status, kind="not-found" if status == 404 else "method-refused")
            assert (document.get("client"), document["rule"]) == (name, f"policy.{rule}")
            assert "Ask whoever runs this proxy" in str(document["hint"])
            if status == 405:
                allowed = reads if name == "report" or rule == "read_only" else every
                assert response.head.all("Allow") == [", ".join(allowed)]
    assert len(upstream.seen) == 6


async def test_allow_lists_what_the_client_may_do_whatever_is_refused() -> None:
    clients = {"report": replace(REPORT, read_only=True), "agent": ClientSettings(key=Secret(OTHER))}
    async with pair(clients=clients) as (_, app):
        for method, status in (("TRACE", 405), ("PROPFIND", 501)):
            for key, allowed in (
                (KEY, ["GET, HEAD, OPTIONS"]),
                (OTHER, ["GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"]),
            ):
                response = await asked(app.urls[0], get("/v2/a", f"X-Slproxy-Key: {key}", method=method))
                assert "rule" not in problem(response, status=status, kind="method-refused")
                assert response.head.all("Allow") == allowed


async def test_a_path_that_is_none_of_the_apis_is_wrong_and_closed_by_no_rule() -> None:
    async with pair(clients={"report": REPORT}) as (_, app):
        for target in ("/v3/people", "/people", "/"):
            response = await asked(app.urls[0], get(target, f"X-Slproxy-Key: {KEY}"))
            assert not {"rule", "client"} & problem(response, status=404, kind="not-found").keys()


async def test_a_clients_rules_only_narrow_what_the_policy_lets_through() -> None:
    policy = PolicySettings(read_only=True, accept_paths=("/v2/people",))
    async with pair(clients={"report": REPORT}, policy=policy) as (upstream, app):
        post = get("/v2/people", f"X-Slproxy-Key: {KEY}", method="POST", body=b"{}")
        assert problem(await asked(app.urls[0], post), status=405, kind="method-refused")["rule"] == "policy.read_only"
        problem(await asked(app.urls[0], get("/v2/me", f"X-Slproxy-Key: {KEY}")), status=404, kind="not-found")
    assert not upstream.seen


async def test_a_client_gets_no_path_that_only_the_policy_opens() -> None:
    policy = PolicySettings(accept_paths=("/v2/", "/v3/"))
    clients = {"report": REPORT, "agent": ClientSettings(key=Secret(OTHER), accept_paths=policy.accept_paths)}
    async with pair(clients=clients, policy=policy) as (upstream, app):
        for target in ("/v3/people", "/v2/%252e%252e/v3/people"):
            document = problem(
                await asked(app.urls[0], get(target, f"X-Slproxy-Key: {KEY}")), status=404, kind="not-found"
            )
            assert document["rule"] == "client.report.accept_paths"
        for target, key in (("/v2/people", KEY), ("/v3/people", OTHER)):
            assert (await asked(app.urls[0], get(target, f"X-Slproxy-Key: {key}"))).head.status == 200
    assert len(upstream.seen) == 2


async def test_of_two_keys_a_clients_counts_and_not_the_one_that_may_do_more() -> None:
    listen = ListenSettings(port=0, key=Secret("local-key-7f3a"))
    async with pair(clients={"report": replace(REPORT, read_only=True)}, listen=listen) as (upstream, app):
        both = ["X-Slproxy-Key: local-key-7f3a", f"Authorization: Bearer {KEY}"]
        response = await asked(app.urls[0], get("/v2/people", *both, method="POST", body=b"{}"))
        problem(response, status=405, kind="method-refused")
    assert not upstream.seen


async def test_who_tries_many_keys_at_once_is_heard_no_longer_than_others() -> None:
    policy = Policy(pseudonym="x", clients=tuple(Client(key=Secret(f"k{n}"), rules=Rules()) for n in range(50)))
    tried = [(b"X-Slproxy-Key", b"%d" % n) for n in range(2_000)]
    began = time.process_time()
    for _ in range(10):
        assert client_of(policy, by_name([*tried, (b"X-Slproxy-Key", b"k7")])) is None
    assert time.process_time() - began < 0.4
    assert client_of(policy, by_name([*tried[:9], (b"X-Slproxy-Key", b"k7")])) is policy.clients[7]


class Told(Listener):
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def request_ended(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


async def test_a_client_is_called_by_its_name_whatever_it_calls_itself() -> None:
    told = Told()
    async with ScriptedUpstream() as upstream:
        settings = replace(settings_for(upstream.url), clients={"report": replace(REPORT, priority="bulk")})
        async with proxy(settings, listeners=[told]) as app:
            headers = [f"X-Slproxy-Key: {KEY}", "X-Slproxy-Client: somebody", "X-Slproxy-Priority: interactive"]
            for target in ("/v2/me", "/v3/me"):
                await asked(app.urls[0], get(target, *headers))
    assert (told.exchanges[0].client, told.exchanges[0].bulk) == ("report", True)


async def test_a_client_whose_budget_is_spent_is_told_so_and_holds_nobody() -> None:
    clients = {"report": replace(REPORT, budget=2), "agent": ClientSettings(key=Secret(OTHER))}
    # Time passes between any two looks at it, as it does, and no minute ends.
    ticks = itertools.count()
    clock = Clock(now=lambda: 1_795_000_030.0, monotonic=lambda: next(ticks) / 1e6)
    async with (
        ScriptedUpstream() as upstream,
        proxy(replace(settings_for(upstream.url), clients=clients), clock=clock) as app,
    ):
        ours = [f"X-Slproxy-Key: {KEY}", "Prefer: wait=0"]
        statuses = [(await asked(app.urls[0], get("/v2/me", *ours))).head.status for _ in range(2)]
        assert statuses == [200, 200]
        response = await asked(app.urls[0], get("/v2/me", *ours))
        document = problem(response, status=429, kind="over-budget")
        assert (document["client"], document["rule"]) == ("report", "client.report.budget")
        assert str(document["detail"]).startswith("The budget of the client report, 2 a minute, has less left")
        assert 1 <= int(response.head.get("Retry-After") or "") <= 61
        assert "Retry-After" in str(document["hint"])
        response = await asked(app.urls[0], get("/v2/people?page=300", *ours))
        document = problem(response, status=429, kind="over-budget")
        assert response.head.get("Retry-After") is None
        assert document["detail"] == "The request costs 10, and the client report may spend 2 a minute."
        assert "Ask for less" in str(document["hint"])
        assert (await asked(app.urls[0], get("/v2/me", f"X-Slproxy-Key: {OTHER}"))).head.status == 200
    assert len(upstream.seen) == 3


async def test_a_reload_adds_changes_and_removes_clients_and_drops_no_request() -> None:
    async with ScriptedUpstream() as upstream:
        settings = replace(settings_for(upstream.url), clients={"report": REPORT})
        async with proxy(settings) as app:
            asks = [get("/v2/me", f"X-Slproxy-Key: {KEY}") for _ in range(50)]
            running = asyncio.gather(*(asked(app.urls[0], ask) for ask in asks))
            await asyncio.sleep(0)
            changed = {"report": replace(REPORT, read_only=True), "agent": ClientSettings(key=Secret(OTHER))}
            await app.reload(replace(settings, clients=changed))
            assert {reply.head.status for reply in await running} == {200}
            post = get("/v2/people", f"X-Slproxy-Key: {KEY}", method="POST", body=b"{}")
            assert (await asked(app.urls[0], post)).head.status == 405
            assert (await asked(app.urls[0], get("/v2/me", f"X-Slproxy-Key: {OTHER}"))).head.status == 200
            await app.reload(replace(settings, clients={"agent": ClientSettings(key=Secret(OTHER))}))
            assert (await asked(app.urls[0], get("/v2/me", f"X-Slproxy-Key: {KEY}"))).head.status == 401
            await app.reload(replace(settings, clients={}))
            assert (await asked(app.urls[0], get("/v2/me"))).head.status == 200
