"""One hour of mixed load on the real program: does it leak, and does it cure what docs/contract.md, Cure, says?

``python -m benchmarks.soak`` logs in at a fake SalesLoft whose tokens live for 5 s and which fails 5 % of what it is
asked, serves, sends 100 requests a second by chance (an open loop: a slow answer holds up no other request), looks at
the proxy's process every 10 s, and writes its figures and a plot. It exits 1 when a criterion is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import importlib.util
import json
import math
import os
import platform
import random
import re
import signal
import socket
import statistics
import sys
import tempfile
import time
from array import array
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from benchmarks.programs import cpu_seconds
from slproxy.sandbox import Fault, Options, Sandbox
from slproxy.sandbox.limits.faults import Faults, Side, parse_fault

ROOT = Path(__file__).resolve().parent.parent
# The load and its bounds: tokens of 5 s, random faults of 5 %, GET success of 99.9 %, less than 1 MiB an hour.
LIFETIME, SHARE, SUCCESS, GROWTH = 5.0, 0.05, 0.999, 1.0
CONNECTIONS = 30
SAMPLE_EVERY = 10.0
# Caches, pools and the allocator fill in the first minutes; a trend needs many more than those.
WARM_UP, TREND = 300.0, 1800.0
# Memory is kept for the most that was ever in flight at once, which by chance comes late: so it comes in the warm-up.
WARM_UP_RATE = 2.0
# A count is flat when its straight line rises by less than this in an hour. Clients and pooled connections come and go:
# the counts of two moments differ by 10, so the slope of an hour errs by 2. A single one left over shows at the end.
FLAT = 10.0
# Four attempts of `RESPONSE_TIMEOUT` each take less than the first; the others bound the end. In seconds.
PATIENCE, LAST_ANSWERS, QUIET = 60.0, 12.0, 8.0
# What is asked while all connections are busy waits; beyond this it is given up, and counts as failed.
LONGEST_QUEUE = 1000
NOTES = 50
# Below `slow=8`, so that the proxy's own timeout is met as well.
RESPONSE_TIMEOUT = "5"

# What goes wrong, by weight. A GET is cured of most of it; what it cannot be cured of leaves 99.96 % of them at 5 %.
# The token endpoint loses no reply: where a renewal ends the old pair at once, that ends the login, whatever one does.
# `html-200` is rare there: the proxy asks again only a second later, and has no token if the API rejects it meanwhile.
BROKEN = {"reset": 28, "status=503": 28, "status=502": 14, "status=504": 14, "status=429;retry-after=1": 10}
SLOW_OR_STALE = {"slow=1": 4, "slow=8": 1, "expire-token": 1}
INCURABLE = {"reset-mid-body": 0.4, "html-500": 0.4}
FAULTS: Mapping[Side, Mapping[str, float]] = {
    "api": {**BROKEN, **SLOW_OR_STALE, **INCURABLE},
    "token": {"status=503": 34, "down": 34, "html-200": 2, "slow-before=0.5": 15, "slow=0.5": 15},
}

# What is asked, by weight; `write` keeps some `NOTES` notes by POST, PUT and DELETE. A page of 25 people is 47 kB.
MIX = {"person": 47, "me": 10, "page": 12, "large": 8, "note": 6, "write": 15, "slow": 0.5, "leave": 1.5}
LARGE, HUGE = "/v2/people.json?per_page=52", "/v2/people.json?per_page=100"  # 100 and 192 kB


class RandomFaults(Faults):
    """Fails a share of whatever arrives; the sandbox's own wait for a request that asks for one."""

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0
        self.counts: Counter[str] = Counter()
        self._dice = random.Random(5)

    def fault_for(self, *, on: Side, method: str, target: str, header: str | None) -> Fault | None:  # noqa: ARG002
        self.counts[on] += 1
        if self._dice.random() >= self.share:
            return None
        (text,) = self._dice.choices(list(FAULTS[on]), list(FAULTS[on].values()))
        self.counts[f"{on}: {text}"] += 1
        return parse_fault(text, on)


