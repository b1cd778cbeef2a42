"""The inspector's page in a real browser: what somebody sees in it, and can do with it, by keys alone.

A page may listen to another tab instead of the proxy: ``following`` makes one that does, and says what it hears.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import pytest

from slproxy.app import App
from slproxy.config import ListenSettings, Secret, Settings
from slproxy.config.schema import InspectSettings, PaceSettings, PolicySettings, RetrySettings
from slproxy.store import MemoryStore
from tests.support import chromium, node
from tests.support.inspector_page import InspectorPage, inspector_page
from tests.support.listener import reserved_port
from tests.support.proxies import API_KEY, proxy, settings_for
from tests.support.raw_http import Message, get, port_of, raw, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import Handler, ScriptedUpstream
from tests.support.waiting import until

pytestmark = pytest.mark.heavy

PEOPLE = {
    "data": [
        {
            "id": 12345678901234567890,
            "first_name": "Jane",
            "email_address": "jane@company.com",
            "tags": ["vip", "emea"],
        },
        {"id": 2, "first_name": "Joe", "email_address": "joe@company.com", "tags": []},
    ],
    "metadata": {"paging": {"per_page": 25, "next_page": None}},
}
# Holds the lock for which a tab listens to the proxy.
FOLLOWS = "navigator.locks.request('slproxy-inspector', () => new Promise(() => {}));"
ROW = {
    "kind": "request", "state": "done", "id": "x", "client": "report", "method": "GET", "path": "/v2/people",
    "query": False, "operation": "/v2/people", "status": 200, "attempts": 1, "cost": 1, "token_renewals": 0, "ms": 10,
    "wait_ms": 0, "token_ms": 0, "proxy_ms": 1, "upstream_ms": 8, "stream_ms": 1, "in": 0, "out": 100, "error": "",
    "ended": "", "not_retried": "", "waiting": "", "resent": None, "pinned": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    if chromium.BINARY is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with chromium.running("--renderer-process-limit=1") as address:
        yield address


@dataclass
class Scene:
    """A proxy with its upstream, and the page that shows it."""

    app: App
    upstream: ScriptedUpstream
    page: InspectorPage

    async def send(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> Message:
        """Send a request as a client does, and return the reply."""
        return await raw(self.app.urls[0], get(target, *headers, method=method, body=body), method=method)


async def answer(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as SalesLoft might, by what the path asks for."""
    head = message.head
    counted = (
        "x-ratelimit-endpoint-cost: 3",
        "x-ratelimit-remaining-minute: 412",
        "Strict-Transport-Security: max-age=1",
    )
    kind = "Content-Type: application/json"
    if "unavailable" in head.target:
        writer.write(reply("503 Service Unavailable", b'{"error":"Service Unavailable"}', kind))
    elif "large" in head.target:
        rest = b", ".join(b'{"id": %d, "name": "Jane"}' % number for number in range(20_000))
        writer.write(reply("200 OK", b'{"data": [' + rest + b"]}", kind))
    elif "spent" in head.target:
        writer.write(reply("200 OK", b"{}", kind, "x-ratelimit-remaining-minute: 0"))
    elif head.method == "POST":
        writer.write(reply("201 Created", b'{"data":{"id":7}}', kind, *counted))
    else:
        writer.write(reply("200 OK", json.dumps(PEOPLE).encode(), kind, *counted))


@asynccontextmanager
async def scene(browser: str, *, before: str = "", **changes: object) -> AsyncIterator[Scene]:
    """Set up all of it; ``changes`` are sections of the settings."""
    async with ScriptedUpstream(answer) as upstream:
        settings: Settings = replace(settings_for(upstream.url), **changes)  # type: ignore[arg-type]
        async with proxy(settings) as app, inspector_page(browser, app.urls[0], before=before) as page:
            yield Scene(app, upstream, page)


BODIES = InspectSettings(bodies="on")
QUICK = RetrySettings(attempts=2)
JSON = "Content-Type: application/json"


async def hears(page: InspectorPage, name: str, document: object) -> None:
    """Let a page that listens to another tab hear something."""
    message = json.dumps({"event": [name, document]})
    await page.tab.run(f"window.other ??= new BroadcastChannel('slproxy-inspector'); other.postMessage({message})")


