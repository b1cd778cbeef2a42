"""Feed: what happens, streamed to the tabs that are open (Server-Sent Events, https://html.spec.whatwg.org/#server-sent-events).

1. Rows are worded once for all tabs, in batches, and only while there are tabs. Where there are more than ``ROWS`` a
   batch for long, those of most interest go, and the number of the others is told.
2. A tab that does not read has a queue of ``QUEUE`` bytes. When that is full it is emptied, and the tab gets what it
   missed, as far as that is still kept, once it reads again. Nobody else notices.
3. A browser makes six connections to a host, for all its tabs. So ``STREAMS`` tabs have a stream that lasts; each
   further one gets what is new and the end, and asks again after ``RETRY``, as EventSource does by itself.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Protocol

from slproxy.inspect.ring import Entry, Ring
from slproxy.inspect.rows import is_notable, row
from slproxy.inspect.veil import Veil
from slproxy.pace import CallLater, Timer

# How often tabs are told, in seconds; what takes less is told once.
EVERY = 0.1
# How many rows on average each time, for all tabs; and how many at once, where there were few before.
ROWS, BURST = 25, 250
# The ticks between two looks at the budget.
BUDGET_EVERY = 5
# How much waits for one tab, in bytes.
QUEUE = 256 * 1024
# How many rows a tab gets at its start; and how many are worded in one go, so that requests get their turn.
AT_FIRST, SLICE = 2_000, 50
# How many tabs have a stream; how many more may ask in a second; after how many ms an EventSource asks again.
STREAMS, POLLS, RETRY = 4, 20, 1_000
# How often a tab hears something, in seconds: a connection on which nothing passes may be lost unseen.
PULSE = 15.0

# A number of a change, as a tab says it.
_SEEN = re.compile("[0-9]{1,15}")

Viewer = str | None


def visible_to(viewer: Viewer, entry: Entry) -> bool:
    """Tell whether somebody may see an entry: a client sees what was sent with its key, everybody else sees all."""
    return viewer is None or entry[1].owner == viewer


def event(name: str, document: object, *, id: str = "") -> bytes:  # noqa: A002  # the protocol's word
    """Return an event on the wire."""
    data = document if isinstance(document, str) else json.dumps(document)
    return (f"id: {id}\n" if id else "").encode() + f"event: {name}\ndata: {data}\n\n".encode()


class Source(Protocol):
    """What a feed tells of besides rows."""

    def hello(self, viewer: Viewer) -> dict[str, object]: ...

    def budget(self, viewer: Viewer) -> dict[str, object] | None: ...


class Feed:
    """The tabs that are open, and what they are told."""

    def __init__(
        self,
        ring: Ring,
        veil: Veil,
        source: Source,
        *,
        boot: str,
        monotonic: Callable[[], float],
        call_later: CallLater,
    ) -> None:
        self._ring, self._veil, self._source = ring, veil, source
        self._boot = boot
        self._monotonic, self._call_later = monotonic, call_later
        self._tabs: set[Tab] = set()
        self._timer: Timer | None = None
        self._ticks = 0
        # How many rows may go now.
        self._credit = BURST
        # What has ended, or changed, since tabs were told; nothing is put here while there are none.
        self._changed: list[Entry] = []
        # What each was told of the budget.
        self._budgets: dict[Viewer, dict[str, object]] = {}
        self._polls, self._polls_since = Counter[Viewer](), 0.0
        self.is_watched = False
        # How many requests were not even kept since tabs were told.
        self.left_out = 0

    @property
    def tabs(self) -> int:
        """The number of tabs that have a stream."""
        return len(self._tabs)

    def open(self, viewer: Viewer, after: str) -> Tab | None:
        """Return the stream of another tab, which has seen all up to ``after``; ``None`` where there are too many."""
        boot, _, seen = after.rpartition("-")
        since = int(seen) if boot == self._boot and _SEEN.fullmatch(seen) else 0
        # Nobody is kept out by the tabs of others.
        is_brief = sum(tab.viewer == viewer for tab in self._tabs) >= STREAMS
        now = self._monotonic()
        if is_brief:
            if now - self._polls_since >= 1.0:
                self._polls.clear()
                self._polls_since = now
            self._polls[viewer] += 1
            if self._polls[viewer] > POLLS:
                return None
        tab = Tab(self, viewer, since, is_brief=is_brief)
        if not is_brief:
            self._tabs.add(tab)
            self.is_watched = True
            if self._timer is None:
                self._timer = self._call_later(EVERY, self._tick)
        return tab

    def discard(self, tab: Tab) -> None:
        """Forget a tab that was closed."""
        self._tabs.discard(tab)
        if not self._tabs:
            self.is_watched = False
            self._changed.clear()
            self._budgets.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def close(self, reason: str) -> None:
        """End all streams."""
        for tab in list(self._tabs):
            tab.end(event("bye", {"reason": reason}))

    def changed(self, entry: Entry) -> None:
        """Note an entry that has ended or changed."""
        self._changed.append(entry)

    def tell(self, name: str, document: object, viewer: Viewer = None) -> None:
        """Tell all tabs something at once, or those of a viewer."""
        for tab in self._tabs:
            if viewer in (None, tab.viewer):
                tab.put(event(name, document))

    def _tick(self) -> None:
        self._timer = self._call_later(EVERY, self._tick)
        self._ticks += 1
        now = self._monotonic()
        changed, self._changed = self._changed, []
        for _, recording in (begun := self._begun(now)):
            recording.is_told = True
        entries = [*changed, *begun]
        if self.left_out:
            for tab in self._tabs:
                if tab.viewer is None:  # a client is not told how many there were of others
                    tab.put(event("dropped", {"count": self.left_out}))
            self.left_out = 0
        credit = self._credit = min(self._credit + ROWS, BURST)
        if entries:
            self._credit = max(credit - len(entries), 0)
            for viewer in {tab.viewer for tab in self._tabs}:
                seen = [each for each in entries if visible_to(viewer, each)]
                shown = chosen(seen, credit)
                told = self.rows_event(shown, now)
                if left_out := len(seen) - len(shown):
                    told += event("dropped", {"count": left_out})
                for tab in self._tabs:
                    if tab.viewer == viewer:
                        tab.put(told)
        if self._ticks % BUDGET_EVERY == 0:
            self._tell_budget()

    def _begun(self, now: float) -> list[Entry]:
        """Return what has been under way for a while and was not told."""
        since, found = now - EVERY, []
        for entry in self._ring.open.values():  # in the order in which they began
            if entry[0].began > since:
                break
            if not entry[1].is_told:
                found.append(entry)
        return found

    def _tell_budget(self) -> None:
        for viewer in {tab.viewer for tab in self._tabs}:
            budget = self._source.budget(viewer)
            if budget is None:
                return
            told = {key: value for key, value in budget.items() if key not in ("at", "resets_in")}
            if told != self._budgets.get(viewer) or budget["waiting"]:
                self._budgets[viewer] = told
                for tab in self._tabs:
                    if tab.viewer == viewer:
                        tab.put(event("budget", budget))

    def rows_event(self, entries: Iterable[Entry], now: float, *, is_last: bool = True) -> bytes:
        """Return an event with rows, in which nothing is secret; with the ``last`` of them, all up to now is told."""
        told = json.dumps({"rows": [row(each, now) for each in entries]})
        return event("rows", self._veil.mask(told), id=f"{self._boot}-{self._ring.seq}" if is_last else "")

    def first_events(self, viewer: Viewer, *, is_brief: bool) -> bytes:
        """Return what each connection begins with."""
        hello = self._source.hello(viewer) | {"stream": not is_brief}
        told = f"retry: {RETRY}\n".encode() + event("hello", hello)
        budget = self._source.budget(viewer)
        return told if budget is None else told + event("budget", budget)

    def missed(self, viewer: Viewer, since: int) -> tuple[list[int], int]:
        """Return the numbers of what is kept and has changed since, the newest only, and of all that is under way.

        And how many of them have changed.
        """
        ended = [each for each in self._ring if each[1].seq > since and visible_to(viewer, each)]
        ended.sort(key=lambda each: each[1].seq)
        entries = [*ended[-AT_FIRST:], *(each for each in self._ring.open.values() if visible_to(viewer, each))]
        return [recording.n for _, recording in entries], sum(recording.seq > since for _, recording in entries)

    def slices(self, numbers: Sequence[int]) -> Iterator[tuple[bytes, int]]:
        """Yield rows in pieces that are worded one by one, and how many are in each."""
        pieces = self._ring.pieces(numbers, SLICE)
        for end in range(SLICE, len(numbers) + SLICE, SLICE):
            rows = next(pieces)
            told = self.rows_event(rows, self._monotonic(), is_last=end >= len(numbers)), len(rows)
            rows.clear()
            yield told

    @property
    def seq(self) -> int:
        """The number of the last change."""
        return self._ring.seq


def chosen(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """Return the rows that go, where there may be too many: what somebody would look for, then what is newest."""
    if len(entries) <= most:
        return entries
    notable = [each for each in entries if is_notable(each)][-most:]
    rest = most - len(notable)
    return [*notable, *([each for each in entries if not is_notable(each)][-rest:] if rest else [])]


class Tab:
    """The stream of one tab: the body of an answer."""

    def __init__(self, feed: Feed, viewer: Viewer, since: int, *, is_brief: bool) -> None:
        self.viewer = viewer
        self._feed = feed
        self._since = since
        self._is_brief = is_brief
        self._queue: deque[bytes] = deque()
        self._size = self._queued = 0
        # What it missed has to be found out, since its queue was full.
        self._is_behind = False
        self._is_ended = False
        self._wakes: asyncio.Future[None] | None = None

    # What an answer wants of its body.

    @property
    def ended(self) -> bool:
        return False

    def read_nowait(self) -> bytes:
        return self._feed.first_events(self.viewer, is_brief=self._is_brief)

    def close(self) -> None:
        self._feed.discard(self)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what the tab has missed, then what happens, until the end."""
        async for piece in self._catch_up(tells_dropped=False):
            yield piece
        while not self._is_brief:
            if self._queue:
                told, seq = b"".join(self._queue), self._queued
                self._queue.clear()
                self._size = 0
                yield told
                self._since = seq  # whoever comes back has taken it
            elif self._is_behind:
                self._is_behind = False
                async for piece in self._catch_up(tells_dropped=True):
                    yield piece
            elif self._is_ended:
                return
            elif piece := await self._next():
                yield piece

    async def _catch_up(self, *, tells_dropped: bool) -> AsyncIterator[bytes]:
        since, self._since = self._since, self._feed.seq
        numbers, changed = self._feed.missed(self.viewer, since)
        dropped = self._since - since - changed
        dropped += len(numbers)
        for piece, rows in self._feed.slices(numbers):
            dropped -= rows
            yield piece
            await asyncio.sleep(0)
        # Of those of others, a client is not told how many there were.
        if tells_dropped and dropped > 0 and self.viewer is None:
            yield event("dropped", {"count": dropped})

    async def _next(self) -> bytes:
        """Wait for what is told next, and return nothing, or a comment where nothing was told for long."""
        self._wakes = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(PULSE):
                await self._wakes
        except TimeoutError:
            return b":\n\n"
        finally:
            self._wakes = None
        return b""

    def put(self, told: bytes) -> None:
        """Queue an event."""
        if self._is_behind or self._is_ended:
            return
        if self._size + len(told) > QUEUE:
            self._queue.clear()
            self._size, self._is_behind = 0, True
        else:
            self._queue.append(told)
            self._size += len(told)
            self._queued = self._feed.seq
        self._wake()

    def end(self, told: bytes) -> None:
        """Say a last word."""
        self.put(told)
        self._is_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)