async def _sandbox() -> None:
    """Be SalesLoft until standard input ends; each line of it sets the share of faults, and is answered with counts."""
    sandbox = Sandbox(Options(token_lifetime=LIFETIME, budget=9 * 10**8))
    sandbox.faults = faults = RandomFaults()
    await sandbox.start()
    print(sandbox.url, flush=True)
    lines = await _reader(sys.stdin.fileno())
    while line := await lines.readline():
        faults.share = float(line)
        statuses = Counter(entry.status for entry in sandbox.token_requests if entry.grant_type == "refresh_token")
        counts = {"renewals": statuses[200], "refused": statuses[400] + statuses[401], **faults.counts}
        print(json.dumps(counts), flush=True)
    await sandbox.stop()


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


# The processes.


@asynccontextmanager
async def child(*command: str, **options: object) -> AsyncIterator[Process]:
    """Run a process until the block ends, however it ends; a Ctrl-C at the terminal is ours alone."""
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True, **options)  # type: ignore[arg-type]
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(QUIET):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


# `slproxy serve`, which also tells at a signal what nobody outside can see: how many tasks there are, and how many
# blocks Python has allocated. It ends by itself, should this program be killed.
_SERVE = """
import asyncio, os, signal, sys
descriptor, longest, uvloop = map(int, sys.argv[1:4])
def tell(*_):
    os.write(descriptor, b"%d %d\\n" % (len(asyncio.all_tasks()), sys.getallocatedblocks()))
signal.signal(signal.SIGUSR1, tell)
signal.alarm(longest)
if not uvloop:
    sys.modules["uvloop"] = None
from slproxy.cli import main
main(["serve"])
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the proxy's process holds at a moment; sizes are in MiB, times in seconds."""

    at: float
    rss: float
    anon: float
    fds: int
    threads: int
    tasks: int
    blocks: int
    in_flight: int
    cpu: float


COUNTED = ("rss", "anon", "fds", "threads", "tasks", "blocks", "in_flight")


class Proxy:
    """The proxy under load, seen from outside."""

    def __init__(self, process: Process, told: asyncio.StreamReader) -> None:
        self.process = process
        self.port = 0
        self.log: Counter[str] = Counter()
        self.worst: deque[str] = deque(maxlen=20)
        self._told = told

    async def sample(self, at: float) -> Sample:
        """Look at all of it; the question about the requests comes last, for it is a connection and a task itself."""
        tasks, blocks = await self.inside()
        entries = dict(line.split(":", 1) for line in self._proc("status").read_text().splitlines())
        seen = Sample(
            at=round(at, 1),
            rss=_mib(entries["VmRSS"]),
            anon=_mib(entries["RssAnon"]),
            fds=self.descriptors(),
            threads=int(entries["Threads"]),
            tasks=tasks,
            blocks=blocks,
            in_flight=0,
            cpu=cpu_seconds(self.process.pid),
        )
        line = Line(self.port)
        try:
            answer = await line.ask(_request("GET", "/_slproxy/status.json"))
        finally:
            line.close()
        return replace(seen, in_flight=json.loads(answer.body)["requests"]["in_flight"] - 1)

    async def inside(self) -> tuple[int, int]:
        """Return how many tasks and allocated blocks there are."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE):
            line = await self._told.readline()
        if not line:
            raise RuntimeError("the proxy has ended:\n" + "\n".join(self.worst))
        tasks, blocks = line.split()
        return int(tasks), int(blocks)

    def descriptors(self) -> int:
        return sum(1 for _ in self._proc("fd").iterdir())

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")

    async def collect(self) -> None:
        """Count the lines of the log, and keep those that are not of every day."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if b'"level": "info"' in line:
                self.log["info"] += 1
                continue
            found = re.search(rb'"level": "(\w+)"', line)
            # What is not in the log's form is Python's own, such as a warning or a traceback.
            level = found[1].decode() if found else "other"
            self.log[level] += 1
            if level != "warning":
                self.worst.append(line.decode(errors="replace").rstrip()[:2000])


