"""Pacing in tests: a minute that passes when the test says so, and a proxy to ask within it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from slproxy.app import App
from slproxy.clock import Clock
from slproxy.config import Settings
from slproxy.config.origin import Origin
from slproxy.sandbox import Options, Sandbox
from slproxy.store import MemoryStore
from tests.support.pair import problem
from tests.support.programs import Program
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Head, Message, get, port_of, raw
from tests.support.sandboxes import running_sandbox
from tests.support.waiting import PATIENCE, SOON, until

# A clock minute begins here; it is days from the clock of whoever runs the tests, which must not matter.
MINUTE = 1_795_000_020.0


class Ticking:
    """A clock that stands at a second of a minute until it is first looked at, for a proxy in a process of its own."""

    def __init__(self, second: float) -> None:
        self._at = MINUTE + second
        self._began: float | None = None

    def __call__(self) -> float:
        if self._began is None:
            self._began = time.monotonic()
        return self._at + time.monotonic() - self._began


@dataclass(order=True)
class ManualTimer:
    at: float
    number: int
    callback: Callable[[], None] = field(compare=False)
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    """A clock that stands at a second of a minute until the test moves it; the upstream's, and the proxy's."""

    def __init__(self, second: float) -> None:
        self._at = MINUTE + second
        self._timers: list[ManualTimer] = []
        self._numbers = itertools.count()
        self.elapsed = 0.0
        # How many sleep until it moves on.
        self.sleeping = 0

    def __call__(self) -> float:
        return self._at + self.elapsed

    def call_later(self, delay: float, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(self.elapsed + delay, next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        self.call_later(seconds, woken.set)
        self.sleeping += 1
        try:
            await woken.wait()
        finally:
            self.sleeping -= 1

    def advance(self, seconds: float) -> None:
        """Let time pass, and whatever waits for it happen in its order."""
        end = self.elapsed + seconds
        while self._timers and self._timers[0].at <= end:
            timer = heapq.heappop(self._timers)
            self.elapsed = max(self.elapsed, timer.at)
            if not timer.is_cancelled:
                timer.callback()
        self.elapsed = end

    def advance_to(self, second: float) -> None:
        """Let time pass until so many seconds after the beginning of the first minute."""
        self.advance(MINUTE + second - self())

    def proxys(self, *, wrong: float = 0.0) -> Clock:
        """Return the clock of a proxy whose own idea of the time is wrong by so much, and which has no jitter."""
        return Clock(
            now=lambda: self() + wrong,
            monotonic=lambda: self.elapsed,
            sleep=self.sleep,
            jitter=lambda: 0.0,
            call_later=self.call_later,
        )


def paced(settings: Settings, *, limit_given: bool = False, **pace: object) -> Settings:
    """Return settings with other rules of pacing; ``limit_given`` as if somebody had set ``pace.limit``."""
    origins = {"pace.limit": Origin(layer="env", place="SLPROXY_PACE__LIMIT")} if limit_given else {}
    return replace(settings, pace=replace(settings.pace, **pace), origins=origins)  # type: ignore[arg-type]


@dataclass
class Line:
    """A proxy, and how to ask it."""

    app: App
    clock: ManualClock = field(default_factory=lambda: ManualClock(30.0))
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.app.urls[0]

    async def ask(
        self, target: str, *headers: str, method: str = "GET", body: bytes = b"", timeout: float = PATIENCE
    ) -> Message:
        return await raw(self.url, get(target, *headers, method=method, body=body), method=method, timeout=timeout)

    async def at_once(self, target: str, *headers: str) -> Message:
        """Ask for what nothing may hold."""
        return await self.ask(target, *headers, timeout=SOON)

    def begin(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> asyncio.Task[Message]:
        return asyncio.create_task(self.ask(target, *headers, method=method, body=body))

    async def hold(self, target: str, *headers: str, method: str = "GET", body: bytes = b"") -> asyncio.Task[Message]:
        """Begin a request, and see that it is held."""
        held = self.held
        task = self.begin(target, *headers, method=method, body=body)
        await until(lambda: self.held > held or task.done(), timeout=SOON)
        assert not task.done(), f"it was not held: {task.result().head.first}"
        return task

    async def leave_open(self, request: bytes) -> asyncio.StreamWriter:
        """Send a request and keep its connection, to be ended by the test."""
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(self.url))
        self._writers.append(writer)
        writer.write(request)
        await writer.drain()
        return writer

    @property
    def budget(self) -> dict[str, object]:
        state = self.app.pacer.state()
        assert state is not None
        return state

    @property
    def minute(self) -> dict[str, object]:
        minute = self.budget["this_minute"]
        assert isinstance(minute, dict)
        return minute

    @property
    def queue(self) -> dict[str, int]:
        queue = self.budget["queue"]
        assert isinstance(queue, dict)
        return queue

    @property
    def held(self) -> int:
        return sum(self.queue.values())

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def line_to(
    settings: Settings, *, store: MemoryStore | None = None, clock: ManualClock | None = None, wrong: float = 0.0
) -> AsyncIterator[Line]:
    """Run a proxy by a clock of the test's, or by the real one."""
    async with proxy(settings, store=store, clock=None if clock is None else clock.proxys(wrong=wrong)) as app:
        line = Line(app) if clock is None else Line(app, clock)
        try:
            yield line
        finally:
            line.close()


@asynccontextmanager
async def salesloft(
    second: float,
    *,
    budget: int = 600,
    limit_given: bool = False,
    connections: int = 100,
    wrong: float = 0.0,
    **pace: object,
) -> AsyncIterator[tuple[Line, Sandbox]]:
    """Run the sandbox at a second of a minute, which stands unless the test moves it, and a proxy before it."""
    clock = ManualClock(second)
    async with running_sandbox(Options(budget=budget), clock=clock) as sandbox:
        settings = settings_for(sandbox.url)
        settings = replace(settings, upstream=replace(settings.upstream, max_connections=connections))
        settings = paced(settings, limit_given=limit_given, **pace)
        async with line_to(settings, clock=clock, wrong=wrong) as line:
            yield line, sandbox


async def spend_all(line: Line, sandbox: Sandbox, *, but: int = 0) -> None:
    """Let others spend what is left of the minute, and the proxy learn of it."""
    sandbox.spend(sandbox.remaining() - but - 1)
    answer = await line.at_once("/v2/me")
    assert (answer.head.status, answer.head.get("x-ratelimit-remaining-minute")) == (200, str(but))


def rate_limit(head: Head) -> tuple[int, int, int]:
    """Return what a reply's own headers tell: the budget, what is left of it, and the seconds to the next minute."""
    policy = re.fullmatch(r'"team";q=(\d+);w=60', head.get("RateLimit-Policy") or "")
    limit = re.fullmatch(r'"team";r=(\d+);t=(\d+)', head.get("RateLimit") or "")
    assert policy, head.fields
    assert limit, head.fields
    return int(policy[1]), int(limit[1]), int(limit[2])


def waited(head: Head) -> float:
    """Return for how long a reply says that its request was held, in seconds."""
    found = re.search(r"wait;dur=([0-9.]+)", head.get("Server-Timing") or "")
    assert found, head.fields
    return float(found[1]) / 1000


def told_at_once(answer: Message) -> int:
    """Hold a reply to what the contract says of over-budget, and return its Retry-After."""
    problem(answer, status=429, kind="over-budget")
    rate_limit(answer.head)
    seconds = answer.head.get("Retry-After")
    assert seconds is not None
    return int(seconds)


def logged(running: Program) -> list[dict[str, object]]:
    return [json.loads(line) for line in running.errors if line.startswith("{")]
