"""What a crash leaves behind: the program killed around a renewal, within the write of a token, and within a login."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import stat
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from slproxy.sandbox import Options, Sandbox
from slproxy.sandbox.options import Rotation
from slproxy.store import FileStore, Record
from slproxy.store.record_format import parse_record
from tests.support.commands import Interactive, allowed, free_port, interactive, pointed_at, token_file
from tests.support.programs import Program, program, run
from tests.support.raw_http import Message, get, port_of, raw
from tests.support.sandboxes import login_at, running_sandbox
from tests.support.scripted import ScriptedUpstream
from tests.support.strace import injected, under_strace
from tests.support.token_writers import NEW, NEWER, OLD, PHRASE, Writers, cipher, token_writers
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy


def leftovers(path: Path) -> list[str]:
    """Return what is in the folder of a token besides the token, its locks, a logout's mark and quarantine."""
    known = re.compile(re.escape(path.name) + r"(\.lock(\.2)?|\.login|\.logout|\.aside-.*)?")
    return [each.name for each in path.parent.iterdir() if not known.fullmatch(each.name)]


def nothing_is_open_to_others(folder: Path) -> None:
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    assert not {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


# The strike, and who watches what had reached the program by then.

Moment = Literal["begun", "asked", "granted", "delivered", "used"]


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A signal at a moment of a token request, or so many seconds later.

    ``begun``: what leads to it was sent; ``asked``: the program's request is here, and goes no further; ``granted``:
    the server has answered, and the program is not told; ``delivered``: the last byte of the answer is in its socket;
    ``used``: it shows the new access token to the API.
    """

    moment: Moment
    delay: float = 0.0
    number: signal.Signals = signal.SIGKILL

    @property
    def withholds(self) -> bool:
        return self.moment in ("asked", "granted")


@dataclass
class Grant:
    """A pair that the server issued, and when the whole of it was in the program's socket (monotonic seconds)."""

    access_token: str
    delivered: float | None = None
    used: float | None = None


# What is asked of a relay to see that everything before it has come.
LAST = "/last"


class Relay:
    """Stands between the program and the sandbox, knows what has passed, and strikes."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._listening = ScriptedUpstream(self._pass_on)
        self._strike: Strike | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._timer: threading.Timer | None = None
        self._under_way = 0
        self.struck: float | None = None
        self.grants: list[Grant] = []

    async def __aenter__(self) -> Relay:
        await self._listening.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        await self._listening.__aexit__(*exc)

    @property
    def url(self) -> str:
        return self._listening.url

    def arm(self, strike: Strike, process: asyncio.subprocess.Process) -> None:
        """Strike that process, once; what was granted before is forgotten."""
        self._strike, self._process = strike, process
        self.struck = None
        self.grants.clear()

    def happens(self, moment: Moment) -> bool:
        """Strike if this is the moment, and tell whether what happens here goes no further."""
        strike = self._strike
        if strike is None or strike.moment != moment:
            return False
        self._strike = None
        if not strike.delay:
            self._hit(strike.number)
            return strike.withholds
        # A thread: the loop's own timers are a millisecond late, and the window is not much wider than that.
        self._timer = threading.Timer(strike.delay, self._hit, [strike.number])
        self._timer.start()
        return False

    def _hit(self, number: signal.Signals) -> None:
        # A command that is done has ended by itself. Not `send_signal`: this may be another thread than the loop's.
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.kill(self._process.pid, number)
        self.struck = time.monotonic()

    async def settled(self) -> None:
        """Wait until the strike has happened and the server has nothing more to do, so that what it did is known."""
        await until(lambda: self.struck is not None)
        await until(lambda: self._under_way == 0)

    async def emptied(self) -> None:
        """Wait until all that a dead program had sent is done with: it may lie in a socket that nobody has read yet."""
        listening = self._listening
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(self.url))
        # Connections are accepted in their order, so this one's answer comes after all of the program's are known.
        seen = len(listening.seen)
        writer.write(get(LAST))
        await until(lambda: any(message.head.target == LAST for message in listening.seen[seen:]))
        await until(lambda: listening.connections - listening.closed == 1)
        writer.close()
        await until(lambda: listening.connections == listening.closed)

    async def _pass_on(self, message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == LAST:
            return
        self._under_way += 1
        try:
            if message.head.target == "/oauth/token":
                await self._token(message, writer)
                return
            shown = (message.head.get("Authorization") or "").removeprefix("Bearer ")
            for grant in self.grants:
                if grant.access_token == shown and grant.used is None:
                    grant.used = time.monotonic()
                    self.happens("used")
            writer.write(await self._asked(message))
        finally:
            self._under_way -= 1

    async def _token(self, message: Message, writer: asyncio.StreamWriter) -> None:
        if self.happens("asked"):
            return
        answer = await self._asked(message)
        grant = Grant(json.loads(answer.partition(b"\r\n\r\n")[2]).get("access_token", ""))
        if grant.access_token:
            self.grants.append(grant)
        if self.happens("granted"):
            return
        # Written at once, and whole: the socket's buffer is empty, and a token is small.
        writer.write(answer)
        assert writer.transport.get_write_buffer_size() == 0
        grant.delivered = time.monotonic()
        self.happens("delivered")

    async def _asked(self, message: Message) -> bytes:
        request = message.head.raw + b"\r\n" + message.body
        answer = await raw(self._sandbox.url, request, method=message.head.method)
        return answer.head.raw + b"\r\n" + answer.body


# Killed around a renewal.

# What the rounds are made of, in an order by chance. Delays are in seconds, uniform between the two.
STRIKES: Sequence[tuple[int, Moment, tuple[float, float]]] = (
    (5, "begun", (0.0, 0.08)),  # anywhere in the whole of it
    (1, "asked", (0.0, 0.0)),
    (3, "granted", (0.0, 0.0)),
    (3, "delivered", (0.0, 0.0)),
    (4, "delivered", (0.0, 0.005)),  # about as long as the program takes to read, write, fsync and rename
    (2, "delivered", (0.005, 0.03)),
    (2, "used", (0.0, 0.002)),
)
# Long after the write, on any machine: a kill this much later finds the new token on disk.
WRITTEN = 1.0
# With what a lane begins, so that each outcome happens in however few rounds.
SURE = (Strike(moment="asked"), Strike(moment="granted"), Strike(moment="delivered", delay=WRITTEN))


def strikes(dice: random.Random, rounds: int, *, lacking: Sequence[Moment] = ()) -> Iterator[Strike]:
    """Return as many strikes, every sort of them in each twenty."""
    deck: list[Strike] = []
    for number in range(rounds):
        if not deck:
            deck = [
                Strike(moment=moment, delay=dice.uniform(*span) if span[1] else 0.0)
                for share, moment, span in STRIKES
                for _ in range(share)
                if moment not in lacking
            ]
            dice.shuffle(deck)
        yield SURE[number] if number < len(SURE) and not lacking else deck.pop()


@dataclass
class Tally:
    """How often what was found, and how long after the delivery the kill came, in seconds."""

    found: Counter[str] = field(default_factory=Counter)
    lag_kept: list[float] = field(default_factory=list)
    lag_lost: list[float] = field(default_factory=list)
    first_use: list[float] = field(default_factory=list)
    left: int = 0

    def figures(self) -> dict[str, object]:
        def ms(values: Sequence[float]) -> dict[str, float]:
            if not values:
                return {}
            told = {"least": min(values), "median": statistics.median(values), "most": max(values)}
            return {name: round(value * 1000, 2) for name, value in told.items()}

        edges = (0.001, 0.002, 0.003, 0.005, 0.01, 0.03, 2.0)
        by_lag = {}
        for low, high in zip((0.0, *edges), edges, strict=False):
            kept, lost = (sum(low <= lag < high for lag in lags) for lags in (self.lag_kept, self.lag_lost))
            by_lag[f"{low * 1000:g}-{high * 1000:g}"] = {"new token on disk": kept, "old token on disk": lost}
        return {
            "rounds": dict(sorted(self.found.items())),
            "killed_so_many_ms_after_the_delivery": by_lag,
            "lag_ms_where_the_old_token_was_on_disk": ms(self.lag_lost),
            "delivery_to_first_use_ms": ms(self.first_use),
            "temporary_files_left": self.left,
        }


NOT_ROTATED = "the server had not rotated"
NOT_REACHED = "rotated, and the reply had not reached us"
IN_THE_WINDOW = "rotated, the reply in our socket, and not yet on disk"
TAKEN_UP = "rotated, and whole in a temporary file, which the next start takes up"
KEPT = "rotated, and on disk"


@dataclass
class Lane:
    """One store, its own SalesLoft, and programs that run on them one after the other, each of which is killed."""

    home: Path
    rotation: Rotation
    dice: random.Random
    tally: Tally
    # Renewed in the background, or since SalesLoft rejects the token before its time.
    background: bool = False
    encrypted: bool = False

    def __post_init__(self) -> None:
        self.home.mkdir()
        self.store = FileStore(token_file(self.home), cipher(encrypted=self.encrypted))

    async def run(self, rounds: int) -> None:
        lifetime = 1.0 if self.background else 7200.0
        options = Options(rotation=self.rotation, token_lifetime=lifetime, budget=1_000_000)
        async with running_sandbox(options) as sandbox, Relay(sandbox) as relay:
            env = pointed_at(
                relay.url,
                SALESLOFT_CLIENT_ID=options.client_id,
                SALESLOFT_CLIENT_SECRET=options.client_secret,
                SLPROXY_PACE__MODE="off",
                # A lock is not waited for, a dead holder's least of all; and a start asks no keyring.
                **({"SLPROXY_STORE__KEY": PHRASE} if self.encrypted else {"SLPROXY_STORE__ENCRYPTION": "off"}),
            )
            await self._log_in(sandbox, relay)
            lost, losses = False, 0
            # Without traffic in the background lane nobody uses the new token there, but the next start.
            lacking: Sequence[Moment] = ("begun", "used") if self.background else ()
            for strike in (*strikes(self.dice, rounds, lacking=lacking), None):
                if lost and losses <= 2:
                    await self._asks_for_a_login_from_the_start(env)
                async with program("serve", home=self.home, env=env) as server:
                    if lost:
                        await self._asks_for_a_login(server)
                        await self._log_in(sandbox, relay)
                    await self._serves(server)
                    # Its own request as well: refused with a token just renewed, it would forbid the next renewal.
                    await until(lambda: "Authenticated as" in server.output)
                    if strike is not None:
                        lost = await self._struck(server, sandbox, relay, strike)
                        losses += lost
                    assert "Traceback" not in server.output
                    assert "defect" not in server.output
            self.tally.left += len(leftovers(token_file(self.home)))

    async def _log_in(self, sandbox: Sandbox, relay: Relay) -> None:
        before = await self.store.read()
        fresh = replace(login_at(sandbox), accounts_url=relay.url, api_url=relay.url)
        await self.store.write(fresh if before is None else replace(fresh, login=before.login + 1))

    async def _serves(self, server: Program) -> None:
        answer = await raw(server.url, get("/v2/me.json"))
        assert answer.head.status == 200, f"{self.tally.found}: {answer.body.decode()} {server.output}"

    async def _asks_for_a_login(self, server: Program) -> None:
        """See what is said where SalesLoft has rotated and nobody here was told."""
        answer = await raw(server.url, get("/v2/me.json"))
        assert (answer.head.status, answer.head.get("Content-Type")) == (503, "application/problem+json"), answer.body
        said = json.loads(answer.body)
        assert said["type"] == "login-required"
        assert "slproxy login" in said["hint"]
        await until(lambda: "no longer accepts" in server.output)

    async def _asks_for_a_login_from_the_start(self, env: dict[str, str]) -> None:
        """See that what one program has learned of SalesLoft, the next ones know."""
        async with program("serve", home=self.home, env=env) as server:
            await self._asks_for_a_login(server)
            assert "Traceback" not in server.output
        async with program("serve", home=self.home, env=env) as server:
            assert "Not ready: SalesLoft no longer accepts the stored login" in server.output
        commands = ("whoami", "token", "status")
        for code, _, err in await asyncio.gather(*(run(name, home=self.home, env=env) for name in commands)):
            assert code == 3, err
            assert "Traceback" not in err

    async def _struck(self, server: Program, sandbox: Sandbox, relay: Relay, strike: Strike) -> bool:
        """Strike a program that serves, and tell whether the login is lost."""
        if fault := self.dice.choice(["", "", "slow-before=0.02", "slow=0.02"]):
            sandbox.fault(fault, on="token")
        relay.arm(strike, server.process)
        asking = None
        if not self.background:
            held = await self.store.read()
            assert held is not None
            sandbox.expire(held.token.access_token)
            asking = asyncio.create_task(raw(server.url, get("/v2/me.json")))
            relay.happens("begun")
        await relay.settled()
        assert await server.process.wait() == -signal.SIGKILL
        await relay.emptied()
        if asking is not None:
            await asyncio.wait({asking})
            # With the process gone its client is told nothing, or was told all of it before.
            assert asking.exception() is None or isinstance(asking.exception(), ConnectionError | EOFError)
        sandbox.clear_faults()
        return await self._judged(relay)

    def _is_in_a_temporary_file(self, access_token: str) -> bool:
        folder = token_file(self.home).parent
        for name in leftovers(token_file(self.home)):
            with contextlib.suppress(ValueError):
                record = parse_record(cipher(encrypted=self.encrypted).decrypt((folder / name).read_bytes()))
                if record.token.access_token == access_token:
                    return True
        return False

    async def _judged(self, relay: Relay) -> bool:
        """Say what was on disk, and tell whether the login is lost."""
        # Raises where the file is not whole.
        kept = await self.store.read()
        assert kept is not None
        assert not kept.refused
        nothing_is_open_to_others(token_file(self.home).parent)
        assert relay.struck is not None
        grant = relay.grants[-1] if relay.grants else None
        on_disk = grant is not None and kept.token.access_token == grant.access_token
        reached = grant is not None and grant.delivered is not None and grant.delivered <= relay.struck
        if grant is not None and grant.used is not None:
            assert on_disk, "a token was used before it was on disk"
        if grant is not None and grant.delivered is not None and reached:
            lag = relay.struck - grant.delivered
            (self.tally.lag_kept if on_disk else self.tally.lag_lost).append(lag)
            assert on_disk or lag < WRITTEN, "a token that we were told was not written in all that time"
            if grant.used is not None:
                self.tally.first_use.append(grant.used - grant.delivered)
        if grant is not None and not on_disk and self._is_in_a_temporary_file(grant.access_token):
            self.tally.found[TAKEN_UP] += 1
            return False
        lost = grant is not None and not on_disk
        what = (NOT_ROTATED if grant is None else KEPT) if not lost else IN_THE_WINDOW if reached else NOT_REACHED
        if lost and self.rotation == "on-use":
            what += "; the old pair still good"
        self.tally.found[what] += 1
        return lost and self.rotation == "immediate"


async def test_a_renewed_token_survives_sigkill_from_when_it_is_on_disk_and_so_from_before_its_first_use(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Count what no program can help: it is killed when SalesLoft has rotated, and it has read or written nothing yet.

    In each other round the next start serves. In the rounds where only the server knows, it asks for a login cleanly;
    where the old pair lives until the new one is used, it serves all the same.
    """
    rounds: int = pytestconfig.getoption("--kills")
    seed = random.randrange(2**32)
    print(f"the seed of the chance is {seed}")
    tally, dice = Tally(), random.Random(seed)
    lanes = [
        Lane(tmp_path / "rejected", "immediate", dice, tally),
        Lane(tmp_path / "rejected too", "immediate", dice, tally),
        Lane(tmp_path / "background", "immediate", dice, tally, background=True, encrypted=True),
        Lane(tmp_path / "deferred", "on-use", dice, tally),
    ]
    began = time.monotonic()
    # The last but one waits for tokens to age, and the last loses no login: so that all end together.
    shares = [rounds * 26 // 100, rounds * 26 // 100, rounds * 14 // 100]
    async with asyncio.TaskGroup() as group:
        for lane, share in zip(lanes, [*shares, rounds - sum(shares)], strict=True):
            group.create_task(lane.run(share))
    figures = {"kills": rounds, "seed": seed, "seconds": round(time.monotonic() - began), **tally.figures()}
    text = json.dumps(figures, indent=2)
    print(text)
    if (to := pytestconfig.getoption("--kills-to")) is not None:
        to.write_text(text + "\n")
    assert tally.found.total() == rounds
    assert {NOT_ROTATED, NOT_REACHED, KEPT} <= tally.found.keys(), "a sort of round did not happen"


# Killed within the write of a token.


@pytest.fixture
async def writers() -> AsyncIterator[Writers]:
    async with token_writers() as running:
        yield running


@pytest.fixture(scope="module")
def strace() -> None:
    """Skip where no system call can be made to fail: strace is Linux only, and containers may forbid ptrace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run(["strace", "-e", "trace=none", "true"], check=False, capture_output=True, timeout=PATIENCE)
    if tried.returncode:
        pytest.skip("strace may not trace here")


async def deaths(
    writers: Writers, tmp_path: Path, how: str, *, encrypted: bool, first: bool
) -> AsyncIterator[tuple[Path, FileStore]]:
    """Kill a write at its first step, another one at its second, and so on, until one comes through; give each store.

    A step is a line of ours, or a system call that names a file or takes a descriptor: strace counts each sort of them
    by itself. Each store has a folder of its own; ``first`` writes where nothing was before.
    """
    before = tmp_path / "before" / "token.json"
    opened = cipher(encrypted=encrypted)
    await FileStore(before, opened).write(OLD)
    died = 0

    def fresh(name: str) -> Path:
        path = tmp_path / name / "state" / "token.json"
        path.parent.parent.mkdir()
        if not first:
            shutil.copytree(before.parent, path.parent)
        return path

    calls = ["line"]
    if how == "each system call":
        told = tmp_path / "calls"
        assert (
            await writers.write(fresh("seen"), encrypted=encrypted, strace=["-o", str(told), "-e", "%file,%desc"]) == 0
        )
        calls = sorted(set(re.findall(r"^(\w+)\(", told.read_text(), re.MULTILINE)))
        assert {"fsync", "write"} <= set(calls)
    for call in calls:
        for nth in range(1, 500):
            path = fresh(f"{call}-{nth}")
            if call == "line":
                code = await writers.write(path, encrypted=encrypted, line=nth)
            else:
                code = await writers.write(path, encrypted=encrypted, strace=injected(call, "signal=KILL", nth))
            assert code in (0, -signal.SIGKILL)
            yield path, FileStore(path, opened)
            if code == 0:
                break
            died += 1
    print(f"{died} deaths, by: {' '.join(calls)}")
    assert died > 15, "the write has more steps than that"


@pytest.fixture(params=["each system call", "each line"])
def how(request: pytest.FixtureRequest) -> str:
    if request.param == "each system call":
        request.getfixturevalue("strace")
    return str(request.param)


@pytest.mark.parametrize("first", [False, True], ids=["over an older token", "the first token"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_a_write_that_dies_at_any_step_leaves_the_old_token_or_the_new_one_whole(
    writers: Writers, tmp_path: Path, how: str, first: bool, encrypted: bool
) -> None:
    found = Counter[str]()
    async for path, store in deaths(writers, tmp_path, how, encrypted=encrypted, first=first):
        kept = await store.read()
        assert kept in (None if first else OLD, NEW)
        found["new" if kept == NEW else "old"] += 1
        if path.parent.exists():
            nothing_is_open_to_others(path.parent)
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            for each in path.parent.iterdir():
                assert not encrypted or b"hidden" not in each.read_bytes()
        await store.write(NEWER)
        assert await store.read() == NEWER
    assert found["old"] > 10
    assert found["new"] > 1


@pytest.mark.parametrize("then", ["write", "delete"])
async def test_what_a_dead_write_left_goes_with_the_next_write_and_with_a_logout(
    writers: Writers, tmp_path: Path, then: str
) -> None:
    """See that it neither piles up nor outlives a logout: it may hold a token that SalesLoft still accepts."""
    left: list[str] = []
    async for path, store in deaths(writers, tmp_path, "each line", encrypted=False, first=False):
        for name in leftovers(path):
            os.utime(path.with_name(name), (0, 0))  # so old that nobody can still be writing it
        async with store.lock():
            await (store.write(NEWER) if then == "write" else store.delete())
        left += leftovers(path)
    assert left == []


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize(
    ("call", "nth", "kept"),
    [
        ("fsync", 1, OLD),
        ("/^rename", 1, OLD),
        # The rename was done, so the new one is there. It is an error all the same: a power cut may bring the old back.
        ("fsync", 2, NEW),
    ],
    ids=["fsync of the file", "rename", "fsync of the folder"],
)
async def test_a_write_that_the_disk_refuses_is_told_and_leaves_the_old_token_or_the_new_one_and_nothing_else(
    writers: Writers, tmp_path: Path, call: str, nth: int, kept: Record, error: str
) -> None:
    path = tmp_path / "state" / "token.json"
    store = FileStore(path)
    await store.write(OLD)
    assert await writers.write(path, encrypted=False, strace=injected(call, f"error={error}", nth)) == 3
    assert await store.read() == kept
    assert leftovers(path) == []
    await store.write(NEWER)
    assert await store.read() == NEWER


# A login that is given up, or killed.


def login_strikes(dice: random.Random, *, full: bool) -> list[tuple[str, Strike]]:
    """Return each way to log in, with what happens to it: by each signal, or by the signals in turn."""
    ways: Sequence[tuple[str, Moment, float]] = (
        *(("paste", "begun", 0.08),) * 3,
        ("paste", "asked", 0.0),
        ("paste", "granted", 0.0),
        ("paste", "delivered", 0.0),
        *(("paste", "delivered", 0.02),) * 2,
        *(("paste", "used", 0.02),) * 3,
        ("paste, waiting", "begun", 0.0),
        ("browser, waiting", "begun", 0.0),
        ("browser", "delivered", 0.02),
    )
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    table = [
        (way, Strike(moment=moment, delay=dice.uniform(0, longest), number=number))
        for place, (way, moment, longest) in enumerate(ways)
        for number in (signals if full else [signals[place % 3]])
    ]
    # Once so late that the login is surely stored.
    return [*table, ("paste", Strike(moment="used", delay=WRITTEN))]


@asynccontextmanager
async def login_under_way(home: Path, way: str) -> AsyncIterator[tuple[Interactive, Relay, str, Record]]:
    """Log in where somebody is logged in already; give the command, what it is to be told, and that earlier login."""
    redirect_uri = f"http://localhost:{free_port()}/callback"
    options = Options(redirect_uris=(redirect_uri,))
    async with running_sandbox(options) as sandbox, Relay(sandbox) as relay:
        earlier = replace(login_at(sandbox), accounts_url=relay.url, api_url=relay.url)
        await FileStore(token_file(home)).write(earlier)
        env = pointed_at(
            relay.url,
            SALESLOFT_CLIENT_ID=options.client_id,
            SALESLOFT_CLIENT_SECRET=options.client_secret,
            SALESLOFT_REDIRECT_URI=redirect_uri,
            SLPROXY_STORE__ENCRYPTION="off",
            # The browser is the test; what is opened here does nothing.
            BROWSER=shutil.which("true") or "",
        )
        flags = ["--no-browser"] if way.startswith("paste") else []
        async with interactive("login", *flags, home=home, env=env) as login:
            yield login, relay, await allowed(await login.url()), earlier


async def login_kept(home: Path, relay: Relay, earlier: Record) -> str:
    """Return whose login is kept, one that SalesLoft accepts."""
    path = token_file(home)
    kept = await FileStore(path).read()
    assert kept is not None
    nothing_is_open_to_others(path.parent)
    me = await raw(relay.url, get("/v2/me.json", f"Authorization: Bearer {kept.token.access_token}"))
    assert me.head.status == 200, f"the login before has gone, and {'it' if kept == earlier else 'the new one'} is dead"
    if kept == earlier:
        return "the earlier login"
    assert kept.token.access_token == relay.grants[-1].access_token
    return "the new login"


async def struck_login(home: Path, way: str, strike: Strike) -> str:
    """Strike a login, and return which one is kept then."""
    async with login_under_way(home, way) as (login, relay, location, earlier):
        before = token_file(home).read_bytes()
        relay.arm(strike, login.process)
        arriving = None
        if "waiting" not in way:
            arriving = asyncio.create_task(arrived(login, way, location))
        relay.happens("begun")
        code = await login.end()
        if arriving is not None:
            await asyncio.wait({arriving})
        if strike.withholds or "waiting" in way:
            assert code == (-strike.number if strike.number == signal.SIGKILL else 128 + strike.number), login.err
        else:
            # It may have come when all was done, or when Python was on its way out and heeded signals no more.
            assert code in (0, -strike.number, 128 + strike.number), login.err
        assert "Traceback" not in login.err
        kept = await login_kept(home, relay, earlier)
        if kept == "the earlier login":
            assert code != 0
            assert token_file(home).read_bytes() == before
        if strike.number != signal.SIGKILL:
            assert leftovers(token_file(home)) == [], "who is asked to end tidies up"
        return kept


async def arrived(login: Interactive, way: str, location: str) -> None:
    """Bring the code, by a paste or as the browser does; the other end may not live to take it."""
    assert login.process.stdin is not None
    with contextlib.suppress(ConnectionError, EOFError):
        if way == "paste":
            login.process.stdin.write(location.encode() + b"\n")
            await login.process.stdin.drain()
        else:
            address, _, target = location.removeprefix("http://").partition("/")
            await raw(f"http://{address}", get(f"/{target}", host=address))


async def test_a_login_that_is_given_up_or_killed_at_any_point_leaves_the_earlier_one_or_the_new_one(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seed = random.randrange(2**32)
    print(f"the seed of the chance is {seed}")
    table = login_strikes(random.Random(seed), full=pytestconfig.getoption("--kills") >= 100)
    found: Counter[tuple[str, str, str]] = Counter()
    # Two at a time: as many as there are cores on the smallest machine that runs this.
    turn = asyncio.Semaphore(2)

    async def one(number: int, way: str, strike: Strike) -> None:
        home = tmp_path / str(number)
        home.mkdir()
        async with turn:
            found[way, strike.moment, await struck_login(home, way, strike)] += 1

    async with asyncio.TaskGroup() as group:
        for number, (way, strike) in enumerate(table):
            group.create_task(one(number, way, strike))
    for (way, moment, kept), times in sorted(found.items()):
        print(f"{way}, {moment}: {kept}, {times} times")
        if moment in ("asked", "granted") or "waiting" in way:
            assert kept == "the earlier login"
    assert {kept for _, _, kept in found} == {"the earlier login", "the new login"}


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_login_that_is_given_up_while_it_is_being_written_leaves_one_that_works(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = token_file(tmp_path)
    async with login_under_way(tmp_path, "paste") as (login, relay, location, earlier):
        # The write takes so long that the signal surely comes within it; it goes on in its thread whoever waits for it.
        slow = ["-f", "-o", os.devnull, "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=500000"]
        async with under_strace(login.process.pid, slow):
            await arrived(login, "paste", location)
            await until(lambda: bool(leftovers(path)))
            login.process.send_signal(number)
            assert await login.end() in (0, 128 + number), login.err
        assert await login_kept(tmp_path, relay, earlier)
        assert leftovers(path) == []


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(("call", "last"), [("epoll_ctl", 2), ("close", 3), ("rt_sigaction", 5)])
def test_a_signal_while_the_event_loop_is_made_or_closed_is_no_traceback(tmp_path: Path, call: str, last: int) -> None:
    # asyncio's own loop makes and closes what a signal is written to with these calls, its last of the run.
    (tmp_path / "uvloop.py").write_text("raise ImportError")

    def told(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["strace", "-qq", *arguments, sys.executable, "-m", "slproxy", "whoami", "--config", os.devnull]
        env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, env=env)

    calls = tmp_path / "calls"
    assert "No credentials are set." in told("-o", str(calls), "-e", f"trace={call}").stderr
    count = calls.read_text().count(f"{call}(")
    for nth in range(count - last + 1, count + 1):
        struck = told(*injected(call, "signal=INT", nth))
        assert struck.returncode in (3, 128 + signal.SIGINT)
        assert "Traceback" not in struck.stderr, (nth, count)