def _mib(entry: str) -> float:
    return round(int(entry.removesuffix("kB")) / 1024, 2)


@asynccontextmanager
async def serving(home: Path, environment: Mapping[str, str], *, longest: float, uvloop: bool) -> AsyncIterator[Proxy]:
    """Run the proxy with the login in ``home``; it has said where it listens."""
    told, tells = os.pipe()
    command = (sys.executable, "-c", _SERVE, str(tells), str(math.ceil(longest)), str(int(uvloop)))
    options = {"cwd": home, "env": environment, "pass_fds": (tells,), "stdin": DEVNULL, "stdout": PIPE, "stderr": PIPE}
    async with child(*command, **options) as process:
        os.close(tells)
        assert process.stdout is not None
        proxy = Proxy(process, await _reader(told))
        collecting = asyncio.create_task(proxy.collect())
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
        if (found := re.match(r"Listening on http://[^:]+:(\d+)", line)) is None:
            await collecting
            raise RuntimeError("the proxy did not start:\n" + "\n".join(proxy.worst))
        proxy.port = int(found[1])
        yield proxy
    await collecting


async def log_in(home: Path, environment: Mapping[str, str]) -> None:
    """Log in as a person does who has no browser, and leave the login in ``home``."""
    command = (sys.executable, "-m", "slproxy", "login", "--no-browser")
    async with (
        asyncio.timeout(PATIENCE),
        child(*command, cwd=home, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process,
    ):
        assert process.stderr is not None
        said = b""
        while not (found := re.search(rb"http://\S+/oauth/authorize\?\S+", said)):
            if not (line := await process.stderr.readline()):
                raise RuntimeError(f"no login: {said.decode()}")
            said += line
        back = await asyncio.to_thread(_redirect, found[0].decode() + "&sandbox_consent=allow")
        _, said = await process.communicate(back.encode() + b"\n")
        if process.returncode != 0:
            raise RuntimeError(f"no login: {said.decode()}")


def _redirect(url: str) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        return connection.getresponse().headers["Location"]
    finally:
        connection.close()


# The load.


class BrokenOffError(Exception):
    """The answer has begun and does not end."""


@dataclass(frozen=True)
class Answer:
    """An answer: ``body`` is empty where it was too long to keep."""

    status: int
    error: str
    body: bytes


class Line:
    """A connection to the proxy, opened when it is wanted and kept; a slow one reads ``READ`` bytes at a time."""

    READ, PAUSE, KEPT = 4096, 0.15, 8192

    def __init__(self, port: int, *, slow: bool = False) -> None:
        self._port, self._slow = port, slow
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            sock = socket.socket()
            sock.setblocking(False)
            if self._slow:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.READ)
            try:
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
            except BaseException:
                sock.close()
                raise
            self._streams = await asyncio.open_connection(sock=sock, limit=self.READ if self._slow else 2**16)
        return self._streams

    async def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer to the end. Raises ConnectionError without one, or BrokenOffError."""
        reader, writer = await self.open()
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("no answer") from error
        headers = {}
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        status, length = int(head[9:12]), int(headers.get(b"content-length", b"0"))
        if b"transfer-encoding" in headers:
            raise BrokenOffError("the sandbox sends no chunks")
        try:
            body = await self._body(reader, length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise BrokenOffError from error
        if headers.get(b"connection") == b"close":
            self.close()
        named = re.search(rb"error=([\w-]+)", headers.get(b"proxy-status", b""))
        return Answer(status, named[1].decode() if named else "", body)

    async def _body(self, reader: asyncio.StreamReader, length: int) -> bytes:
        if length <= self.KEPT:
            return await reader.readexactly(length)
        while length > 0:
            length -= len(await reader.readexactly(min(length, self.READ if self._slow else 2**16)))
            if self._slow:
                await asyncio.sleep(self.PAUSE)
        return b""

    def close(self) -> None:
        """Leave, whatever is still to come."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


