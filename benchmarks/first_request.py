"""How long curl takes through slproxy and directly, over TLS with 40 ms of round trip: the first request, and others.

``python -m benchmarks.first_request`` starts slproxy several times and asks each for its first answer after the start,
for the next, and for one after a pause and the next after that; each is preceded by a direct call. A direct call takes
three round trips (TCP, TLS 1.3, the request), one on a connection that stands takes one.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from benchmarks import programs
from benchmarks.programs import Program, free_port
from benchmarks.throughput import spread

WHEN = ("first", "next", "after the pause", "next after it")


def seconds(url: str, *options: str) -> float:
    """Return how long one curl takes, from its start to the end of the answer."""
    write = "%{http_code} %{time_total}"
    command = ["curl", "--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", write, *options, url]
    status, taken = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if status != "200":
        raise SystemExit(f"{url}: {status}")
    return float(taken)


def main() -> None:
    """Ask, wait, ask again, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5, help="how often slproxy is started (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=60.0, help="seconds without a request (default: %(default)s)")
    parser.add_argument("--settled", type=float, default=1.0, help="seconds from the start on (default: %(default)s)")
    parser.add_argument("--round-trip", type=float, default=0.04, help="in seconds (default: %(default)s)")
    programs.add_checkouts(parser)
    args = parser.parse_args()
    names = programs.checkouts(args.beside)
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {one: [] for one in product(names, WHEN)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate, ca = programs.certificate_for("127.0.0.1", folder)
        upstream = stack.enter_context(programs.upstream(certificate=certificate))
        port = free_port()
        relay = [sys.executable, "-m", "benchmarks.relay", str(port), str(upstream.port), str(args.round_trip / 2)]
        stack.enter_context(programs.running(relay, port, core=programs.BESIDE))
        origin = f"https://127.0.0.1:{port}"

        def ask(name: str, program: Program, when: str) -> None:
            direct = seconds(f"{origin}/v2/me.json", "--cacert", str(ca))
            taken[name, when].append((seconds(f"http://127.0.0.1:{program.port}/v2/me.json"), direct))

        running = [
            (
                name,
                stack.enter_context(programs.slproxy(origin, uvloop=False, checkout=folder, UPSTREAM__CA_FILE=str(ca))),
            )
            for name, folder in names.items()
            for _ in range(args.starts)
        ]
        time.sleep(args.settled)
        for pause, (first, following) in ((0.0, WHEN[:2]), (args.pause, WHEN[2:])):
            time.sleep(pause)
            for name, program in running:
                ask(name, program, first)
                ask(name, program, following)
    print("|  |  | ms | direct, ms | of the direct call |\n" + "|---" * 5 + "|")
    for (name, when), pairs in taken.items():
        mine, direct = (statistics.median(each) * 1000 for each in zip(*pairs, strict=True))
        print(f"| {name} | {when} | {mine:.0f} | {direct:.0f} | {spread([one / other for one, other in pairs])} |")


if __name__ == "__main__":
    main()
