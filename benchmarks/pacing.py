"""How long a job takes that the team's budget limits: with slproxy, and with what clients do without it.

``python -m benchmarks.pacing`` runs 3,000 requests of mixed cost from 20 clients against a model of SalesLoft's limit,
on a simulated clock, and prints a table. What decides is the program's own ``ratelimit.Budget`` and, for replicas, the
two scripts of ``redisbudget`` in a real Redis. What is simulated is the network, the upstream and the time.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from slproxy.pace import Refusal, Reservation
from slproxy.pace.budget import Budget
from slproxy.pace.headers import RateLimitHeaders
from slproxy.pace.probe import PROBE_INTERVAL
from slproxy.pace.replicas import own
from slproxy.pace.rules import Rules
from slproxy.pace.shared import KEY_TTL, OVER_OWN, RESERVE, SETTLE, WAITS, minute_key
from slproxy.retry import MINUTE

if TYPE_CHECKING:
    from redis import Redis

REQUESTS, CLIENTS, LIMIT = 3000, 20, 600
# Pages of lists, by weight: what they cost is in docs/salesloft.md, Rate limit.
PAGES = {1: 80, 120: 10, 200: 5, 300: 4, 600: 1}
COST_OF_PAGE = {1: 1, 120: 3, 200: 8, 300: 10, 600: 30}
# Seconds that an answer takes, and the share of those that are slow.
FAST, SLOW, SLOW_SHARE = (0.05, 0.4), 2.0, 0.02
# Another integration's costs, by weight.
FOREIGN_COSTS = {1: 85, 3: 10, 8: 5}
# Ours is wrong, as clocks are.
CLOCK_ERROR = 37.0
EPOCH = 1_750_000_020.0  # a minute begins
ATTEMPTS, MAX_WAIT = 4, 75.0
# No job of these takes longer, in simulated seconds.
HORIZON = 4 * 3600.0

Reply = tuple[bool, int, float]  # whether it was accepted, what remains, when


class Simulation:
    """Things that happen at their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, moment: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(moment, self.now), next(self._numbers), what))

    def run(self, enough: Callable[[], bool]) -> None:
        while self._events and not enough():
            self.now, _, what = heapq.heappop(self._events)
            if self.now > HORIZON:
                raise RuntimeError("the job does not end")
            what()


class Team:
    """SalesLoft's limit for a team: a clock minute's, or a sliding one's."""

    def __init__(self, limit: int, window: Literal["minute", "sliding"] = "minute") -> None:
        self.limit, self._window = limit, window
        self._spends: deque[tuple[float, int]] = deque()
        self._sum = 0
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def spend(self, cost: int, at: float, who: str) -> Reply:
        begin = at - MINUTE if self._window == "sliding" else math.floor((EPOCH + at) / MINUTE) * MINUTE - EPOCH
        while self._spends and self._spends[0][0] < begin:
            self._sum -= self._spends.popleft()[1]
        accepted = self._sum + cost <= self.limit
        if accepted:
            self._spends.append((at, cost))
            self._sum += cost
            self.accepted[who] += cost
        else:
            self.refused[who] += 1
        return accepted, self.limit - self._sum, at


@dataclass
class Job:
    """What is to be done, and what came of it."""

    pages: Sequence[int]
    dice: random.Random
    answered: int = 0
    seen_refusals: int = 0
    waits: list[float] = field(default_factory=list)
    ended: float = 0.0

    @property
    def cost(self) -> int:
        return sum(COST_OF_PAGE[page] for page in self.pages)

    def latency(self) -> float:
        return SLOW if self.dice.random() < SLOW_SHARE else self.dice.uniform(*FAST)


Ask = Callable[[int, Callable[[bool], None]], None]


class Naive:
    """A client of its own, without a proxy: it sends, and sleeps when it is refused."""

    def __init__(self, world: World, pause: Callable[[int], float]) -> None:
        self._world, self._pause = world, pause

    def ask(self, page: int, done: Callable[[bool], None], attempt: int = 1) -> None:
        def answered(reply: Reply) -> None:
            if reply[0]:
                done(True)
                return
            self._world.job.seen_refusals += 1
            world.at(world.now + self._pause(attempt), lambda: self.ask(page, done, attempt + 1))

        world = self._world.simulation
        self._world.send(COST_OF_PAGE[page], answered)