def _request(method: str, target: str, body: bytes = b"", *, length: int | None = None) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: soak\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n"
    return head.encode() + b"\r\n" + body


@dataclass(kw_only=True)
class Minute:
    """What became of the requests that were due in a minute."""

    asked: int = 0
    gets: int = 0
    gets_ok: int = 0
    failed: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))


def percentile(latencies: Sequence[float], share: float) -> float:
    """Return the latency in ms that this share of them does not exceed; 0 where there is none."""
    ordered = sorted(latencies)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2) if ordered else 0.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request, when it is due in seconds of the load, and the record that its answer must be about."""

    due: float
    method: str
    target: str
    body: bytes = field(default=b"", repr=False)
    about: int | None = None
    is_note: bool = False


WRONG = "the answer to another question"


class Load:
    """Requests at random moments, on connections that are kept; some are read slowly, some are left."""

    def __init__(self, port: int, *, rate: float, seconds: float) -> None:
        self._port, self._rate, self._seconds = port, rate, seconds
        self._dice = random.Random(7)
        self._queue: asyncio.Queue[Question] = asyncio.Queue(LONGEST_QUEUE)
        self._tasks = asyncio.TaskGroup()
        self._apart: set[asyncio.Task[None]] = set()
        self._notes: list[int] = []
        self._gone: deque[int] = deque(maxlen=2 * NOTES)
        self._begun = 0.0
        self.minutes = [Minute() for _ in range(math.ceil(seconds / 60))]
        self.asked: Counter[str] = Counter()
        self.ok: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.slow = 0

    async def run(self) -> None:
        """Ask until the time is over; wait for the last answers; close all connections."""
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        async with self._tasks:
            workers = [self._tasks.create_task(self._work()) for _ in range(CONNECTIONS)]
            due = self._dice.expovariate(self._rate)
            while due < self._seconds:
                if (wait := self._begun + due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                self._begin(due)
                due += self._dice.expovariate(self._rate_at(due))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_ANSWERS):
                    await self._queue.join()
                    if self._apart:
                        await asyncio.wait(self._apart)
            for task in (*workers, *self._apart):
                task.cancel()
        while not self._queue.empty():
            self._failed(self._queue.get_nowait(), "not sent before the load had ended")

    def _rate_at(self, due: float) -> float:
        """Return the rate at a moment: twice as high in the warm-up, so that no later peak is the highest."""
        return self._rate * WARM_UP_RATE if due < WARM_UP < self._seconds else self._rate

    def _begin(self, due: float) -> None:
        (kind,) = self._dice.choices(list(MIX), list(MIX.values()))
        if kind == "leave":
            self._start(self._leave())
            return
        question = self._question(kind, due)
        minute = self.minutes[int(due // 60)]
        minute.asked += 1
        minute.gets += question.method == "GET"
        self.asked[question.method] += 1
        if kind == "slow":
            self.slow += 1
            self._start(self._read_slowly(question))
            return
        try:
            self._queue.put_nowait(question)
        except asyncio.QueueFull:
            self._failed(question, "not sent: all connections were busy")

    def _start(self, work: Coroutine[object, object, None]) -> None:
        """Do it apart from the connections that are kept."""
        task = self._tasks.create_task(work)
        self._apart.add(task)
        task.add_done_callback(self._apart.discard)

    def _question(self, kind: str, due: float) -> Question:
        dice = self._dice
        if kind == "write":
            return self._write(due)
        if kind == "note" and (self._notes or self._gone):
            note = dice.choice([*self._notes, *self._gone])
            return Question(due=due, method="GET", target=f"/v2/notes/{note}.json", about=note, is_note=True)
        if kind in ("person", "note"):
            person = dice.randint(1, 100)
            return Question(due=due, method="GET", target=f"/v2/people/{person}.json", about=person)
        if kind == "me":
            return Question(due=due, method="GET", target="/v2/me.json")
        target = {"page": "/v2/people.json", "large": LARGE, "slow": HUGE}[kind]
        return Question(due=due, method="GET", target=target)

    def _write(self, due: float) -> Question:
        method = self._dice.choice(["POST", "PUT", "DELETE"])
        body = b'{"content":"%d","associated_with_type":"person","associated_with_id":1}' % self._dice.getrandbits(64)
        if not self._notes or (method == "DELETE" and len(self._notes) < NOTES) or method == "POST":
            return Question(due=due, method="POST", target="/v2/notes.json", body=body)
        note = self._dice.choice(self._notes)
        target = f"/v2/notes/{note}.json"
        if method == "PUT":
            return Question(due=due, method="PUT", target=target, body=body, about=note, is_note=True)
        # From now on it may be there or not: a 404 is right for whoever still asks for it.
        self._notes.remove(note)
        self._gone.append(note)
        return Question(due=due, method="DELETE", target=target, about=note, is_note=True)

    async def _work(self) -> None:
        line = Line(self._port)
        try:
            while True:
                question = await self._queue.get()
                try:
                    await self._ask(question, line, timed=True)
                finally:
                    self._queue.task_done()
        finally:
            line.close()

    async def _read_slowly(self, question: Question) -> None:
        line = Line(self._port, slow=True)
        try:
            await self._ask(question, line, timed=False)
        finally:
            line.close()

    async def _ask(self, question: Question, line: Line, *, timed: bool) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await line.ask(_request(question.method, question.target, question.body))
        except (TimeoutError, ConnectionError, BrokenOffError) as error:
            line.close()
            reasons = {TimeoutError: "no end in time", BrokenOffError: "broke off"}
            self._failed(question, reasons.get(type(error), "no answer"))
            return
        except asyncio.CancelledError:
            self._failed(question, "no end when the load had ended")
            raise
        if timed:
            # From when it was due: what waited for a free connection has waited (coordinated omission, wrk2's README).
            latency = asyncio.get_running_loop().time() - self._begun - question.due
            self.minutes[int(question.due // 60)].latencies.append(latency)
        if (fault := self._fault(question, answer)) is not None:
            self._failed(question, fault)
            return
        self.ok[question.method] += 1
        if question.method == "GET":
            self.minutes[int(question.due // 60)].gets_ok += 1
        elif question.method == "POST":
            self._notes.append(json.loads(answer.body)["data"]["id"])

    def _fault(self, question: Question, answer: Answer) -> str | None:
        """Return what is wrong with an answer, or ``None``."""
        if answer.status == 404 and question.is_note and question.about not in self._notes:
            return None
        if not 200 <= answer.status < 300:
            return f"{answer.status} {answer.error or 'of SalesLoft'}"
        if question.about is not None and answer.body and json.loads(answer.body)["data"]["id"] != question.about:
            return WRONG
        return None

    def _failed(self, question: Question, reason: str) -> None:
        self.minutes[int(question.due // 60)].failed += 1
        self.failures[f"{question.method}: {reason}"] += 1

    async def _leave(self) -> None:
        """Be a client that goes before the answer, within it, or within its own body."""
        how = self._dice.choice(["before the answer", "within the answer", "within the body"])
        line = Line(self._port, slow=True)
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await line.open()
                upload = _request("POST", "/v2/notes.json", b"x" * 8000, length=20_000)
                writer.write(upload if how == "within the body" else _request("GET", HUGE))
                if how == "within the answer":
                    await reader.readexactly(2000)
                else:
                    await asyncio.sleep(self._dice.random() * 0.01)
                self.left[how] += 1
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            self.left["the proxy was first"] += 1
        finally:
            line.close()


# What comes of it.


class Criterion(NamedTuple):
    """Something that must hold; ``met`` is ``None`` where the run was too short to tell."""

    what: str
    figure: str
    met: bool | None

    def __str__(self) -> str:
        verdict = {True: "ok", False: "NOT MET", None: "not judged"}[self.met]
        return f"{verdict:10} {self.what}: {self.figure}"


def line_through(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Return the slope in an hour and the start of the least-squares line through a value, after the warm-up if any."""
    settled = [each for each in samples if each.at >= WARM_UP] if samples[-1].at > WARM_UP else samples
    if len(settled) < 2:
        return 0.0, getattr(samples[-1], name)
    hours, values = [each.at / 3600 for each in settled], [getattr(each, name) for each in settled]
    return statistics.linear_regression(hours, values)


