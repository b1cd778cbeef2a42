"""Requests made from a description of the API, sent to SalesLoft directly and through the proxy: the same answers.

Two sandboxes that start alike and whose clocks stand still give the same answer to the same request, to the byte: what
differs, the proxy did.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from slproxy.config.schema import PaceSettings
from slproxy.sandbox import Options, RecordedRequest, Sandbox
from tests.support import proxies
from tests.support.proxies import API_KEY, settings_for
from tests.support.raw_http import port_of
from tests.support.sandboxes import running_sandbox
from tests.support.waiting import PATIENCE

schemathesis = pytest.importorskip("schemathesis")

pytestmark = pytest.mark.heavy

# Requests made for each operation: those that keep to the description, and those that do not, which are slow to make.
EXAMPLES = {"positive": 15, "negative": 5}
# The minute never ends, so there must be enough for all.
NOW, OPTIONS = 1_795_000_010.0, Options(api_key=API_KEY, budget=10**9)

# What docs/contract.md, Strip, takes off on the way up, and Answer adds on the way down; what is each connection's.
CHANGED, ADDED = {"host", "authorization", "via"}, {"via", "server-timing", "x-request-id"}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}

Headers = list[tuple[str, str]]

DESCRIPTION = schemathesis.openapi.from_path(Path(__file__).with_name("openapi.yaml"))
OPERATIONS = {operation.label: operation for operation in (each.ok() for each in DESCRIPTION.get_all_operations())}


@dataclass(frozen=True)
class Ways:
    """The two ways to SalesLoft: a sandbox for whoever asks directly, and one behind a proxy."""

    direct: Sandbox
    behind: Sandbox
    proxy: str


@dataclass(frozen=True)
class Answer:
    status: int
    reason: str
    headers: Headers
    body: bytes

    def less(self, names: set[str]) -> Answer:
        return replace(self, headers=less(self.headers, names))

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def less(headers: Headers, names: set[str]) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in names]


@pytest.fixture(scope="module")
def ways() -> Iterator[Ways]:
    """Run all three in a thread of their own: Schemathesis and Hypothesis know no event loop."""
    started = threading.Event()
    running: list[tuple[Ways, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        end = asyncio.Event()
        async with (
            running_sandbox(OPTIONS, clock=lambda: NOW) as direct,
            running_sandbox(OPTIONS, clock=lambda: NOW) as behind,
            proxies.proxy(replace(settings_for(behind.url), pace=PaceSettings(mode="off"))) as app,
        ):
            running.append((Ways(direct, behind, app.urls[0]), asyncio.get_running_loop(), end))
            started.set()
            await end.wait()

    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(asyncio.run, serve())
        serving.add_done_callback(lambda _: started.set())
        assert started.wait(PATIENCE)
        if not running:
            serving.result()  # raises what kept it from starting
        found, loop, end = running[0]
        yield found
        loop.call_soon_threadsafe(end.set)
        serving.result(PATIENCE)


def made(label: str, mode: str) -> SearchStrategy[requests.PreparedRequest]:
    """Return requests for an operation that keep to its description (``positive``), or do not."""
    cases = OPERATIONS[label].as_strategy(schemathesis.GenerationMode(mode))
    kept: SearchStrategy[requests.PreparedRequest] = cases.map(
        lambda case: requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
    )
    return kept


def ask(connection: http.client.HTTPConnection, request: requests.PreparedRequest, *more: tuple[str, str]) -> Answer:
    """Send a request as it was made; requests' own client would resolve the dots in its path."""
    assert request.method is not None
    connection.putrequest(request.method, request.path_url, skip_accept_encoding=True)
    for name, value in (*request.headers.items(), *more):
        connection.putheader(name, value)
    body = request.body
    connection.endheaders(body.encode() if isinstance(body, str) else body)
    response = connection.getresponse()
    return Answer(response.status, response.reason, response.getheaders(), response.read())


def connected(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port_of(url), timeout=PATIENCE)


def refusal(request: requests.PreparedRequest) -> str | None:
    """Return what Check says of a request that a client library could send, by the words of docs/contract.md."""
    path = unquote_to_bytes(request.path_url.partition("?")[0])
    if re.search(rb"[\x00-\x1f\x7f]", path):
        return "bad-target"
    if any(segment.partition(b";")[0] in (b".", b"..") for segment in re.split(rb"[/\\]", path)):
        return "bad-target"
    return None


def seen_by(received: RecordedRequest) -> tuple[str, str, Headers, int, str]:
    """Return what a sandbox got of a request that must be the same on both ways."""
    headers = less(list(received.headers), CHANGED | HOP_BY_HOP)
    return received.method, received.target, headers, received.length, received.sha256


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("mode", EXAMPLES)
def test_a_request_gets_the_same_answer_directly_and_through_the_proxy(ways: Ways, operation: str, mode: str) -> None:
    direct, proxied = connected(ways.direct.url), connected(ways.proxy)
    # Nothing is in flight, so nobody else looks at them.
    ways.direct.reset()
    ways.behind.reset()
    verdicts = []

    # Derandomised and without a database, the same requests each time.
    @given(made(operation, mode))
    @settings(
        max_examples=EXAMPLES[mode],
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def same(request: requests.PreparedRequest) -> None:
        rule, before = refusal(request), len(ways.behind.requests)
        through = ask(proxied, request)
        verdicts.append(rule)
        if rule is not None:
            assert through.get("proxy-status").startswith("slproxy; error="), "this should have been refused"
            assert request.method == "HEAD" or json.loads(through.body)["type"] == rule
            assert len(ways.behind.requests) == before
            return
        assert not through.get("proxy-status"), "the proxy answered, and no rule of Check says why"
        answer = ask(direct, request, ("Authorization", f"Bearer {API_KEY}"))
        assert through.less(ADDED | HOP_BY_HOP) == answer.less(HOP_BY_HOP)
        assert {name for name in ADDED if not through.get(name)} == set()
        assert len(ways.behind.requests) == before + 1
        assert seen_by(ways.behind.requests[-1]) == seen_by(ways.direct.requests[-1])

    try:
        same()
    finally:
        direct.close()
        proxied.close()
    assert None in verdicts
    assert mode == "negative" or "{id}" not in operation or "bad-target" in verdicts
