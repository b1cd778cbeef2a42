"""Ten real minutes of more than the team's budget allows: is all of it used, and does any client notice?

``python -m benchmarks.pacing_soak`` runs a fake SalesLoft with the usual budget, whose answers take time and where
another integration spends at random; ``slproxy serve``; and 20 clients, some of them bulk, each of which asks for pages
of mixed cost, waits for the answer, pauses and asks again. It writes its figures and a plot, and exits 1 when a
criterion is not met. What ``benchmarks.pacing`` simulates is real here: the clock, the sockets, the processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib.util
import json
import math
import os
import platform
import random
import re
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import aiohttp

from benchmarks.pacing import CLIENTS, CLOCK_ERROR, FAST, FOREIGN_COSTS, PAGES, SLOW, SLOW_SHARE
from benchmarks.soak import PATIENCE, ROOT, Criterion, _environment, _reader, child, percentile, serving
from slproxy.sandbox import Fault, Options, Sandbox
from slproxy.sandbox.api.call import ApiResponse
from slproxy.sandbox.limits.faults import Faults, Side, parse_fault
from slproxy.sandbox.request_log import RecordedRequest

MINUTE, BUDGET, BULK = 60, Options().budget, 5
# The bounds: one 429 of the upstream in 1,000 requests; within 1.10 of the floor, which is 91 % of the budget.
REFUSED_PER_1000, USED = 1.0, 0.9
# A client's pause in seconds, on average. By it the clients would spend 13 cost/s, so that the budget lasts for half of
# each minute; without it all would be gone in the first seconds, before the other integration has had its part.
PAUSE = 3.0
# What the other one would spend, in cost/s: 0 to twice as much, by chance for each minute. While there is budget, that
# makes 30 % of what is spent.
OTHERS = 5.5
# How long a request may take that pacing (75 s) and retries (120 s) hold; when one counts as held; how long the load
# goes on after the last minute, to see who was held at its end. In seconds.
LONGEST, HELD, TAIL = 200.0, 0.1, 3.0


def there() -> float:
    """Return the time at SalesLoft, whose clock is not ours."""
    return time.time() + CLOCK_ERROR


class Spend(NamedTuple):
    """Something that was to be spent, by `ours` or `others`."""

    at: float
    who: str
    cost: int
    refused: bool


class Late(Faults):
    """Nothing fails, but answers take their time, as in the simulation."""

    def fault_for(self, *, on: Side, method: str, target: str, header: str | None) -> Fault | None:  # noqa: ARG002
        return parse_fault(f"slow={SLOW if random.random() < SLOW_SHARE else random.uniform(*FAST):.3f}", on)


class Team(Sandbox):
    """A fake SalesLoft that keeps an account of what was spent."""

    def __init__(self) -> None:
        super().__init__(Options(), clock=there)
        self.faults = Late()
        self.account: list[Spend] = []

    def admit(
        self, request: RecordedRequest, header: str | None
    ) -> tuple[ApiResponse | Fault | None, Mapping[str, str]]:
        at = self.now()
        stop, headers = super().admit(request, header)
        refused = isinstance(stop, ApiResponse) and stop.status == 429
        self.account.append(Spend(at, "ours", int(headers["x-ratelimit-endpoint-cost"]), refused))
        return stop, headers

    async def others(self) -> None:
        """Be another integration; what it is refused it does not ask for again."""
        mean = sum(cost * weight for cost, weight in FOREIGN_COSTS.items()) / sum(FOREIGN_COSTS.values())
        while True:
            rate, ends = random.uniform(0.0, 2 * OTHERS) / mean, (there() // MINUTE + 1) * MINUTE
            while (gap := random.expovariate(rate)) < ends - there():
                await asyncio.sleep(gap)
                (cost,) = random.choices(list(FOREIGN_COSTS), list(FOREIGN_COSTS.values()))
                refused = cost > self.remaining()
                self.account.append(Spend(self.now(), "others", cost, refused))
                if not refused:
                    self.spend(cost)
            await asyncio.sleep(max(0.0, ends - there()))


async def _sandbox() -> None:
    """Be SalesLoft until standard input ends; each line of it is answered with what is new in the account."""
    team = Team()
    await team.start()
    print(team.url, flush=True)
    others = asyncio.create_task(team.others())
    lines = await _reader(sys.stdin.fileno())
    while await lines.readline():
        print(json.dumps(team.account), flush=True)
        team.account.clear()
    others.cancel()
    await team.stop()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a client saw of one request; times are SalesLoft's.

    ``told`` is how long slproxy says that it has waited, ``measured`` what it took less the upstream's time.
    """

    bulk: bool
    asked: float
    ended: float
    failure: str = ""
    told: float = 0.0
    measured: float = 0.0