@dataclass(kw_only=True)
class Run:
    """What was seen of one run; descriptors and tasks ``before`` and ``after`` the load."""

    load: Load
    samples: list[Sample]
    log: Counter[str]
    worst: list[str]
    sandbox: Mapping[str, int]
    before: tuple[int, int]
    after: tuple[int, int]

    def criteria(self) -> list[Criterion]:
        """Return what is asked of the proxy, and whether it holds."""
        long_enough = self.samples[-1].at - WARM_UP >= TREND
        memory, descriptors, tasks = (line_through(self.samples, name)[0] for name in ("rss", "fds", "tasks"))
        (fds_before, tasks_before), (fds_after, tasks_after) = self.before, self.after
        left = f"{fds_after} descriptors and {tasks_after} tasks, {fds_before} and {tasks_before} before it"
        success = self.load.ok["GET"] / max(self.load.asked["GET"], 1)
        wrong = sum(count for what, count in self.load.failures.items() if WRONG in what)
        errors = sum(count for level, count in self.log.items() if level not in ("info", "warning"))
        refused = self.sandbox["refused"]
        trends = [
            Criterion(f"memory grows by less than {GROWTH:g} MiB/h", f"{memory:+.2f} MiB/h", memory < GROWTH),
            Criterion("file descriptors stay flat", f"{descriptors:+.1f}/h", descriptors < FLAT),
            Criterion("tasks stay flat", f"{tasks:+.1f}/h", tasks < FLAT),
        ]
        return [
            *(each if long_enough else each._replace(met=None) for each in trends),
            Criterion("nothing is left after the load", left, fds_after <= fds_before and tasks_after <= tasks_before),
            Criterion(f"at least {SUCCESS:.1%} of the GETs succeed", f"{success:.3%}", success >= SUCCESS),
            Criterion("no answer to another question", f"{wrong}", wrong == 0),
            Criterion("no refresh token is refused", f"{refused}", refused == 0),
            Criterion("no error in the log", f"{errors}", errors == 0),
        ]

    def rows(self) -> list[dict[str, float]]:
        """Return a row a minute: what was asked in it, and the medians of the samples that were taken in it."""
        rows = []
        for number, minute in enumerate(self.load.minutes):
            row: dict[str, float] = {
                "minute": number + 1,
                "asked": minute.asked,
                "failed": minute.failed,
                "get_success": round(minute.gets_ok / max(minute.gets, 1), 5),
                "p50_ms": percentile(minute.latencies, 0.5),
                "p99_ms": percentile(minute.latencies, 0.99),
                "max_ms": percentile(minute.latencies, 1.0),
            }
            taken = [each for each in self.samples if number * 60 < each.at <= number * 60 + 60]
            for name in COUNTED if taken else ():
                row[name] = round(statistics.median(getattr(each, name) for each in taken), 2)
            rows.append(row)
        return rows

    def totals(self) -> dict[str, object]:
        """Return the sums."""
        load = self.load
        latencies = [latency for minute in load.minutes for latency in minute.latencies]
        cpu = self.samples[-1].cpu - self.samples[0].cpu
        return {
            "asked": load.asked,
            "succeeded": load.ok,
            "failures": dict(load.failures.most_common()),
            "read_slowly": load.slow,
            "left": load.left,
            "latency_ms": {f"p{share * 100:g}": percentile(latencies, share) for share in (0.5, 0.9, 0.99, 0.999, 1)},
            "cpu_us_a_request": round(cpu / max(load.asked.total(), 1) * 1e6),
            "slope_an_hour": {name: round(line_through(self.samples, name)[0], 2) for name in COUNTED},
            "sandbox": self.sandbox,
            "log_lines": self.log,
            "cpu_s_of_the_load": round(time.process_time(), 1),
        }