@asynccontextmanager
async def following(browser: str, rows: Sequence[Mapping[str, object]]) -> AsyncIterator[InspectorPage]:
    """Open a page that hears of nothing but what the test says, these rows first."""
    live = (
        FOLLOWS + "window.other = new BroadcastChannel('slproxy-inspector');"
        "other.onmessage = ({data}) => data.ask && other.postMessage({state: ['live', '']});"
    )
    async with (
        proxy(settings_for("http://127.0.0.1:9")) as app,
        inspector_page(browser, app.urls[0], before=live) as page,
    ):
        hello = {"boot": "1", "bodies": {"on": False, "until": None}, "profile": "default", "grant": "API key"}
        await hears(page, "hello", hello)
        await hears(page, "rows", {"rows": [{**ROW, "n": n, "at": time.time(), **row} for n, row in enumerate(rows)]})
        yield page


# The list.


async def test_a_request_is_a_row_at_once(browser: str) -> None:
    async with scene(browser, retry=QUICK) as at:
        await at.page.reads("Nothing has come through yet.")
        await at.page.reads(f"curl {at.app.urls[0]}/v2/me.json")
        await at.send("/v2/people?per_page=2", "X-Slproxy-Client: report")
        (row,) = await at.page.rows(1)
        assert row["client"] == "report"
        assert row["method"] == "GET"
        assert row["path"].startswith("/v2/people")
        assert "per_page" not in row["path"]
        assert (row["status"], row["attempts"], row["cost"]) == ("200", "1", "3")
        assert row["duration"].endswith("ms")
        assert "SalesLoft" in str(await at.page.value("document.querySelector('.row .bar').ariaLabel"))
        await at.send("/v2/unavailable", "X-Slproxy-Client: crm")
        newest, _ = await at.page.rows(2)
        assert (newest["client"], newest["status"], newest["attempts"]) == ("crm", "503", "2\N{MULTIPLICATION SIGN}")
        colours = await at.page.value(
            "[...document.querySelectorAll('.row .dot')].map((dot) => getComputedStyle(dot).backgroundColor)"
        )
        assert isinstance(colours, list)
        assert len(set(colours)) == 2


async def test_the_budget_of_this_minute_and_who_waits_for_it_are_told(browser: str) -> None:
    async with scene(browser) as at:
        await at.send("/v2/spent")
        waiting = asyncio.create_task(at.send("/v2/people", "X-Slproxy-Client: report"))
        try:
            await at.page.reads("1 request waits", ".budget")
            await at.page.reads("report", ".budget")
            await at.page.reads("0 of 600 left", ".budget")
            await at.page.reads("resets in", ".budget")
            await at.page.reads("waits: rate limit", ".list")
            assert await at.page.value("document.querySelector('[role=meter]').ariaValueNow") == "0"
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def test_without_pacing_it_is_said_that_nothing_waits(browser: str) -> None:
    async with scene(browser, pace=PaceSettings(mode="off")) as at:
        await at.page.reads("Pacing is off", ".budget")


async def test_a_renewal_is_a_row_of_its_own(browser: str) -> None:
    async with running_sandbox() as sandbox:
        store = MemoryStore()
        await store.write(login_at(sandbox, lifetime=-1.0))
        settings = settings_for(sandbox.url, auth=sandbox_auth(sandbox))
        async with proxy(settings, store=store) as app, inspector_page(browser, app.urls[0]) as page:
            await raw(app.urls[0], get("/v2/me.json"))
            request, renewal = sorted(await page.rows(2), key=lambda row: "event" in row)
            assert request["status"] == "200"
            assert renewal["event"].startswith("renewal")
            assert "renewed" in renewal["event"]
            await page.filter("kind:renewal")
            await page.rows(1)
            await page.press("Home", "Enter")
            await page.reads("expiry: renewed", ".details")


