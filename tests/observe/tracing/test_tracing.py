"""Traces, as a real collector gets them of a real proxy."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from slproxy.observe import Exchange, Observer
from tests.support import ROOT
from tests.support.collector import Collector
from tests.support.commands import KEY, oauth, pointed_at, sandboxed
from tests.support.listener import Listener
from tests.support.programs import Program, program, run
from tests.support.raw_http import Message, get, raw, reply
from tests.support.scripted import ScriptedUpstream, replies
from tests.support.waiting import PATIENCE, until

TRACE, PARENT = "ab" * 16, "cd" * 8
CONTEXT = (f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: vendor=1,other=2")


@asynccontextmanager
async def traced(upstream: str, home: Path, collector: Collector, **env: str) -> AsyncIterator[Program]:
    """Run a proxy with an API key whose traces go to a collector."""
    variables = pointed_at(upstream, SALESLOFT_API_KEY=KEY, **(collector.environment | env))
    async with program("serve", home=home, env=variables) as running:
        yield running


async def test_a_request_of_a_client_s_trace_has_a_span_and_one_for_each_attempt_and_wait(tmp_path: Path) -> None:
    script = replies(reply(), reply("503 Service Unavailable"), reply("200 OK", b"{}", "x-ratelimit-endpoint-cost: 3"))
    async with (
        Collector() as collector,
        ScriptedUpstream(script) as upstream,
        traced(
            upstream.url,
            tmp_path,
            collector,
            OTEL_RESOURCE_ATTRIBUTES="service.name=sales",
            OTEL_EXPORTER_OTLP_HEADERS="api-key=marked-key,marked and malformed",
        ) as proxy,
    ):
        await until(lambda: len(upstream.seen) == 1)  # its own, whom requests act as
        before = time.time_ns()
        marked = get("/v2/people/7.json?email=marked-query", *CONTEXT, "X-Marked: marked-header", "Cookie: marked=c")
        await raw(proxy.url, marked)
        own, first, second, wait = await collector.trace(path="/v2/people/7.json", spans=4)
    assert {each.trace for each in (own, first, second, wait)} == {TRACE}
    assert own.parent == PARENT
    assert before <= own.began <= first.began <= first.ended <= wait.began <= wait.ended <= second.began <= own.ended
    assert {each.service for each in collector.spans} == {"sales"}
    assert (own.name, own.kind, own.is_error) == ("GET /v2/people/{id}", "server", False)
    assert own.attributes.pop("slproxy.request_id")
    assert own.attributes == {
        "http.request.method": "GET",
        "http.route": "/v2/people/{id}",
        "http.response.status_code": 200,
        "url.path": "/v2/people/7.json",
        "url.scheme": "http",
        "slproxy.client": "unknown",
    }
    sent = {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "url.full": f"{upstream.url}/v2/people/7.json",
    }
    assert (first.name, first.kind, first.is_error) == (own.name, "client", True)
    assert first.attributes == sent | {"http.response.status_code": 503, "error.type": "503"}
    assert second.attributes == sent | {
        "http.request.resend_count": 1,
        "http.response.status_code": 200,
        "slproxy.retry_reason": "503",
        "slproxy.cost": 3,
    }
    assert (wait.name, wait.kind) == ("wait: backoff", "internal")
    assert collector.seen[0].head.get("api-key") == "marked-key"
    told = b"".join(each.body for each in collector.seen)
    assert (b"marked" in told, KEY.encode() in told, "marked" in proxy.output) == (False, False, False)
    # The client's own context is a header like any other.
    assert [upstream.seen[-1].head.get(name) for name in ("traceparent", "tracestate")] == [
        line.partition(": ")[2] for line in CONTEXT
    ]


async def test_salesloft_is_told_the_attempt_that_it_gets_where_that_is_asked_for(tmp_path: Path) -> None:
    script = replies(reply(), reply("503 Service Unavailable"), reply())
    async with (
        Collector() as collector,
        ScriptedUpstream(script) as upstream,
        traced(upstream.url, tmp_path, collector, SLPROXY_UPSTREAM__TRACE_CONTEXT="true") as proxy,
    ):
        await until(lambda: len(upstream.seen) == 1)
        await raw(proxy.url, get("/v2/a", CONTEXT[0].replace("t", "T", 1), CONTEXT[1]))
        _, *attempts = (await collector.trace(path="/v2/a", spans=4))[:3]
        await raw(proxy.url, get("/v2/b"))
        alone, _ = await collector.trace(path="/v2/b", spans=2)
    heads = [each.head.raw.decode().lower() for each in upstream.seen[1:]]
    assert [head.count("traceparent") for head in heads] == [1, 1, 1]
    assert [
        f"traceparent: 00-{TRACE}-{each.id}-01\r\n" in head for each, head in zip(attempts, heads, strict=False)
    ] == [
        True,
        True,
    ]
    assert f"traceparent: 00-{alone.trace}-" in heads[2]
    assert ["tracestate: vendor=1,other=2" in head for head in heads] == [True, True, False]


async def test_a_renewal_and_those_who_waited_for_it_are_linked(tmp_path: Path) -> None:
    async with Collector() as collector, sandboxed() as sandbox:
        env = {**oauth(sandbox), **collector.environment}
        del env["SALESLOFT_REDIRECT_URI"]
        async with program("serve", home=tmp_path, env=env) as proxy:
            assert (await raw(proxy.url, get("/v2/me.json"))).head.status == 200
            # Its own request, whom requests act as, must not be the one that is refused first.
            await until(lambda: "Authenticated as" in proxy.output)
            sandbox.revoke_all()
            sandbox.fault("slow=2", on="token")  # time for both to be refused
            await asyncio.gather(*(raw(proxy.url, get(f"/v2/people/{number}")) for number in (1, 2)))
            traces = [await collector.trace(path=f"/v2/people/{number}", spans=4) for number in (1, 2)]
            await until(lambda: sum(each.name == "renew token" for each in collector.spans) == 2)
    (renewal,) = [each for each in collector.spans if each.attributes.get("slproxy.renewal.reason") == "rejected"]
    assert sorted(renewal.links) == sorted(own.id for own, *_ in traces)
    assert renewal.attributes["slproxy.renewal.outcome"] == "renewed"
    assert (renewal.parent, renewal.is_error) == ("", False)
    for own, *rest in traces:
        (wait,) = [each for each in rest if each.name == "wait: token"]
        assert wait.links == [renewal.id]
        assert own.trace != renewal.trace


async def test_what_the_proxy_answers_itself_tells_the_type_of_its_error(tmp_path: Path) -> None:
    async def breaks_off(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", b"{}").replace(b"Length: 2", b"Length: 9"))
        await writer.drain()
        writer.close()

    async with (
        Collector() as collector,
        ScriptedUpstream(breaks_off) as upstream,
        traced(upstream.url, tmp_path, collector) as proxy,
    ):
        await raw(proxy.url, get("/_slproxy/healthz"))
        await raw(proxy.url, get("/elsewhere"))
        with suppress(OSError, asyncio.IncompleteReadError):
            await raw(proxy.url, get("/v2/a"))
        (refused,) = await collector.trace(path="/elsewhere", spans=1)
        broken, _ = await collector.trace(path="/v2/a", spans=2)
        assert "/_slproxy/healthz" not in {each.attributes.get("url.path") for each in collector.spans}
    assert (refused.name, refused.attributes["error.type"], refused.is_error) == ("GET", "not-found", False)
    assert (broken.attributes["error.type"], broken.is_error) == ("upstream broke off", True)


async def test_a_client_whose_trace_is_not_sampled_is_in_none(tmp_path: Path) -> None:
    async with (
        Collector() as collector,
        ScriptedUpstream() as upstream,
        traced(upstream.url, tmp_path, collector) as proxy,
    ):
        await raw(proxy.url, get("/v2/a", f"traceparent: 00-{TRACE}-{PARENT}-00"))
        await raw(
            proxy.url, get("/v2/b", f"traceparent: 00-{TRACE}-{PARENT}-01", f"traceparent: 00-{TRACE}-{PARENT}-01")
        )
        unclear, _ = await collector.trace(path="/v2/b", spans=2)
    assert (unclear.parent, unclear.trace != TRACE) == ("", True)
    assert "/v2/a" not in {each.attributes.get("url.path") for each in collector.spans}


async def test_bytes_that_are_no_text_harm_no_trace(tmp_path: Path) -> None:
    async with (
        Collector() as collector,
        ScriptedUpstream() as upstream,
        traced(upstream.url, tmp_path, collector) as proxy,
    ):
        for line in (b"GET /v2/\xff\xfe", b"GET /v2/\xed\xa0\x80", b"M\xff /v2/a", b"GET http://\xff/v2/a"):
            await raw(proxy.url, line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        odd = get("/v2/a").replace(
            b"\r\n\r\n", f"\r\n{CONTEXT[0]}\r\ntracestate: a=".encode() + b"\xff\xed\xa0\x80\r\n\r\n"
        )
        await raw(proxy.url, odd)
        await raw(proxy.url, get("/v2/b"))
        asked = ("/v2/a", "/v2/b", "-")  # what does not parse has no path
        await until(lambda: sum(each.attributes.get("url.path") in asked for each in collector.spans) == 6)
    assert "takes no traces" not in proxy.output


async def test_a_collector_that_hangs_delays_no_request_and_the_end_by_little(tmp_path: Path) -> None:
    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Listener(hangs) as collector, ScriptedUpstream() as upstream:
        env = pointed_at(
            upstream.url,
            SALESLOFT_API_KEY=KEY,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
        )
        async with program("serve", home=tmp_path, env=env) as proxy:
            await until(lambda: collector.connections > 0)
            for _ in range(20):
                assert (await raw(proxy.url, get("/v2/a"))).head.status == 200
            began = time.monotonic()
            assert await proxy.stop() == 0
            assert time.monotonic() - began < 2.0 + PATIENCE / 2
    assert f"traces go to 127.0.0.1:{collector.port}" in proxy.output
    assert "defect" not in proxy.output


async def test_what_has_ended_is_sent_before_the_end(tmp_path: Path) -> None:
    async with Collector() as collector, ScriptedUpstream() as upstream:
        async with traced(upstream.url, tmp_path, collector, OTEL_BSP_SCHEDULE_DELAY="60000") as proxy:
            await raw(proxy.url, get("/v2/a"))
            assert collector.seen == []
            assert await proxy.stop() == 0
        await collector.trace(path="/v2/a", spans=2)


ASK = """
import os
from urllib.request import Request, urlopen
urlopen(Request(os.environ["SLPROXY_URL"] + "/v2/a", headers={"X-Slproxy-Key": os.environ["SLPROXY_KEY"]})).read()
"""


async def test_a_program_s_own_proxy_has_traces_as_well(tmp_path: Path) -> None:
    async with Collector() as collector, ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY, **collector.environment)
        del env["SLPROXY_LISTEN__PORT"]
        assert await run("run", "--", sys.executable, "-c", ASK, home=tmp_path, env=env) == (0, "", "")
        await collector.trace(path="/v2/a", spans=2)


async def test_without_the_extra_the_start_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed')")
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY, PYTHONPATH=f"{tmp_path}:{ROOT}")
        async with program(
            "serve", home=tmp_path, env=env | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, fresh=True
        ) as proxy:
            assert (await raw(proxy.url, get("/v2/a"))).head.status == 200
    assert "pip install 'slproxy[otel]'" in proxy.output
    assert '"level": "warning"' in next(line for line in proxy.errors if "slproxy[otel]" in line)


async def test_a_variable_that_opentelemetry_does_not_take_stops_nothing(tmp_path: Path) -> None:
    async with (
        Collector() as collector,
        ScriptedUpstream() as upstream,
        traced(upstream.url, tmp_path, collector, OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="marked") as proxy,
    ):
        assert (await raw(proxy.url, get("/v2/a"))).head.status == 200
        assert await proxy.stop() == 0
    assert "no traces: OpenTelemetry takes one of its variables (OTEL_*) for wrong (ValueError)" in proxy.output
    assert "marked" not in proxy.output


def test_without_a_listener_that_asks_for_it_no_context_is_read_and_none_is_made() -> None:
    observer = Observer()
    assert (observer.takes_context, observer.context_upstream) == (False, None)
    assert Exchange(method="GET", path="/v2/a", began=0.0).trace_context == ("", "")