def plot(run: Run, path: Path) -> None:
    """Draw the samples and the minutes, one above the other."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # large, and the sandbox and the load do without

    times = [each.at / 60 for each in run.samples]
    rows = run.rows()
    minutes = [row["minute"] - 0.5 for row in rows]
    figure = Figure(figsize=(9, 10), dpi=90, layout="constrained")
    memory, counts, latency, success = figure.subplots(4, 1, sharex=True, height_ratios=(3, 3, 2, 2))
    memory.plot(times, [each.rss for each in run.samples], label="resident memory, MiB")
    slope, start = line_through(run.samples, "rss")
    memory.plot(times, [start + slope * each / 60 for each in times], ":", color="grey", label=f"{slope:+.2f} MiB/h")
    for name, label in (("fds", "file descriptors"), ("tasks", "tasks"), ("in_flight", "requests in flight")):
        counts.plot(times, [getattr(each, name) for each in run.samples], label=label, linewidth=1)
    for name in ("max_ms", "p99_ms", "p50_ms"):
        latency.plot(minutes, [row[name] for row in rows], label=name.replace("_", ", "))
    latency.set_yscale("log")
    success.plot(minutes, [row["get_success"] * 100 for row in rows], label="GETs of a minute that succeed, %")
    success.axhline(SUCCESS * 100, linestyle=":", color="grey", label="what is asked of all")
    success.set_ylim(min(99.7, *(row["get_success"] * 100 for row in rows)), 100.02)
    success.set_xlabel("minutes")
    for axes in (memory, counts, latency, success):
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path)


def write(run: Run, out: Path, about: Mapping[str, object]) -> None:
    """Write the figures, a line a minute, and the plot."""
    document = {
        "about": about,
        "criteria": [each._asdict() for each in run.criteria()],
        "totals": run.totals(),
        "minutes": "MINUTES",
    }
    rows = ",\n".join(f"    {json.dumps(row)}" for row in run.rows())
    text = json.dumps(document, indent=2).replace('"MINUTES"', f"[\n{rows}\n  ]")
    out.with_suffix(".json").write_text(text + "\n")
    plot(run, out.with_suffix(".png"))


async def soak(*, minutes: float, rate: float, uvloop: bool) -> Run:
    """Start everything, load it for that long, and say what was seen."""
    seconds = minutes * 60
    samples: list[Sample] = []
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slproxy-soak-")))
        sandbox = await stack.enter_async_context(
            child(sys.executable, "-m", "benchmarks.soak", "--sandbox", cwd=ROOT, stdin=PIPE, stdout=PIPE)
        )
        assert sandbox.stdin is not None
        assert sandbox.stdout is not None
        url = (await sandbox.stdout.readline()).decode().strip()
        environment = _environment(home, url)
        await log_in(home, environment)
        proxy = await stack.enter_async_context(
            serving(home, environment, longest=seconds + 2 * PATIENCE, uvloop=uvloop)
        )
        before = await least(proxy, seconds=1.0)
        proxy.log.clear()
        proxy.worst.clear()
        load = Load(proxy.port, rate=rate, seconds=seconds)
        await told(sandbox, share=SHARE)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            group.create_task(watch(proxy, load, samples, seconds))
        counts = await told(sandbox, share=0.0)
        # With it go the idle connections of the pool, which would be kept for a while.
        sandbox.stdin.close()
        async with asyncio.timeout(QUIET):
            await sandbox.wait()
        after = await least(proxy, seconds=QUIET, enough=before)
    return Run(
        load=load,
        samples=samples,
        log=proxy.log,
        worst=list(proxy.worst),
        sandbox=counts,
        before=before,
        after=after,
    )


def _environment(home: Path, url: str) -> dict[str, str]:
    """Return an environment with nothing in it of the person who runs this."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "SALESLOFT_CLIENT_ID": Options().client_id,
        "SALESLOFT_CLIENT_SECRET": Options().client_secret,
        "SLPROXY_LISTEN__PORT": "0",
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": url,
        "SLPROXY_UPSTREAM__API_URL": url,
        "SLPROXY_UPSTREAM__RESPONSE_TIMEOUT": RESPONSE_TIMEOUT,
    }