async def work(url: str, number: int, seen: list[Seen], *, pause: float) -> None:
    """Be a client until cancelled: ask, wait for the answer, pause."""
    bulk = number < BULK
    headers = {"X-Slproxy-Client": f"script-{number}", "X-Slproxy-Priority": "bulk" if bulk else "interactive"}
    # A connection for each request: on one that was kept, aiohttp would hide a failure by asking again.
    connector, timeout = aiohttp.TCPConnector(force_close=True), aiohttp.ClientTimeout(total=LONGEST)
    async with aiohttp.ClientSession(url, headers=headers, connector=connector, timeout=timeout) as session:
        while True:
            seen.append(await _ask(session, bulk=bulk))
            # Who is refused would ask again at once, for ever.
            await asyncio.sleep(1.0 if seen[-1].failure else random.expovariate(1.0 / pause) if pause else 0.0)


async def _ask(session: aiohttp.ClientSession, *, bulk: bool) -> Seen:
    (page,) = random.choices(list(PAGES), list(PAGES.values()))
    cheap = random.choice(["/v2/me.json", f"/v2/people/{random.randint(1, 100)}.json", "/v2/people.json?per_page=5"])
    result = functools.partial(Seen, bulk=bulk, asked=there())
    try:
        async with session.get(cheap if page == 1 else f"/v2/people.json?per_page=5&page={page}") as reply:
            await reply.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return result(ended=there(), failure=type(error).__name__)
    one = result(ended=there())
    if reply.status != 200:
        return result(ended=one.ended, failure=f"{reply.status} {reply.headers.get('Proxy-Status', 'of SalesLoft')}")
    timing = {name: float(ms) / 1000 for name, ms in re.findall(r"(\w+);dur=([\d.]+)", reply.headers["Server-Timing"])}
    return result(ended=one.ended, told=timing["wait"], measured=one.ended - one.asked - timing["upstream"])


# What comes of it.


@dataclass(kw_only=True)
class Run:
    """What was seen of the minute in which it began, and of the ``minutes`` whole ones from number ``first`` on."""

    first: int
    minutes: int
    seen: list[Seen]
    account: list[Spend]
    own_account: Mapping[str, Mapping[str, int]]
    log: Counter[str]
    worst: list[str]

    def rows(self) -> list[dict[str, float]]:
        """Return a row for each minute, the first of which is not a whole one. Times are in seconds.

        ``used`` is our share of what others left; ``status_*`` is slproxy's own account. ``first_sent`` counts from the
        minute's beginning, ``first_reply`` as well: to one who was held.
        """
        return [self._row(minute) for minute in range(self.minutes + 1)]

    def _row(self, minute: int) -> dict[str, float]:
        begins = (self.first - 1 + minute) * MINUTE
        spends = [each for each in self.account if begins <= each.at < begins + MINUTE]
        ours = [each for each in spends if each.who == "ours"]
        cost, others = (sum(each.cost for each in spends if each.who == who and not each.refused) for who in WHO)
        ended = [each for each in self.seen if begins <= each.ended < begins + MINUTE]
        held = [each for each in ended if each.told >= HELD]
        known = self.own_account.get(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begins)), {})
        row: dict[str, float] = {
            "minute": minute,
            "ours": cost,
            "others": others,
            "unused": BUDGET - cost - others,
            "used": round(cost / max(1, BUDGET - others), 4),
            "others_refused": sum(each.cost for each in spends if each.who == "others" and each.refused),
            "requests": len(ours),
            "refused": sum(each.refused for each in ours),
            "failures": sum(bool(each.failure) for each in ended),
            "held": len(held),
            "held_at_its_end": sum(
                each.asked < begins + MINUTE <= each.ended and each.told >= HELD for each in self.seen
            ),
            "longest_wait": round(max((each.told for each in held), default=0.0), 2),
        }
        if held and ours:
            row["first_sent"] = round(ours[0].at - begins, 3)
            row["first_reply"] = round(min(each.ended for each in held) - begins, 3)
        if known:
            row |= {"status_ours": known["spent"], "status_others": known["by_others"]}
        return row

    def good(self, *, bulk: bool) -> list[Seen]:
        return [each for each in self.seen if not each.failure and each.bulk is bulk]

    def totals(self) -> dict[str, object]:
        """Return the sums: of all, and of the whole minutes where they are of a budget."""
        whole = self.rows()[1:]
        ours, others = (sum(row[who] for row in whole) for who in WHO)
        waits = {name: [each.told for each in self.good(bulk=bulk)] for name, bulk in PRIORITIES.items()}
        untold = [each.measured - each.told for each in self.seen if not each.failure]
        return {
            "answers": len(self.seen),
            "failures": Counter(each.failure for each in self.seen if each.failure),
            "ours_a_minute": round(ours / self.minutes, 1),
            "others_a_minute": round(others / self.minutes, 1),
            # How much longer it took than what others left allows.
            "time_of_the_floor": round((self.minutes * BUDGET - others) / max(1.0, ours), 4),
            "waits_ms": {name: _shares(each, 0.5, 0.9, 0.99, 1) for name, each in waits.items()},
            "held": {name: sum(wait >= HELD for wait in each) for name, each in waits.items()},
            # What a client waited, less the upstream's time and the wait in Server-Timing.
            "untold_ms": _shares(untold, 0, 0.5, 0.99, 1),
            "log_lines": self.log,
        }

    def criteria(self) -> list[Criterion]:
        """Return what is asked of the proxy, and whether it holds."""
        failed = sum(bool(each.failure) for each in self.seen)
        sent = [each.refused for each in self.account if each.who == "ours"]
        per_1000 = sum(sent) * 1000 / max(1, len(sent))
        # What is unused of a minute at whose end nobody was held is what nobody wanted.
        used = [row["used"] for row in self.rows()[1:] if row["held_at_its_end"]]
        worst = f"{min(used):.1%} in the worst of {len(used)}" if used else "nobody was held"
        errors = sum(count for level, count in self.log.items() if level not in ("info", "warning"))
        asked = f"at most {REFUSED_PER_1000:g} of 1,000 requests is refused upstream"
        return [
            Criterion("no client sees a failure", f"{failed} of {len(self.seen)}", failed == 0),
            Criterion(asked, f"{sum(sent)} of {len(sent)}", per_1000 <= REFUSED_PER_1000),
            Criterion(
                f"{USED:.0%} of what others left is used, each minute", worst, min(used) >= USED if used else None
            ),
            Criterion("no error in the log", f"{errors}", errors == 0),
        ]