async def test_two_thousand_rows_are_filtered_at_once(browser: str) -> None:
    rows = [{"path": f"/v2/people/{n}", "status": 503 if n % 10 == 0 else 200} for n in range(2000)]
    async with following(browser, rows) as page:
        await page.reads("2,000 rows", ".filtered")
        assert await page.value("document.querySelectorAll('.rows .row').length < 60")
        took = await page.tab.run(
            """const box = document.querySelector("#filter"), took = [];
            for (const text of ["s", "status:5xx", "people/19", "cost:>1", ""]) {
              const began = performance.now();
              box.value = text;
              box.dispatchEvent(new Event("input", { bubbles: true }));
              await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
              took.push(performance.now() - began);
            }
            return took;"""
        )
        assert isinstance(took, list)
        assert min(took) < 100  # milliseconds, with whatever else this machine does
        await page.filter("status:5xx")
        await page.reads("200 of 2,000", ".filtered")
        await page.filter("cost:lots")
        await page.reads("cost: cannot read “lots”", ".filtered")


async def test_paused_the_list_stands_still_and_says_what_is_new(browser: str) -> None:
    async with scene(browser) as at:
        await at.send("/v2/first")
        await at.page.rows(1)
        await at.page.press(" ")
        await at.send("/v2/second")
        await at.page.reads("Resume · 1 new", ".top")
        assert len(await at.page.rows(1)) == 1
        await at.page.press(" ")
        assert [row["path"] for row in await at.page.rows(2)] == ["/v2/second", "/v2/first"]


async def test_cleared_only_what_is_pinned_stays(browser: str) -> None:
    async with scene(browser) as at:
        await at.send("/v2/kept")
        await at.page.rows(1)
        await at.page.press("j", "p")
        await at.page.until("document.querySelector('.row .pin')")
        await at.send("/v2/gone")
        await at.page.rows(2)
        await at.page.press("X")
        (row,) = await at.page.rows(1)
        assert row["path"] == "/v2/kept"
        await at.page.filter("pinned")
        await at.page.rows(1)


async def test_whoever_has_scrolled_down_reads_on_undisturbed(browser: str) -> None:
    rows = [{"path": f"/v2/people/{n}"} for n in range(300)]
    async with following(browser, rows) as page:
        await page.rows(300)
        await page.tab.run("document.querySelector('.list').scrollTop = 2800")
        await page.drawn()
        seen = "document.elementFromPoint(640, 400).closest('.row').id"
        before = await page.value(seen)
        await hears(page, "rows", {"rows": [{**ROW, "n": 1000 + n, "at": time.time()} for n in range(7)]})
        await page.rows(307)
        assert await page.value(seen) == before


# The details.