async def told(sandbox: Process, *, share: float) -> dict[str, int]:
    """Set the share of faults, and return what the sandbox has counted."""
    assert sandbox.stdin is not None
    assert sandbox.stdout is not None
    sandbox.stdin.write(b"%f\n" % share)
    async with asyncio.timeout(PATIENCE):
        counts: dict[str, int] = json.loads(await sandbox.stdout.readline())
    return counts


async def least(proxy: Proxy, *, seconds: float, enough: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the least descriptors and tasks that are seen together; a renewal under way adds some of both."""
    found = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found.append((proxy.descriptors(), (await proxy.inside())[0]))
        if enough is not None and found[-1][0] <= enough[0] and found[-1][1] <= enough[1]:
            break
        await asyncio.sleep(0.1)
    return min(found, key=sum)


async def watch(proxy: Proxy, load: Load, samples: list[Sample], seconds: float) -> None:
    """Take the samples, and say each minute how it goes."""
    began = time.monotonic()
    for number in range(int(seconds / SAMPLE_EVERY) + 1):
        await asyncio.sleep(max(0.0, began + number * SAMPLE_EVERY - time.monotonic()))
        samples.append(await proxy.sample(time.monotonic() - began))
        minute, rest = divmod(number * SAMPLE_EVERY, 60.0)
        if minute and not rest:
            last, seen = samples[-1], load.minutes[int(minute) - 1]
            print(
                f"minute {minute:.0f}: {seen.asked} asked, {seen.failed} failed, "
                f"p99 {percentile(seen.latencies, 0.99)} ms; {last.rss} MiB, {last.fds} fds, {last.tasks} tasks",
                flush=True,
            )


async def _until_signalled(work: Coroutine[object, object, Run]) -> Run:
    """Do the work; at the first SIGINT or SIGTERM end what was started, and exit."""
    task = asyncio.ensure_future(work)
    ended_by: list[int] = []

    def end(number: int) -> None:
        # Once: a second one must not cut short the end of the processes.
        if not ended_by:
            ended_by.append(number)
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        sys.exit(128 + ended_by[0])


def main() -> None:
    """Run it, print what came of it, and exit with 1 when a criterion is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to load it (default: %(default)g)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second (default: %(default)g)")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/soak"), help="where .json and .png go (default: %(default)s)"
    )
    parser.add_argument("--uvloop", action="store_true", help="let slproxy use uvloop")
    parser.add_argument("--sandbox", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sandbox:
        asyncio.run(_sandbox())
        return
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("the plot wants matplotlib: pip install --group bench")
    if not args.out.parent.is_dir():
        parser.error(f"--out: there is no folder {args.out.parent}")
    run = asyncio.run(_until_signalled(soak(minutes=args.minutes, rate=args.rate, uvloop=args.uvloop)))
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "minutes": args.minutes,
        "rate": args.rate,
        "python": platform.python_version(),
        "aiohttp": aiohttp.__version__,
        "loop": "uvloop" if args.uvloop else "asyncio",
        "linux": platform.release(),
        "cores": os.cpu_count(),
    }
    criteria = run.criteria()
    print(json.dumps(run.totals(), indent=2), *run.worst, *criteria, sep="\n", flush=True)
    write(run, args.out, about)
    sys.exit(int(any(each.met is False for each in criteria)))


if __name__ == "__main__":
    main()