PRIORITIES = {"interactive": False, "bulk": True}
WHO = {"ours": "tab:blue", "others": "tab:orange"}


def _shares(values: Sequence[float], *shares: float) -> dict[str, float]:
    return {f"p{share * 100:g}": percentile(values, share) for share in shares}


def plot(run: Run, path: Path) -> None:
    """Draw the minutes, the seconds and the waits, one above the other."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # large, and the sandbox does without

    figure = Figure(figsize=(9, 9), dpi=90, layout="constrained")
    minutes, seconds, waits = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 3))
    minutes.axhline(
        BUDGET, linestyle=":", color="grey", label="the budget; above it, how much of it others left we used"
    )
    minutes.set(ylim=(0, BUDGET * 1.15), ylabel="cost of a minute")
    for row in run.rows():
        minutes.bar(row["minute"] - 0.5, row["ours"], 0.94, color=WHO["ours"])
        minutes.bar(row["minute"] - 0.5, row["others"], 0.94, bottom=row["ours"], color=WHO["others"])
        text = f"{row['used']:.1%}" + (f"\n{row['refused']} refused" if row["refused"] else "")
        minutes.text(row["minute"] - 0.5, BUDGET + 8, text if row["minute"] else "", ha="center", fontsize="x-small")
    for who, color in WHO.items():
        spends = [each for each in run.account if each.who == who and not each.refused]
        times, costs = [each.at / MINUTE - run.first for each in spends], [each.cost for each in spends]
        bins = [second / MINUTE for second in range(-MINUTE, run.minutes * MINUTE)]
        seconds.hist(times, bins, weights=costs, histtype="step", color=color, label=who, linewidth=0.8)
    seconds.set(ylabel="cost of a second")
    for (name, bulk), marker in zip(PRIORITIES.items(), ".x", strict=True):
        good = run.good(bulk=bulk)
        waits.plot([each.ended / MINUTE - run.first for each in good], [each.told for each in good], marker, label=name)
    failed = [each for each in run.seen if each.failure]
    lasted = [each.ended - each.asked for each in failed]
    waits.plot([each.ended / MINUTE - run.first for each in failed], lasted, "r*", label=f"failed: {len(failed)}")
    waits.set(ylabel="held for, in s", xlabel="minutes of SalesLoft's clock, from the first whole one")
    for axes in (minutes, seconds, waits):
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left" if axes is minutes else "upper left", fontsize="small")
    figure.savefig(path)


def write(run: Run, out: Path, about: Mapping[str, object]) -> None:
    """Write the figures, a line a minute, and the plot."""
    criteria = [each._asdict() for each in run.criteria()]
    rows = ",\n".join(f"    {json.dumps(row)}" for row in run.rows())
    document = {"about": about, "criteria": criteria, "totals": run.totals(), "minutes": "MINUTES"}
    out.with_suffix(".json").write_text(
        json.dumps(document, indent=2).replace('"MINUTES"', f"[\n{rows}\n  ]") + "\n", encoding="utf-8"
    )
    plot(run, out.with_suffix(".png"))


async def soak(*, minutes: int, pause: float) -> Run:
    """Start everything, load it for what is left of this minute and that many more, and say what was seen."""
    task = asyncio.current_task()
    assert task is not None
    # As asyncio does at a SIGINT: then the processes end as well.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    seen: list[Seen] = []
    spends: list[Spend] = []
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slproxy-pacing-")))
        command = (sys.executable, "-m", "benchmarks.pacing_soak", "--sandbox")
        sandbox = await stack.enter_async_context(child(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE, limit=2**24))
        assert sandbox.stdout is not None
        url = (await sandbox.stdout.readline()).decode().strip()
        # The other soak, whose environment it is, leaves pacing out.
        variables = {**_environment(home, url), "SLPROXY_PACE__MODE": "pace", "SALESLOFT_API_KEY": Options().api_key}
        longest = (minutes + 1) * MINUTE + 2 * PATIENCE
        proxy = await stack.enter_async_context(serving(home, variables, longest=longest, uvloop=False))
        proxy.log.clear()
        proxy.worst.clear()
        first = math.ceil(there() / MINUTE)
        address = f"http://127.0.0.1:{proxy.port}"
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
            clients = [group.create_task(work(address, number, seen, pause=pause)) for number in range(CLIENTS)]
            for minute in range(first, first + minutes + 1):
                await asyncio.sleep(minute * MINUTE + TAIL - there())
                spends += await account(sandbox)
                refused = sum(each.refused for each in spends if each.who == "ours")
                failed = sum(bool(each.failure) for each in seen)
                said = f"{len(seen)} answers, {failed} failed; {refused} refused upstream"
                print(f"minute {minute - first}: {said}", flush=True)
            for client in clients:
                client.cancel()
            async with session.get(f"{address}/_slproxy/status.json") as reply:
                status = await reply.json()
    return Run(
        first=first,
        minutes=minutes,
        seen=seen,
        account=spends,
        own_account={each["at"]: each for each in status["budget"]["last_minutes"]},
        log=proxy.log,
        worst=list(proxy.worst),
    )


async def account(sandbox: Process) -> list[Spend]:
    """Return what was spent at the fake SalesLoft since this was asked last."""
    assert sandbox.stdin is not None
    assert sandbox.stdout is not None
    sandbox.stdin.write(b"\n")
    async with asyncio.timeout(PATIENCE):
        return [Spend(*each) for each in json.loads(await sandbox.stdout.readline())]


def main() -> None:
    """Run it, print what came of it, and exit with 1 when a criterion is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=10, help="how many whole ones (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=PAUSE, help="a client's, in seconds (default: %(default)g)")
    out = Path("benchmarks/pacing_soak")
    parser.add_argument("--out", type=Path, default=out, help="where .json and .png go (default: %(default)s)")
    parser.add_argument("--sandbox", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sandbox:
        asyncio.run(_sandbox())
        return
    if importlib.util.find_spec("matplotlib") is None:
        parser.error("the plot wants matplotlib: pip install --group bench")
    if args.minutes < 1 or not args.out.parent.is_dir():
        parser.error("--minutes: at least 1; --out: in a folder that is there")
    try:
        run = asyncio.run(soak(minutes=args.minutes, pause=args.pause))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "minutes": args.minutes,
        "clients": {"interactive": CLIENTS - BULK, "bulk": BULK, "pause": args.pause},
        "python": platform.python_version(),
        "aiohttp": aiohttp.__version__,
        "linux": platform.release(),
        "cores": os.cpu_count(),
    }
    criteria = run.criteria()
    print(json.dumps(run.totals(), indent=2), *run.worst, *criteria, sep="\n", flush=True)
    write(run, args.out, about)
    sys.exit(int(any(each.met is False for each in criteria)))


if __name__ == "__main__":
    main()
