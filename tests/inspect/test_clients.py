"""What a client with a key of its own sees of the proxy, and does there (docs/inspector.md, Who sees what)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from slproxy.app import App
from slproxy.cli import running_proxy
from slproxy.config import ClientSettings, InspectSettings, ListenSettings, Secret
from tests.support.inspector import PAGE, act, stream
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, port_of, raw
from tests.support.scripted import ScriptedUpstream

OURS, THEIRS, LOCAL = (f"X-Slproxy-Key: {name}-key-4c1d" for name in ("report", "agent", "local"))
CLIENTS = {
    "report": ClientSettings(key=Secret("report-key-4c1d"), read_only=True, reject_paths=("/v2/people",)),
    "agent": ClientSettings(key=Secret("agent-key-4c1d"), budget=50),
}


@asynccontextmanager
async def serving(local: str | None = "local-key-4c1d") -> AsyncIterator[tuple[ScriptedUpstream, App, str]]:
    """Run a proxy that has answered: one request of report's, one of agent's, and one that calls itself report."""
    async with ScriptedUpstream() as upstream:
        settings = replace(
            settings_for(upstream.url),
            listen=ListenSettings(port=0, key=Secret(local) if local else None),
            clients=CLIENTS,
            inspect=InspectSettings(bodies="on"),
        )
        async with proxy(settings) as app:
            url = app.urls[0]
            await raw(url, get("/v2/me", OURS))
            await raw(url, get("/v2/people", THEIRS, method="POST", body=b'{"secret": "of agent"}'))
            await raw(url, get("/v2/teams", LOCAL, "X-Slproxy-Client: report"))
            yield upstream, app, url


async def told(url: str, target: str, key: str) -> Any:
    return json.loads((await raw(url, get(target, key))).body)


async def test_a_client_sees_its_own_requests_and_who_has_the_local_key_sees_all() -> None:
    async with serving() as (_, _, url):
        await raw(url, get("/v2/people", OURS))  # which its rules refuse
        await raw(url, get("/v1/x", OURS))  # and everybody's
        for key, kept in ((OURS, [1, 4, 5]), (THEIRS, [2]), (LOCAL, [1, 2, 3, 4, 5])):
            rows = (await told(url, f"{PAGE}recent", key))["rows"]
            assert [row["n"] for row in rows] == kept
            assert [row["_n"] for row in (await told(url, f"{PAGE}har", key))["log"]["entries"]] == kept
            async with stream(url, key) as events:
                assert [row["n"] for row in (await events.next("rows")).data["rows"]] == kept
            for n in range(1, 6):
                for target in (f"exchanges/{n}", f"har?n={n}"):
                    answer = await raw(url, get(PAGE + target, key))
                    assert answer.head.status == (200 if n in kept else 404), (key, target)


async def test_what_a_client_does_there_is_done_to_its_own() -> None:
    async with serving() as (upstream, _, url), stream(url, LOCAL) as everybody, stream(url, OURS) as own:
        for name in ("pin", "resend"):
            assert (await act(url, name, {"n": 2, "pinned": True}, OURS))[0] == 404
        status, refused = await act(url, "bodies", {"on": False}, OURS)
        assert (status, refused["client"]) == (404, "report")
        assert (await act(url, "clear", {}, OURS))[0] == 200
        assert (await own.next("cleared")).data == {}
        assert [row["n"] for row in (await told(url, f"{PAGE}recent", LOCAL))["rows"]] == [2, 3]
        assert (await act(url, "clear", {}, LOCAL))[0] == 200
        assert (await everybody.next("cleared", "bodies")).name == "cleared"
        assert len(upstream.seen) == 3


EDIT: dict[str, Any] = {"method": "GET", "target": "/v2/me", "headers": [], "body": ""}
PAST_ITS_RULES = {
    "a method": (EDIT | {"method": "POST"}, 405, "client.report.read_only"),
    "a path": (EDIT | {"target": "/v2/people/7"}, 404, "client.report.reject_paths"),
    "a path, encoded": (EDIT | {"target": "/v2/x%252f..%252fpeople"}, 404, "client.report.reject_paths"),
    "another method": (EDIT | {"headers": [["X-HTTP-Method-Override", "DELETE"]]}, 405, "client.report.read_only"),
    "another key": (EDIT | {"method": "POST", "headers": [["X-Slproxy-Key", "local-key-4c1d"]]}, 405, None),
    "a token": (EDIT | {"method": "POST", "headers": [["authorization", "Bearer local-key-4c1d"]]}, 405, None),
}


@pytest.mark.parametrize("case", PAST_ITS_RULES)
async def test_a_client_sends_nothing_again_past_its_rules(case: str) -> None:
    edit, expected, rule = PAST_ITS_RULES[case]
    async with serving() as (upstream, _, url):
        status, problem = await act(url, "resend", {"n": 1, "edit": edit}, OURS)
        assert status == expected
        assert problem.get("rule") == rule or rule is None
        assert len(upstream.seen) == 3
        async with stream(url, OURS) as events:
            hello = (await events.next("hello")).data
            assert hello["read_only"]
            await events.next("rows")
            status, answered = await act(url, "resend", {"n": 1}, OURS)
            row = await events.row(answered["n"])
        assert (status, row["client"], row["status"], row["resent"]) == (200, "report", 200, 1)


async def test_the_tabs_of_one_client_keep_out_nobody_else() -> None:
    async with serving() as (_, _, url), contextlib.AsyncExitStack() as stack:
        own = [await stack.enter_async_context(stream(url, OURS)) for _ in range(5)]
        assert not (await own[-1].next("hello")).data["stream"]
        everybody = await stack.enter_async_context(stream(url, LOCAL))
        assert (await everybody.next("hello")).data["stream"]


async def test_status_json_tells_a_client_nothing_of_others() -> None:
    async with serving() as (_, _, url):
        ours = await told(url, "/_slproxy/status.json", OURS)
        everything = await told(url, "/_slproxy/status.json", LOCAL)
    assert list(everything["clients"]) == ["report", "agent"]
    assert set(everything["budget"]["this_minute"]["by_client"]) == {"report", "agent"}
    assert ours["clients"] == {"report": everything["clients"]["report"]}
    assert set(ours["budget"]["this_minute"]["by_client"]) == {"report"}
    assert "agent" not in json.dumps(ours)
    assert "people" not in json.dumps(ours["budget"])
    assert ours["budget"]["remaining"] == everything["budget"]["remaining"]


async def test_where_there_is_no_local_key_those_of_all_clients_open_all_of_it() -> None:
    async with serving(local=None) as (_, app, url):
        assert [each.reveal() for each in app.settings.reach.keys_to_send] == ["report-key-4c1d", "agent-key-4c1d"]
        reach = replace(app.settings.reach, port=port_of(url))
        seen = await running_proxy.status_of(reach)
        assert seen is not None
        assert seen["clients"].keys() == CLIENTS.keys()  # type: ignore[attr-defined]
        assert len(await running_proxy.recent_of(reach) or ()) == 3
        both = f"{OURS}\r\n{THEIRS}"
        answer = await raw(url, get("/v2/teams", both, method="POST", body=b"{}"))
        assert answer.head.status == 405  # a client's rules hold for all that its key comes with


async def test_a_client_that_is_alone_sees_no_more_than_its_own_for_that() -> None:
    async with ScriptedUpstream() as upstream:
        settings = replace(settings_for(upstream.url), clients={"report": CLIENTS["report"]})
        async with proxy(settings) as app:
            await raw(app.urls[0], get("/v2/me", OURS))
            await app.ask("/v2/me.json")
            rows = (await told(app.urls[0], f"{PAGE}recent", OURS))["rows"]
    assert [row["client"] for row in rows] == ["report"]