class Paced:
    """slproxy's decisions, and what forward and pacing do around them; with a Redis, one of several replicas."""

    def __init__(self, world: World, rules: Rules, redis: Redis | None = None, *, told_limit: bool = True) -> None:
        self._world, self._redis, self._told_limit = world, redis, told_limit
        self.budget = Budget(rules, unix=EPOCH + CLOCK_ERROR, now=0.0)
        self.budget.account.probe.is_shared = redis is not None
        self._going: dict[Reservation, Callable[[], None]] = {}
        self._alarm = 0

    def ask(
        self,
        page: int,
        done: Callable[[bool], None],
        ticket: int | None = None,
        attempt: int = 1,
        *,
        client: str = "",
        own_budget: int | None = None,
    ) -> None:
        now = self._world.simulation.now
        reservation = self.budget.reservation(
            "GET",
            f"/v2/people?page={page}",
            client=client,
            bulk=False,
            now=now,
            max_wait=math.inf if own_budget else MAX_WAIT,
            ticket=ticket,
            budget=own_budget,
        )
        again = partial(self.ask, page, done, client=client, own_budget=own_budget)

        def go() -> None:
            self._world.booked[client, reservation.minute] += COST_OF_PAGE[page]
            waited = self._world.simulation.now - reservation.arrived
            reserved_in = reservation.minute

            def answered(reply: Reply) -> None:
                self._answered(reservation, reserved_in, COST_OF_PAGE[page], reply)
                if reply[0]:
                    self._world.job.waits.append(waited)
                    done(True)
                elif attempt == ATTEMPTS:
                    done(False)
                elif reservation.refusal is Refusal.REQUEUED:
                    again(reservation.ticket, attempt + 1)
                else:
                    date = math.floor(EPOCH + reply[2])
                    at = self._world.simulation.now + MINUTE - date % MINUTE + self._world.job.dice.random()
                    self._world.simulation.at(at, lambda: again(reservation.ticket, attempt + 1))

            self._world.send(COST_OF_PAGE[page], answered)

        if self.budget.enqueue(reservation, now) is not None:
            done(False)
            return
        self._going[reservation] = go
        self._dispatch_due()

    def _answered(self, reservation: Reservation, reserved_in: int | None, cost: int, reply: Reply) -> None:
        accepted, remaining, at = reply
        told = RateLimitHeaders(
            cost=cost,
            remaining=remaining,
            limit=self._world.team.limit if self._told_limit else None,
            date=float(math.floor(EPOCH + at + self._world.ahead)),
            refused=not accepted,
        )
        reserved = 0 if reservation.reserved_in is None else reservation.cost
        now = self._world.simulation.now
        spent, left = self.budget.account.replied(reservation, now, told)
        if self._redis is not None and reserved_in is not None:
            redis, key = self._redis, minute_key("bench", reserved_in)
            account = self.budget.account
            figures = (reserved, spent, "" if left is None else left, own(reservation), account.limit)
            scouted = told.refused and account.is_probing(now)

            def settle() -> None:
                others = redis.eval(SETTLE, 1, key, *map(str, figures))
                if others >= 0 and account.minute.number == reserved_in and account.sliding is None:
                    account.note_external_spend(others, self._world.simulation.now)
                    self._dispatch_due()

            self._world.simulation.at(now + PROBE_INTERVAL * scouted, settle)
        self._dispatch_due()

    def _dispatch_due(self) -> None:
        now, budget = self._world.simulation.now, self.budget
        while (reservation := budget.due(now)) is not None:
            if self._redis is not None and budget.account.sliding is None:
                verdict = self._asked(self._redis, reservation, now)
                if verdict == WAITS:
                    break
                if verdict == OVER_OWN:
                    continue
                reservation.reserved_in = budget.account.minute.number
            budget.send(reservation, now)
            self._going.pop(reservation)()
        for reservation in budget.expire(now):
            del self._going[reservation]
            raise RuntimeError(f"reservation {reservation.ticket} was let in and did not come in time")
        if (wait := budget.wake_in(now)) is not None:
            self._alarm = alarm = self._alarm + 1
            # The last one counts: the others were set before more was known.
            self._world.simulation.at(
                now + max(wait, 0.001), lambda: self._dispatch_due() if alarm == self._alarm else None
            )

    def _asked(self, redis: Redis, reservation: Reservation, now: float) -> str:
        budget = self.budget
        cost = min(reservation.cost, budget.account.quota)
        probing = int(budget.account.is_probing(now))
        account, client = budget.account, own(reservation)
        own_budget = "" if reservation.budget is None else reservation.budget
        arguments = (account.limit, account.quota, account.headroom, KEY_TTL, probing, cost, client, own_budget)
        verdict, left, others = redis.eval(RESERVE, 1, minute_key("bench", account.minute.number), *map(str, arguments))
        if others >= 0:
            account.note_external_spend(others, now)
        if verdict == OVER_OWN.encode():
            account.minute.note_own_spent(client, reservation.budget)
        elif verdict == WAITS.encode() and account.sliding is None:
            account.block_until(now + (0.1 if cost <= left else account.time.until(account.minute.number + 1, now)))
        return str(verdict.decode())


