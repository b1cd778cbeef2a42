"""Requests per second and latency of slproxy, beside a bare passthrough on aiohttp and Envoy's credential injector.

``python -m benchmarks.throughput`` runs all of them at once and loads them in turns, GET and POST over 32 connections
and GET over one. It prints a table for each load: medians of the turns, and the ratios of each turn, which is all that
means much on a machine whose speed varies. Everything is on loopback and ends by itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks import programs
from benchmarks.load import Figures, load
from benchmarks.programs import Program

LOADS: Mapping[str, Mapping[str, int]] = {
    "GET, 32 connections": {"connections": 32, "post": 0},
    "POST of 10 kB, 32 connections": {"connections": 32, "post": 10_000},
    "GET, one connection": {"connections": 1, "post": 0},
}
BARE, ENVOY = "bare", "envoy"
# What ratios are taken of, where it takes part.
BASES = (BARE, ENVOY)

Starts = Callable[[], AbstractContextManager[Program]]


class Turn(NamedTuple):
    """One program under one load for one turn."""

    figures: Figures
    cpu: float  # seconds a request

    @property
    def rate(self) -> float:
        return self.figures.requests / self.figures.seconds


def contestants(upstream: Program, folder: Path, beside: list[Path]) -> dict[str, Starts]:
    """Return how each program that takes part is started, by its name."""
    origin = f"http://127.0.0.1:{upstream.port}"
    found: dict[str, Starts] = {}
    if program := programs.installed("envoy"):
        found[ENVOY] = partial(programs.envoy, program, upstream.port, folder)
    for suffix, uvloop in programs.loops().items():
        found[BARE + suffix] = partial(programs.bare, origin, uvloop=uvloop)
    for (name, checkout), mode, (suffix, uvloop) in product(
        programs.checkouts(beside).items(), ("off", "pace"), programs.loops().items()
    ):
        found[f"{name} {mode}{suffix}"] = partial(
            programs.slproxy, origin, uvloop=uvloop, checkout=checkout, PACE__MODE=mode
        )
    return found


def measured(starts: Mapping[str, Starts], *, turns: int, seconds: int) -> dict[str, dict[str, list[Turn]]]:
    """Return the turns of each program under each load; the first seconds of a program count for nothing."""
    taken: dict[str, dict[str, list[Turn]]] = {what: {name: [] for name in starts} for what in LOADS}
    with ExitStack() as stack:
        running = {name: stack.enter_context(start()) for name, start in starts.items()}
        for program in running.values():
            load(program.port, seconds=1, **LOADS["GET, 32 connections"])
        for _ in range(turns):
            for what, how in LOADS.items():
                for name, program in running.items():
                    before = program.cpu_seconds()
                    figures = load(program.port, seconds=seconds, **how)
                    cpu = (program.cpu_seconds() - before) / figures.requests
                    taken[what][name].append(Turn(figures, cpu))
    return taken


def rows(turns: Mapping[str, list[Turn]]) -> list[list[str]]:
    """Return the table of one load."""
    bases = [base for base in BASES if base in turns]
    head = ["req/s", "p50 ms", "p99 ms", "cpu µs"]
    for base in bases:
        head += [f"/{base}: req/s", "req/cpu s", "p50"]
    table = [["", *head]]
    for name, mine in turns.items():
        row = [
            f"{statistics.median(turn.rate for turn in mine):,.0f}",
            f"{statistics.median(turn.figures.p50 for turn in mine):.2f}",
            f"{statistics.median(turn.figures.p99 for turn in mine):.2f}",
            f"{statistics.median(turn.cpu for turn in mine) * 1e6:.0f}",
        ]
        for base in bases:
            pairs = [*zip(mine, turns[base], strict=True)]
            row += [
                spread([one.rate / other.rate for one, other in pairs]),
                spread([other.cpu / one.cpu for one, other in pairs]),
                f"{statistics.median(one.figures.p50 / other.figures.p50 for one, other in pairs):.2f}",
            ]
        table.append([name, *row])
    return table


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> None:
    """Run the turns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help='what takes part, such as "slproxy off" or bare (default: all)')
    parser.add_argument("--turns", type=int, default=5, help="how often each is loaded (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=1, help="length of one turn (default: %(default)s)")
    programs.add_checkouts(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, programs.upstream() as upstream:
        starts = contestants(upstream, Path(folder), args.beside)
        if unknown := set(args.names) - set(starts):
            parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(starts)}")
        chosen = {name: start for name, start in starts.items() if name in (args.names or starts)}
        for what, turns in measured(chosen, turns=args.turns, seconds=args.seconds).items():
            print(f"\n{what}, {args.turns} turns of {args.seconds} s; load average {os.getloadavg()[0]:.1f}\n")
            for number, row in enumerate(rows(turns)):
                print("| " + " | ".join(row) + " |")
                if not number:
                    print("|---" * len(row) + "|")


if __name__ == "__main__":
    main()