async def test_headers_are_shown_as_they_came_and_as_they_went(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        await at.send(
            "/v2/people?per_page=2", "Authorization: Bearer a-key-of-the-client", "X-Kept: 1", "Connection: close"
        )
        await at.page.rows(1)
        await at.page.press("j", "Enter")
        await at.page.reads("/v2/people?per_page=2", ".details-head")
        await at.page.until("document.querySelectorAll('.side').length === 2")
        headers = await at.page.value(
            """[...document.querySelectorAll(".side")].map((side) => [...side.querySelectorAll("tr")].map((row) =>
            [row.className, row.cells[0].innerText, row.querySelector("bdi").innerText]))"""
        )
        assert isinstance(headers, list)
        request, response = headers
        assert ["gone", "Host", "localhost"] in request
        assert ["new", "Host", at.upstream.url.removeprefix("http://")] in request
        assert ["gone", "Authorization", "•••"] in request or ["gone", "Authorization", "Bearer •••"] in request
        assert ["new", "Authorization", "Bearer •••"] in request
        assert ["same", "X-Kept", "1"] in request
        assert ["gone", "Strict-Transport-Security", "max-age=1"] in response
        assert "Server-Timing" in [name for kind, name, _ in response if kind == "new"]
        text = await at.page.text("body")
        assert API_KEY not in text
        assert "a-key-of-the-client" not in text


async def test_each_attempt_is_told_and_why_there_was_no_further_one(browser: str) -> None:
    async with scene(browser, retry=QUICK) as at:
        await at.send("/v2/unavailable")
        await at.page.rows(1)
        await at.page.press("j", "Enter")
        await at.page.reads("Attempt 2 after 503", ".course")
        await at.page.reads("Backed off", ".course")
        await at.page.reads("Not repeated:", ".course")
        await at.send("/v2/unavailable", method="POST", body=b"{}")
        await at.page.rows(2)
        await at.page.press("k")
        await at.page.reads("POST", ".details-head")
        await at.page.reads("Not repeated:", ".course")


async def test_a_body_is_a_tree_that_can_be_searched(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        await at.send("/v2/people", JSON, method="PUT", body=b'{"first_name": "Jane"}')
        await at.page.rows(1)
        await at.page.press("j", "Enter")
        await at.page.reads("first_name", "[aria-label='request body'] .tree")
        # Not rounded, as JSON.parse does.
        await at.page.reads("data: [ 2", "[aria-label='response body'] .tree")
        await at.page.click("[aria-label='Search the response body']")
        await at.page.type("JOE")
        await at.page.reads("1 of 2", "[aria-label='response body']")
        assert await at.page.text(".current mark") == "Joe"
        await at.page.press("Enter")
        await at.page.reads("2 of 2", "[aria-label='response body']")
        await at.page.type("12345678901234567890")
        await at.page.reads("1 of 1", "[aria-label='response body']")
        await at.page.click("[aria-label='response body'] [aria-pressed]")
        await at.page.reads('"id": 12345678901234567890', "[aria-label='response body'] pre")


async def test_a_long_body_is_told_to_be_cut_and_shown_as_far_as_it_was_kept(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        await at.send("/v2/large")
        await at.page.rows(1)
        await at.page.press("j", "Enter")
        await at.page.reads("cut: 64 KiB of ", "[aria-label='response body']")
        await at.page.reads("Show 100 more of ", "[aria-label='response body'] .tree")
        await at.page.click("[aria-label='Search the response body']")
        await at.page.type("1999")
        await at.page.reads("… 1900 before", "[aria-label='response body'] .tree")
        assert await at.page.text(".current mark") == "1999"


async def test_bodies_are_recorded_for_ten_minutes_when_somebody_asks(browser: str) -> None:
    async with scene(browser) as at:
        await at.send("/v2/people")
        await at.page.rows(1)
        await at.page.press("j", "Enter")
        await at.page.reads("Not recorded", "[aria-label='response body']")
        await at.page.press("b")
        await at.page.reads("Recording bodies · ", ".top")
        left = (await at.page.text(".recording")).rpartition(" ")[2]
        assert re.fullmatch(r"10:00|9:\d\d", left)
        await at.send("/v2/people")
        await at.page.rows(2)
        await at.page.press("k")
        await at.page.reads("data: [", "[aria-label='response body']")
        await at.page.press("b")
        await at.page.reads("Record bodies for 10 minutes", ".top")


# What can be done.


async def test_a_request_is_copied_as_a_command(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        permission = {"permission": {"name": "clipboard-write"}, "setting": "granted", "origin": at.page.origin}
        await at.page.tab.call("Browser.setPermission", **permission)
        await at.send("/v2/people", JSON, "Authorization: Bearer x", method="POST", body=b'{"first_name": "Jane"}')
        await at.page.rows(1)
        await at.page.press("j")
        for form, name in (
            *(("curl", "curl"), ("httpie", "HTTPie")),
            *(("requests", "Python requests"), ("fetch", "JavaScript fetch")),
        ):
            await at.page.press("c")
            await at.page.click(f"[value={form}]")
            text = await at.page.text(".command")
            assert f"{at.page.origin}/v2/people" in text
            assert "first_name" in text
            await at.page.press("Enter")
            await at.page.reads(f"Copied as {name}.", ".toast")


async def test_a_request_is_sent_again_and_compared_with_the_first(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        await at.send("/v2/people", "X-Slproxy-Client: report")
        await at.page.rows(1)
        at.upstream.script = _changed
        await at.page.press("j", "r")
        again, _ = await at.page.rows(2)
        assert "resent" in again["path"]
        assert again["client"] == "report"
        await at.page.reads("Compared with the first", ".difference")
        await at.page.reads('\N{MINUS SIGN}         "vip",', ".difference")
        await at.page.reads('+         "gold",', ".difference")
        assert len(at.upstream.seen) == 2


async def _changed(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = json.dumps(PEOPLE).replace("vip", "gold").encode()
    writer.write(reply("200 OK", body, "Content-Type: application/json"))


async def test_a_write_is_asked_about_once_more(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        await at.send("/v2/people", JSON, method="POST", body=b'{"first_name": "Jane"}')
        await at.page.rows(1)
        await at.page.press("j", "r")
        await at.page.reads("Send this POST again?", "dialog")
        await at.page.press("Escape")
        await at.page.until("!document.querySelector('dialog')")
        assert len(at.upstream.seen) == 1
        await at.page.press("r")
        await at.page.reads("Send this POST again?", "dialog")
        await at.page.press("Tab", "Enter")
        await at.page.rows(2)
        assert [message.body for message in at.upstream.seen] == [b'{"first_name": "Jane"}'] * 2


async def test_a_request_is_edited_and_sent(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        await at.send("/v2/people", JSON, "Authorization: Bearer x", method="POST", body=b'{"first_name": "Jane"}')
        await at.page.rows(1)
        await at.page.press("j", "e")
        await at.page.reads("Edit and resend", "dialog")
        fields = await at.page.value(
            "[...document.querySelectorAll('dialog :is(select, input, textarea)')].map((each) => each.value)"
        )
        assert fields == ["POST", "/v2/people", "Content-Type: application/json", '{"first_name": "Jane"}']
        await at.page.click("dialog input")
        await at.page.type("/v2/people?edited=1")
        await at.page.click("dialog label:nth-of-type(2) textarea")
        await at.page.type('{"first_name": "Joe"}')
        await at.page.click("dialog .primary")
        await at.page.reads("Send this POST", "dialog")
        await at.page.click("dialog .primary")
        await at.page.rows(2)
        last = at.upstream.seen[-1]
        assert (last.head.target, last.body) == ("/v2/people?edited=1", b'{"first_name": "Joe"}')


async def test_read_only_no_write_is_sent_again(browser: str) -> None:
    async with scene(browser, policy=PolicySettings(read_only=True)) as at:
        await at.send("/v2/people", method="POST", body=b"{}")
        await at.page.rows(1)
        await at.page.reads("read-only", ".top")
        await at.page.press("j", "r")
        await at.page.reads("read-only: it sends no POST", ".toast")
        assert at.upstream.seen == []


def only_file(folder: Path) -> str:
    (path,) = folder.glob("*.har")
    return path.read_text("utf-8")


async def test_what_is_shown_is_saved_as_har_with_people_masked(browser: str, tmp_path: Path) -> None:
    async with scene(browser, inspect=BODIES) as at:
        await at.page.tab.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(tmp_path),
        )
        await at.send("/v2/people")
        await at.send("/v2/other")
        await at.page.rows(2)
        await at.page.filter("/v2/people")
        await at.page.press("h")
        await at.page.reads("1 request shown", "dialog")
        await at.page.click("dialog .primary")
        await at.page.reads("1 request saved", ".toast")
        await until(lambda: [*tmp_path.glob("*.har")] != [])
        text = only_file(tmp_path)
        assert [entry["request"]["url"].rpartition("/")[2] for entry in json.loads(text)["log"]["entries"]] == [
            "people"
        ]
        assert "jane@company.com" not in text


# States.


async def test_a_lost_connection_is_told_and_made_again_with_what_was_missed(browser: str) -> None:
    async with ScriptedUpstream(answer) as upstream, AsyncExitStack() as until_then:
        settings = replace(
            settings_for(upstream.url), listen=ListenSettings(port=until_then.enter_context(reserved_port()))
        )
        first = await until_then.enter_async_context(proxy(settings))
        async with inspector_page(browser, first.urls[0]) as page:
            await raw(first.urls[0], get("/v2/people"))
            await page.rows(1)
            await until_then.aclose()
            await page.reads("Disconnected", ".top")
            await page.reads("The page connects again by itself", ".notices")
            await page.rows(1)
            async with proxy(settings) as second:
                await page.reads("slproxy was restarted: 1 row of before is gone.", ".notices")
                await page.reads("Live", ".top")
                await raw(second.urls[0], get("/v2/other"))
                (row,) = await page.rows(1)
                assert row["path"] == "/v2/other"


async def test_before_anything_was_heard_the_page_says_that_it_connects(browser: str) -> None:
    async with (
        proxy(settings_for("http://127.0.0.1:9")) as app,
        inspector_page(browser, app.urls[0], before=FOLLOWS, state="connecting") as page,
    ):
        assert await page.text(".connection") == "Connecting …"
        assert "Connecting …" in await page.text(".empty")


async def test_rows_that_were_dropped_are_told_where_they_are_missing(browser: str) -> None:
    async with following(browser, [{}, {}]) as page:
        await hears(page, "dropped", {"count": 12})
        await hears(page, "rows", {"rows": [{**ROW, "n": 20, "at": time.time()}]})
        rows = await page.rows(4)
        assert "12 rows were dropped" in rows[1]["event"]
        await page.reads("12 rows were dropped", ".filtered")


async def test_where_nothing_matches_all_is_one_click_away(browser: str) -> None:
    async with following(browser, [{}]) as page:
        await page.filter("nothing-like-it")
        await page.reads("No row matches the filter.")
        await page.click(".empty button")
        await page.rows(1)


async def test_what_is_no_longer_kept_is_told(browser: str) -> None:
    async with following(browser, [{"path": "/v2/old"}]) as page:
        await page.press("j", "Enter")
        await page.reads("no longer kept", ".details")


async def test_seven_tabs_see_the_same(browser: str) -> None:
    async with scene(browser) as at:
        # Only the tab in front is drawn: it is the last that was opened, and behind it the one before.
        for number in range(6):
            await at.page.tab.run(f"(window.tabs ??= [])[{number}] = open('/_slproxy/')")
            await at.page.until(f"!!tabs[{number}].document.querySelector('.connection.live')")
        held, waiting = "const {held, pending} = await navigator.locks.query();", "return [held.length, pending.length]"
        assert await at.page.tab.run(held + waiting) == [1, 6]  # the tabs that listen, and that listen to another
        await at.send("/v2/people")
        for number in reversed(range(6)):
            await at.page.until(f"tabs[{number}].document.querySelector('.list').ariaRowCount === '2'")
            await at.page.tab.run(f"tabs[{number}].close()")
        await at.page.rows(1)


# For whom.


async def test_somebody_new_finds_what_failed_and_repeats_it_by_keys_alone(browser: str) -> None:
    async with scene(browser, retry=QUICK, inspect=BODIES) as at:
        for number in range(20):
            await at.send(f"/v2/people/{number}")
        await at.send("/v2/unavailable", method="POST", body=b'{"first_name": "Jane"}')
        for number in range(20):
            await at.send(f"/v2/people/{number}")
        await at.page.rows(41)
        at.upstream.script = _changed
        await at.page.filter("failed")
        (failed,) = await at.page.rows(1)
        assert failed["status"] == "503"
        await at.page.press("j", "Enter")
        await at.page.reads("Service Unavailable", ".details")
        await at.page.press("r", "Tab", "Enter")
        await at.page.reads("Status\t503\t200", ".compared")


async def test_the_help_says_each_key_and_each_filter(browser: str) -> None:
    async with scene(browser) as at:
        await at.page.press("?")
        keys = await at.page.value("[...document.querySelectorAll('dialog kbd')].map((key) => key.innerText)")
        assert isinstance(keys, list)
        assert {"/", "j", "k", "r", "e", "c", "?", "Esc", "Enter", "p", "b", "h", "Space"} <= set(keys)
        await at.page.reads("status:5xx", "dialog")
        # Whoever dictates may turn single keys off: https://www.w3.org/TR/WCAG22/#character-key-shortcuts
        await at.page.click("dialog [type=checkbox]")
        await at.page.press("Escape", "?")
        assert await at.page.value("document.querySelector('dialog')") is None


# What a person can look at, by the keys that lead there from what was before, and a text that tells that it is there.
SIGHTS = (
    ((), "/v2/unavailable"),
    (("j", "Enter"), "email_address"),
    (("r",), "Send this PUT"),
    (("Tab", "Enter"), "Compared"),
    (("j", "j"), "Attempt 2"),
    (("e",), "Edit and"),
    (("Escape", "c"), "nothing secret is in it"),
    (("Escape", "?"), "Keys and"),
    (("Escape", "h"), "Save as"),
)


@asynccontextmanager
async def sights(browser: str, width: int) -> AsyncIterator[tuple[InspectorPage, AsyncIterator[str]]]:
    """Set up a page with all that there is to be looked at, and lead through it."""
    async with scene(browser, retry=QUICK, inspect=BODIES) as at:
        await at.page.look(width=width)
        await at.send("/v2/unavailable")
        await at.send("/v2/people", JSON, "X-Slproxy-Client: report", method="PUT", body=b'{"first_name": "Jane"}')
        await at.page.rows(2)

        async def lead() -> AsyncIterator[str]:
            for keys, text in SIGHTS:
                await at.page.press(*keys)
                await at.page.reads(text)
                yield text

        yield at.page, lead()


async def violations(page: InspectorPage, rules: str = "undefined") -> object:
    """Return what axe-core finds: what a screen reader cannot tell, or has too little contrast."""
    return await page.tab.run(
        f"const found = await axe.run(document, {{resultTypes: ['violations'], runOnly: {rules}}});"
        "const told = (node) => node.html.slice(0, 200) + node.failureSummary;"
        "return found.violations.map((each) => [each.impact, each.id, ...each.nodes.slice(0, 3).map(told)]);",
        clicked=False,
    )


def axe() -> str:
    node.installed()
    return (node.MODULES / "axe-core" / "axe.min.js").read_text("utf-8") + ";0"


async def test_axe_finds_nothing_light_or_dark(browser: str) -> None:
    async with sights(browser, 1280) as (page, lead):
        await page.tab.call("Runtime.evaluate", expression=axe())
        async for shown in lead:
            assert await violations(page) == [], shown
            await page.look(dark=True)
            assert await violations(page, "['color-contrast']") == [], f"{shown}, dark"
            await page.look()


async def test_on_375_pixels_nothing_is_wider_than_the_screen(browser: str) -> None:
    async with sights(browser, 375) as (page, lead):
        await page.tab.call("Runtime.evaluate", expression=axe())
        async for shown in lead:
            assert await page.value("document.documentElement.scrollWidth") == 375, shown
            wide = (
                "[...document.querySelectorAll('dialog, .details, .list')].filter((e) => e.scrollWidth > e.clientWidth)"
            )
            assert await page.value(f"{wide}.map((each) => each.className)") == [], shown
            if shown in ("/v2/unavailable", "Compared"):
                assert await violations(page) == [], shown


async def test_nothing_moves_for_whoever_wants_that(browser: str) -> None:
    async with following(browser, [{"state": "open", "status": 0}]) as page:
        moves = "getComputedStyle(document.querySelector('.row.open .status')).animationName"
        await page.until("document.querySelector('.row.open .status')")
        assert await page.value(moves) != "none"
        await page.look(reduced=True)
        assert await page.value(moves) == "none"


async def test_what_has_the_focus_can_be_seen(browser: str) -> None:
    async with following(browser, [{}, {}]) as page:
        await page.press("j", "Enter")
        await page.reads("no longer kept", ".details")
        assert await page.value("getComputedStyle(document.querySelector('.row.chosen')).outlineStyle") != "none"
        seen = []
        for _ in range(24):
            await page.press("Tab")
            seen.append(
                await page.value(
                    """(({ activeElement: at, body }) => at === body || getComputedStyle(at).outlineStyle !== "none"
                    || at.matches(".split:focus-visible") || at.id === "list" || at.outerHTML)(document)"""
                )
            )
        assert [each for each in seen if each is not True] == []


async def test_with_a_local_key_the_browser_signs_in_once(browser: str) -> None:
    key = "local-key-0123456789"
    async with ScriptedUpstream(answer) as upstream:
        settings = replace(settings_for(upstream.url), listen=ListenSettings(port=0, key=Secret(key)))
        async with proxy(settings) as app:
            address = app.urls[0].replace("://", f"://anybody:{key}@")
            async with inspector_page(browser, address) as page:
                await raw(app.urls[0], get("/v2/people", f"X-Slproxy-Key: {key}"))
                await page.rows(1)
                await page.press("j", "r")
                await page.rows(2)
                await page.press("c")
                await page.reads('-H "X-Slproxy-Key: $SLPROXY_KEY"', ".command")
                assert key not in str(await page.value("document.documentElement.outerHTML"))


async def test_at_another_name_which_browsers_trust_less_it_does_the_same(browser: str) -> None:
    async with ScriptedUpstream(answer) as upstream:
        settings = replace(settings_for(upstream.url), listen=ListenSettings(port=0, accept_hosts=("proxy.test",)))
        async with (
            proxy(settings) as app,
            inspector_page(browser, f"http://proxy.test:{port_of(app.urls[0])}") as page,
        ):
            assert await page.value("isSecureContext || navigator.locks || navigator.clipboard") is None
            await raw(app.urls[0], get("/v2/people"))
            await page.rows(1)
            await page.press("j", "r")
            await page.rows(2)
            await page.press("c")
            await page.reads(f"{page.origin}/v2/people", ".command")
            await page.press("Enter")
            await page.reads("Copied as curl.", ".toast")


# What others wrote.

DICE = random.Random(17)
ALPHABET = [chr(code) for code in (*range(1, 0x250), *range(0x590, 0x600), *range(0x2000, 0x2070), 0xFEFF, 0x1F600)]
ATTACKS = (
    "<script>wrong.push('ran')</script>",
    "<img src=x onerror=wrong.push('ran')>",
    "\"><svg/onload=wrong.push('ran')>",
    "'-wrong.push('ran')-'",
    "javascript:wrong.push('ran')",
    "</title></style></script><script src=//evil.test></script>",
    "{{constructor.constructor('wrong.push(1)')()}}",
    "${wrong.push('ran')}`",
    "<iframe srcdoc='<script>parent.wrong.push(1)</script>'>",
    "<a href=javascript:wrong.push(1)>x</a><base href=//evil.test>",
    "<style>@import '//evil.test'</style><link rel=stylesheet href=//evil.test>",
    "__proto__",
    "constructor",
    "\u202egnp.exe\u0000\u001b[31m",
    "&lt;script&gt;",
    "<!--<script>",
    *("".join(DICE.choices(ALPHABET, k=40)) for _ in range(6)),
)


async def test_what_others_wrote_is_shown_and_never_run(browser: str) -> None:
    async with scene(browser, inspect=BODIES) as at:
        for attack in ATTACKS:
            at.upstream.script = _reflects(attack)
            escaped = quote(attack, safe="<>'()[]{}$`;:/!-=&@*,.")
            printable = "".join(each for each in attack if each.isprintable())
            body = json.dumps({attack: [attack, {"__proto__": attack}]}).encode()
            await at.send(
                f"/v2/{escaped.replace('<', '%3C').replace('>', '%3E')}?q={escaped}",
                *("Content-Type: text/html", f"X-Attack: {printable}", f"X-Slproxy-Client: {printable}"),
                *(f"User-Agent: {printable}", f"X-Request-Id: {printable}"),
                method="POST",
                body=body,
            )
        await at.page.rows(len(ATTACKS))
        for _ in ATTACKS:
            await at.page.press("j", "Enter")
            await at.page.until("document.querySelectorAll('.side .body').length === 2")
            await at.page.press("c")
            await at.page.until("document.querySelector('dialog .command')")
            await at.page.press("Escape", "e")
            await at.page.until("document.querySelector('dialog textarea')")
            await at.page.press("Escape")
        await at.page.filter(ATTACKS[1])
        made = await at.page.value("document.querySelectorAll('script, iframe, img, svg, style, base, a').length")
        assert made == 1  # the page's own script
        assert at.page.origin == await at.page.value("location.origin")


def _reflects(attack: str) -> Handler:
    printable = "".join(each for each in attack if each.isprintable() and ord(each) < 256)

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", message.body, "Content-Type: text/html", f"X-Attack: {printable}"))

    return script