class World:
    """A team's upstream, its clients and whatever stands between them."""

    def __init__(
        self, seed: int, *, team: Team, external_spend: float = 0.0, requests: int = REQUESTS, ahead: float = 0.0
    ) -> None:
        # By how much the clock that Date tells is ahead of the one that counts.
        self.ahead = ahead
        dice = random.Random(seed)
        self.simulation = Simulation()
        self.team = team
        # What each client had sent of each minute, as its proxy counts them.
        self.booked: Counter[tuple[str, int | None]] = Counter()
        self.job = Job(dice.choices(list(PAGES), list(PAGES.values()), k=requests), dice)
        self._queue: Iterator[int] = iter(self.job.pages)
        if external_spend:
            mean = sum(c * w for c, w in FOREIGN_COSTS.items()) / sum(FOREIGN_COSTS.values())
            self._foreign(random.Random(seed + 1), external_spend * team.limit / mean / MINUTE)

    def _foreign(self, dice: random.Random, rate: float) -> None:
        def spend() -> None:
            (cost,) = dice.choices(list(FOREIGN_COSTS), list(FOREIGN_COSTS.values()))
            self.team.spend(cost, self.simulation.now, "others")
            self.simulation.at(self.simulation.now + dice.expovariate(rate), spend)

        self.simulation.at(dice.expovariate(rate), spend)

    def send(self, cost: int, answered: Callable[[Reply], None]) -> None:
        """Carry a request to the upstream and its reply back."""
        latency = self.job.latency()
        now = self.simulation.now

        def arrive() -> None:
            reply = self.team.spend(cost, self.simulation.now, "ours")
            self.simulation.at(now + latency, lambda: answered(reply))

        self.simulation.at(now + latency / 2, arrive)

    def run(self, asks: Sequence[Ask]) -> None:
        """Let the clients work, each one request after the other."""

        def work(ask: Ask) -> None:
            if (page := next(self._queue, None)) is None:
                return

            def done(accepted: bool) -> None:
                self.job.answered += 1
                self.job.seen_refusals += not accepted
                self.job.ended = self.simulation.now
                self.simulation.at(self.simulation.now, lambda: work(ask))

            ask(page, done)

        for ask in asks:
            self.simulation.at(0.0, lambda ask=ask: work(ask))  # type: ignore[misc]
        self.simulation.run(lambda: self.job.answered == len(self.job.pages))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table; times are in seconds."""

    what: str
    seconds: float
    floor: float
    refused_upstream: int
    refused_per_1000: float
    seen_by_clients: int
    longest_wait: float
    # The most that one client had of one minute.
    most_of_a_minute: int

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor


def measured(what: str, world: World) -> Row:
    """Return what came of a run; others leave less than the limit, and so raise the floor."""
    job, team = world.job, world.team
    others = team.accepted["others"] / (job.ended / MINUTE)
    return Row(
        what=what,
        seconds=job.ended,
        floor=job.cost / (team.limit - others) * MINUTE,
        refused_upstream=team.refused["ours"],
        refused_per_1000=team.refused["ours"] * 1000 / len(job.pages),
        seen_by_clients=job.seen_refusals,
        longest_wait=max(job.waits, default=0.0),
        most_of_a_minute=max(world.booked.values(), default=0),
    )


def paced(
    what: str,
    seed: int,
    *,
    external_spend: float = 0.0,
    processes: int = 1,
    redis: Redis | None = None,
    team: Team | None = None,
    told_limit: bool = True,
    requests: int = REQUESTS,
    clients: int = CLIENTS,
    ahead: float = 0.0,
    own_budget: int | None = None,
) -> Row:
    """Run the job through slproxy, one process or several that have the clients in equal parts.

    Each client may have a budget of its own, and then works by all of the processes in turn.
    """
    world = World(seed, team=team or Team(LIMIT), external_spend=external_spend, requests=requests, ahead=ahead)
    rules = Rules(limit=LIMIT, is_shared=redis is not None)
    proxies = [Paced(world, rules, redis, told_limit=told_limit) for _ in range(processes)]
    asks = [proxies[number % processes].ask for number in range(clients)]
    if own_budget is not None:
        asks = [
            partial(each.ask, client=f"client-{number}", own_budget=own_budget)
            for number in range(clients)
            for each in proxies
        ]
    world.run(asks)
    return measured(what, world)


def naive(what: str, seed: int, *, external_spend: float = 0.0, pause: Callable[[int, random.Random], float]) -> Row:
    """Run the job with clients that help themselves."""
    world = World(seed, team=Team(LIMIT), external_spend=external_spend)
    dice = random.Random(seed + 2)
    client = Naive(world, lambda attempt: pause(attempt, dice))
    world.run([client.ask] * CLIENTS)
    return measured(what, world)


def a_minute(attempt: int, dice: random.Random) -> float:  # noqa: ARG001
    """Sleep as one does who has read that the limit is per minute."""
    return MINUTE


def backoff(attempt: int, dice: random.Random) -> float:
    """Sleep with exponential backoff and full jitter, from 1 s to a minute."""
    return dice.uniform(0.0, min(MINUTE, 2.0 ** (attempt - 1)))


@contextmanager
def redis_server() -> Iterator[Redis | None]:
    """Run a real Redis on a socket file; ``None`` where there is no redis-server."""
    if shutil.which("redis-server") is None:
        yield None
        return
    from redis import Redis  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                deadline = time.monotonic() + 10
                while not Path(path).exists():
                    if time.monotonic() > deadline or server.poll() is not None:
                        raise RuntimeError("redis-server does not start")
                    time.sleep(0.01)
                with Redis(unix_socket_path=path) as redis:
                    yield redis
            finally:
                server.terminate()


def table(seed: int) -> list[Row]:
    """Return the rows, in the order in which they are printed."""
    rows = [
        paced("slproxy", seed),
        paced("slproxy, another integration spends 30 %", seed, external_spend=0.3),
        paced("slproxy, a sliding minute", seed, team=Team(LIMIT, "sliding")),
        paced("slproxy, Date half a second ahead of the minute", seed, ahead=0.5),
        paced("slproxy, 200 clients, others spend 30 %", seed, clients=200, external_spend=0.3),
    ]
    with redis_server() as redis:
        if redis is not None:
            rows.append(paced("slproxy, 4 replicas and a Redis", seed, processes=4, redis=redis))
            redis.flushall()
            rows.append(paced("the same, others spend 30 %", seed, processes=4, redis=redis, external_spend=0.3))
            redis.flushall()
            rows.append(
                paced("slproxy, 4 replicas and a Redis, 200 clients", seed, processes=4, redis=redis, clients=200)
            )
    rows += [
        paced("slproxy, 4 processes that share nothing", seed, processes=4),
        naive("clients that sleep for 60 s", seed, pause=a_minute),
        naive("the same, others spend 30 %", seed, pause=a_minute, external_spend=0.3),
        naive("clients with exponential backoff", seed, pause=backoff),
        naive("the same, others spend 30 %", seed, pause=backoff, external_spend=0.3),
    ]
    return rows


def main() -> None:
    """Print the table; exit with 1 where slproxy's rows are not what is asked of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of costs, latencies and others (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()
    rows = table(args.seed)
    print("| | minutes | of the floor | 429 upstream | per 1,000 | seen by clients | longest wait, s |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        figures = f"{row.seconds / 60:.2f} | {row.ratio:.3f} | {row.refused_upstream} | {row.refused_per_1000:.1f}"
        print(f"| {row.what} | {figures} | {row.seen_by_clients} | {row.longest_wait:.1f} |")
    if args.json:
        args.json.write_text(
            json.dumps([row.__dict__ | {"ratio": round(row.ratio, 4)} for row in rows], indent=2) + "\n"
        )
    sys.exit(int(any(row.seen_by_clients for row in rows if "slproxy" in row.what)))


if __name__ == "__main__":
    main()
