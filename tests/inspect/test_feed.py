"""The feed: what tabs are told, and that a slow one harms nobody (docs/inspector.md, Tabs)."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from slproxy.config import InspectSettings
from slproxy.inspect.feed import BURST, POLLS, QUEUE, ROWS, STREAMS, Feed, Tab
from slproxy.inspect.inspector import KEPT_A_SECOND, KEPT_OF_A_BURST
from slproxy.inspect.ring import Ring
from slproxy.inspect.veil import Veil
from slproxy.observe import Exchange, Recording
from slproxy.sandbox import Sandbox
from tests.support.inspector import PAGE, stream
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import get, port_of, raw, read_head
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import SOON, until


class Timer:
    """A timer that fires when the test says so."""

    def __init__(self) -> None:
        self.due: Callable[[], None] | None = None

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.due = callback
        return self

    def cancel(self) -> None:
        self.due = None

    def fire(self) -> None:
        assert self.due is not None
        self.due()


class Source:
    """The rest of what tabs are told: nothing."""

    def hello(self, viewer: str | None) -> dict[str, object]:
        return {"viewer": viewer}

    def budget(self, viewer: str | None) -> dict[str, object] | None:
        return None


class Scene:
    """A feed without a proxy, in which things happen when the test says so."""

    def __init__(self, *, entries: int = 5_000) -> None:
        self.ring, self.timer, self.now = Ring(entries=entries, memory=2**30), Timer(), 100.0
        veil = Veil(lambda: ())
        self.feed = Feed(
            self.ring,
            veil,
            Source(),
            boot="b",
            monotonic=lambda: self.now,
            call_later=self.timer.call_later,
        )

    def open(self, after: str = "", viewer: str | None = None) -> Tab:
        tab = self.feed.open(viewer, after)
        assert tab is not None
        return tab

    def happen(self, count: int = 1, *, status: int = 200, path: str = "/v2/x", owner: str | None = None) -> None:
        for _ in range(count):
            self.ring.number += 1
            exchange = Exchange(method="GET", path=path, began=self.now, ended=self.now, status=status)
            recording = Recording()
            recording.n, recording.at, recording.owner = self.ring.number, 1e9, owner
            self.ring.end(exchange, recording)
            if self.feed.is_watched:
                self.feed.changed((exchange, recording))


class Reader:
    """Reads a tab, as long as it ``reads``."""

    def __init__(self, tab: Tab) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.ids: list[str] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.ended = False
        self.tab = tab
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        self._take(self.tab.read_nowait())
        async for piece in self.tab.chunks():
            self._take(piece)
            await self.reads.wait()
        self.ended = True

    def _take(self, piece: bytes) -> None:
        for block in piece.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "id" in fields:
                self.ids.append(fields["id"])
            if "event" in fields:
                self.events.append((fields["event"], json.loads(fields["data"])))

    @property
    def rows(self) -> list[int]:
        return [row["n"] for name, data in self.events if name == "rows" for row in data["rows"]]

    @property
    def dropped(self) -> int:
        return sum(data["count"] for name, data in self.events if name == "dropped")


async def settled() -> None:
    """Let everybody who can go on do so."""
    for _ in range(300):
        await asyncio.sleep(0)


async def test_tabs_are_told_in_batches_and_each_row_once() -> None:
    scene = Scene()
    scene.happen(3)
    tabs = [Reader(scene.open()) for _ in range(2)]
    await settled()
    scene.happen(2)
    assert tabs[0].rows == [1, 2, 3]
    scene.timer.fire()
    await settled()
    for tab in tabs:
        assert tab.rows == [1, 2, 3, 4, 5]
        assert tab.ids == ["b-3", "b-5"]
        tab.task.cancel()


async def test_past_a_batch_failures_go_first_and_the_rest_is_counted() -> None:
    scene = Scene()
    tab = Reader(scene.open())
    await settled()
    # All of a burst goes; then so many that no more than that a second are worded.
    scene.happen(BURST)
    scene.timer.fire()
    await settled()
    assert (len(tab.rows), tab.dropped) == (BURST, 0)
    scene.happen(5, status=500)
    scene.happen(2 * ROWS)
    scene.timer.fire()
    await settled()
    newest = BURST + 5 + 2 * ROWS
    assert tab.rows[BURST:] == [*range(BURST + 1, BURST + 6), *range(newest - ROWS + 6, newest + 1)]
    assert tab.dropped == ROWS + 5
    tab.task.cancel()


async def test_a_tab_that_does_not_read_is_told_what_is_kept_once_it_does_and_how_much_is_not() -> None:
    scene = Scene(entries=1_000)
    slow, quick = (Reader(scene.open()) for _ in range(2))
    await settled()
    slow.reads.clear()
    told = 0
    for _ in range(60):
        scene.happen(ROWS)
        told += ROWS
        scene.timer.fire()
        await settled()
    assert quick.rows == list(range(1, told + 1))
    slow.reads.set()
    await settled()
    # It had one batch in hand; of the rest it gets what is kept, once.
    assert slow.rows == [*range(1, ROWS + 1), *range(told - 1_000 + 1, told + 1)]
    assert slow.dropped == told - 1_000 - ROWS
    scene.happen()
    scene.timer.fire()
    await settled()
    assert slow.rows[-1] == quick.rows[-1] == told + 1
    for tab in (slow, quick):
        tab.task.cancel()


async def test_what_waits_for_a_slow_tab_is_limited() -> None:
    scene = Scene()
    tab = scene.open()
    chunks = tab.chunks()
    for _ in range(100):
        scene.happen(ROWS, path="/v2/" + "x" * 400)
        scene.timer.fire()
    scene.happen()
    scene.timer.fire()
    assert len(await anext(chunks)) < QUEUE  # what it missed, a slice at a time


async def test_further_tabs_ask_again_and_more_than_some_are_refused() -> None:
    scene = Scene()
    scene.happen(2)
    streams = [Reader(scene.open()) for _ in range(STREAMS)]
    more = Reader(scene.open("b-1"))
    await settled()
    assert more.ended
    assert more.rows == [2]
    assert not more.events[0][1]["stream"]
    for _ in range(POLLS - 1):
        scene.open()
    assert scene.feed.open(None, "") is None
    scene.now += 1.0
    scene.open()
    # When one of the others closes, whoever asks next has its place.
    streams[0].task.cancel()
    scene.feed.discard(streams[0].tab)
    last = Reader(scene.open())
    await settled()
    assert last.events[0][1]["stream"]
    for tab in (*streams, last):
        tab.task.cancel()


async def test_while_nobody_looks_nothing_is_worded_and_no_timer_runs() -> None:
    scene = Scene()
    tab = scene.open()
    assert scene.feed.is_watched
    tab.close()
    assert (scene.timer.due, scene.feed.is_watched) == (None, False)


@pytest.mark.parametrize("after", ["b-²", f"b-{'1' * 5_000}", "b--1", "c-1"])
async def test_who_says_nonsense_of_what_was_seen_is_told_all(after: str) -> None:
    scene = Scene()
    scene.happen()
    tab = Reader(scene.open(after))
    await settled()
    assert tab.rows == [1]
    tab.task.cancel()


async def test_a_client_sees_its_own_requests_only() -> None:
    scene = Scene()
    scene.happen(owner="a")
    scene.happen(owner="b")
    tab = Reader(scene.open(viewer="a"))
    everybody = Reader(scene.open())
    await settled()
    scene.happen(owner="b")
    scene.happen(owner="a")
    scene.timer.fire()
    await settled()
    assert tab.rows == [1, 4]
    assert everybody.rows == [1, 2, 3, 4]
    tab.task.cancel()
    everybody.task.cancel()


def exchanges_alive() -> int:
    gc.collect()
    return sum(isinstance(each, Exchange) for each in gc.get_objects())


async def test_a_tab_that_reads_slowly_keeps_nothing_that_gave_way() -> None:
    before = exchanges_alive()
    scene = Scene(entries=500)
    scene.happen(500)
    tabs = [scene.open() for _ in range(6)]
    slow = [tab.chunks() for tab in tabs]
    for each in slow:
        await anext(each)
    scene.happen(500)
    assert exchanges_alive() - before <= 500
    for each in slow[4:]:
        assert [b'"n"' in piece async for piece in each] == [False] * 9
    for tab in tabs:
        tab.close()


# On real sockets.


async def test_a_tab_that_reads_nothing_harms_nobody() -> None:
    async with ScriptedUpstream() as upstream, proxy(settings_for(upstream.url)) as app, stream(app.urls[0]) as quick:
        url = app.urls[0]
        _, slow = await asyncio.open_connection("127.0.0.1", port_of(url), limit=1)
        slow.write(get(f"{PAGE}events"))
        path = "/v2/" + "x" * 450
        for _ in range(5):
            await asyncio.gather(*(raw(url, get(path)) for _ in range(40)))
        asked = time.monotonic()
        await raw(url, get("/v2/me.json"))
        assert time.monotonic() - asked < 1.0
        assert (await quick.row(201))["status"] == 200
        slow.close()


async def test_seven_tabs_at_once_are_all_told(sandbox: Sandbox) -> None:
    async def tells(url: str, n: int) -> bool:
        after = ""
        while True:  # as an EventSource does
            async with stream(url, query=f"?after={after}") as tab:
                try:
                    while True:
                        event = await tab.next()
                        if event.name == "rows" and any(row["n"] == n for row in event.data["rows"]):
                            return True
                except EOFError:
                    after = tab.last_id
                    await asyncio.sleep(0.05)

    async with proxy(settings_for(sandbox.url)) as app:
        url = app.urls[0]
        tabs = [asyncio.create_task(tells(url, 2)) for _ in range(7)]
        await raw(url, get("/v2/me.json"))
        await raw(url, get("/v2/users.json"))
        assert await asyncio.gather(*tabs) == [True] * 7


async def test_a_shutdown_ends_the_streams_and_waits_for_none(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app, stream(app.urls[0]) as tab:
        await tab.next("hello")
        began = time.monotonic()
        await app.drain(at_once=asyncio.Event())
        assert (await tab.next("bye")).data["reason"]
        with pytest.raises(EOFError):
            await tab.next()
        assert time.monotonic() - began < 10.0


async def test_a_reload_that_turns_it_off_ends_the_streams_and_forgets_all(sandbox: Sandbox) -> None:
    settings = settings_for(sandbox.url)
    off, on = (replace(settings, inspect=InspectSettings(enabled=enabled)) for enabled in (False, True))
    async with proxy(settings) as app:
        url = app.urls[0]
        await raw(url, get("/v2/me.json"))
        async with stream(url) as tab:
            await tab.row(1)
            await app.reload(off)
            await tab.next("bye")
        assert (await raw(url, get("/_slproxy/"))).head.status == 404
        await raw(url, get("/v2/me.json"))
        await app.reload(on)
        async with stream(url) as tab:
            await raw(url, get("/v2/users.json"))
            assert (await tab.next("rows")).data["rows"][0]["path"] == "/v2/users.json"


async def test_a_reload_does_not_wait_for_a_stream_to_close_what_it_replaced(sandbox: Sandbox) -> None:
    settings = settings_for(sandbox.url)
    async with proxy(settings) as app, stream(app.urls[0]) as tab:
        await tab.next("hello")
        await raw(app.urls[0], get("/v2/me.json"))
        before = app.upstream
        assert before.connections
        await app.reload(replace(settings, upstream=replace(settings.upstream, response_timeout=5.0)))
        await until(lambda: not before.connections, timeout=SOON)
        await raw(app.urls[0], get("/v2/me.json"))
        await tab.row(2)


async def test_a_tab_that_is_closed_is_forgotten(sandbox: Sandbox) -> None:
    async with proxy(settings_for(sandbox.url)) as app:
        for _ in range(2 * STREAMS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(app.urls[0]))
            writer.write(get(f"{PAGE}events"))
            await read_head(reader)
            writer.close()
            await until(lambda: app.server is not None and not app.server.admission.connections)
        async with stream(app.urls[0]) as tab:
            assert (await tab.next("hello")).data["stream"]


async def test_of_a_burst_no_more_is_kept_than_anybody_could_look_at() -> None:
    async with ScriptedUpstream() as upstream, proxy(settings_for(upstream.url)) as app:

        def is_kept(at: float) -> bool:
            exchange = Exchange(method="GET", path="/v2/x", began=at)
            app.inspector.request_began(exchange)
            return exchange.recording is not None

        def kept_of_a_second(begin: float) -> int:
            return sum(is_kept(begin + number / 5_000) for number in range(4_999))

        assert [kept_of_a_second(10.0), kept_of_a_second(11.0)] == [KEPT_OF_A_BURST, KEPT_A_SECOND]
        assert kept_of_a_second(13.0) == 2 * KEPT_A_SECOND
        assert kept_of_a_second(60.0) == KEPT_OF_A_BURST


async def test_how_many_were_not_kept_is_told_but_not_to_a_client() -> None:
    scene = Scene()
    ours, theirs = Reader(scene.open()), Reader(scene.open(viewer="report"))
    await settled()
    scene.feed.left_out = 7
    scene.timer.fire()
    scene.timer.fire()
    await settled()
    assert (ours.dropped, theirs.dropped) == (7, 0)
    ours.task.cancel()
    theirs.task.cancel()
