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
from pathlib import Path

import trustme

from benchmarks import programs
from benchmarks.programs import ROOT, Program, free_port

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
    parser.add_argument("--before", type=Path, help="another checkout of slproxy, measured instead")
    args = parser.parse_args()
    taken: dict[str, list[float]] = {when: [] for when in WHEN}
    ratios: dict[str, list[float]] = {when: [] for when in WHEN}
    direct: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority, certificate, ca = trustme.CA(), folder / "certificate.pem", folder / "ca.pem"
        authority.cert_pem.write_to_path(ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        upstream = stack.enter_context(programs.upstream(certificate=certificate))
        port = free_port()
        relay = [sys.executable, "-m", "benchmarks.relay", str(port), str(upstream.port), str(args.round_trip / 2)]
        stack.enter_context(programs.running(relay, port, core=programs.BESIDE))
        origin = f"https://127.0.0.1:{port}"

        def ask(proxy: Program, when: str) -> None:
            direct.append(seconds(f"{origin}/v2/me.json", "--cacert", str(ca)))
            taken[when].append(seconds(f"http://127.0.0.1:{proxy.port}/v2/me.json"))
            ratios[when].append(taken[when][-1] / direct[-1])

        checkout = args.before or ROOT
        proxies = [
            stack.enter_context(programs.slproxy(origin, uvloop=False, checkout=checkout, UPSTREAM__CA_FILE=str(ca)))
            for _ in range(args.starts)
        ]
        time.sleep(args.settled)
        for pause, (first, following) in {0.0: WHEN[:2], args.pause: WHEN[2:]}.items():
            time.sleep(pause)
            for proxy in proxies:
                ask(proxy, first)
                ask(proxy, following)
    print(f"direct: {statistics.median(direct) * 1000:.0f} ms\n\n|  | ms | of the direct call |\n|---|---|---|")
    for when in WHEN:
        low, median, high = min(ratios[when]), statistics.median(ratios[when]), max(ratios[when])
        print(f"| {when} | {statistics.median(taken[when]) * 1000:.0f} | {median:.2f} ({low:.2f}-{high:.2f}) |")


if __name__ == "__main__":
    main()
