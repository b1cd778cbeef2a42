"""Requests per second, p50 and p99: direct to an upstream, through a bare aiohttp passthrough, and through slproxy.

``python -m benchmarks.throughput`` runs the three side by side in one go, in turns, and prints a table with the ratio
slproxy/bare of each turn's pair. Everything is on loopback and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen

from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
BODY = b'{"data":{"id":1,"name":"Jane Smith","email":"jane@company.com"},"padding":"' + b"x" * 1200 + b'"}'


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _upstream(port: int) -> None:
    """Answer like the API does, as fast as aiohttp can."""

    async def handle(request: web.BaseRequest) -> web.Response:
        await request.read()
        headers = {"x-ratelimit-endpoint-cost": "1", "x-ratelimit-remaining-minute": "900000000"}
        return web.Response(body=BODY, headers=headers, content_type="application/json")

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await asyncio.Event().wait()


class Load:
    """A fixed number of keep-alive connections that each ask again as soon as they are answered."""

    def __init__(self, port: int, *, connections: int, seconds: float, post: int) -> None:
        self._port, self._connections, self._seconds = port, connections, seconds
        head = f"Host: localhost:{port}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        if post:
            head += f"Content-Type: application/json\r\nContent-Length: {post}\r\n"
        method = "POST" if post else "GET"
        self._request = f"{method} /v2/people.json?per_page=100 HTTP/1.1\r\n{head}\r\n".encode() + b"x" * post
        self.latencies: list[float] = []

    async def run(self) -> float:
        """Return requests per second."""
        ends = time.perf_counter() + self._seconds
        began = time.perf_counter()
        await asyncio.gather(*(self._client(ends) for _ in range(self._connections)))
        return len(self.latencies) / (time.perf_counter() - began)

    async def _client(self, ends: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while (asked := time.perf_counter()) < ends:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not a 200: {head!r}")
            lower = head.lower()
            if (at := lower.find(b"content-length:")) >= 0:
                await reader.readexactly(int(lower[at + 15 : lower.index(b"\r", at)]))
            else:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
            self.latencies.append(time.perf_counter() - asked)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def processes(*, uvloop: bool) -> Iterator[dict[str, tuple[int, int]]]:
    """Start the upstream and both proxies, each a process of its own; yield their ports and process ids."""
    ports = {"direct": free_port(), "bare": free_port(), "slproxy": free_port()}
    origin = f"http://127.0.0.1:{ports['direct']}"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLPROXY_", "SALESLOFT_"))}
    settings = {
        "SALESLOFT_API_KEY": "ak_" + "5a" * 32,
        "SLPROXY_UPSTREAM__API_URL": origin,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": origin,
        "SLPROXY_LISTEN__PORT": str(ports["slproxy"]),
        "SLPROXY_STORE__KIND": "memory",
        "SLPROXY_PACE__LIMIT": "900000000",
    }
    python = [sys.executable] if uvloop else [sys.executable, "-c", _WITHOUT_UVLOOP]
    started: list[Popen[bytes]] = []
    try:
        for command, more in (
            ([sys.executable, "-m", "benchmarks.throughput", "--upstream", str(ports["direct"])], {}),
            ([sys.executable, "-m", "benchmarks.bare", origin, str(ports["bare"])], {}),
            ([*python, "-m", "slproxy", "serve"] if uvloop else [*python, "serve"], settings),
        ):
            started.append(Popen(command, cwd=ROOT, env={**env, **more}, stdout=DEVNULL, stderr=DEVNULL))
        for port in ports.values():
            _wait_for(port)
        yield {name: (port, process.pid) for (name, port), process in zip(ports.items(), started, strict=True)}
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=10)


_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from slproxy.cli import main; main()"


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def main() -> None:
    """Run the turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="connections at a time (default: %(default)s)")
    parser.add_argument("--post", type=int, default=0, metavar="BYTES", help="POST a body of this size instead of GET")
    parser.add_argument("--uvloop", action="store_true", help="let slproxy use uvloop, which bare does not")
    parser.add_argument("--upstream", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.upstream:
        asyncio.run(_upstream(args.upstream))
    rates: dict[str, list[float]] = {"direct": [], "bare": [], "slproxy": []}
    latencies: dict[str, list[float]] = {name: [] for name in rates}
    costs: dict[str, list[float]] = {name: [] for name in rates}
    with processes(uvloop=args.uvloop) as targets:
        for turn in range(args.turns + 1):
            for name, (port, pid) in targets.items():
                seconds = args.seconds if turn else 1.0
                load = Load(port, connections=args.connections, seconds=seconds, post=args.post)
                before = cpu_seconds(pid)
                rate = asyncio.run(load.run())
                cost = (cpu_seconds(pid) - before) / len(load.latencies)
                if turn:  # the first turn warms up
                    rates[name].append(rate)
                    latencies[name] += load.latencies
                    costs[name].append(cost)
    print(f"{'':8} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'cpu us/req':>11}")
    for name, measured in rates.items():
        cuts = statistics.quantiles(latencies[name], n=100)
        print(
            f"{name:8} {statistics.median(measured):8.0f} {cuts[49] * 1000:8.2f} {cuts[98] * 1000:8.2f} "
            f"{statistics.median(costs[name]) * 1e6:11.0f}"
        )
    ratios = sorted(mine / bare for mine, bare in zip(rates["slproxy"], rates["bare"], strict=True))
    print(f"slproxy/bare, req/s: median {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")
    # Processor time is what a busy machine distorts least.
    work = sorted(bare / mine for mine, bare in zip(costs["slproxy"], costs["bare"], strict=True))
    print(
        f"slproxy/bare, req per cpu second: median {statistics.median(work):.2f}, from {work[0]:.2f} to {work[-1]:.2f}"
    )


if __name__ == "__main__":
    main()
