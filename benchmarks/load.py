"""A fixed number of keep-alive connections that each ask again as soon as they are answered.

By ``wrk`` where it is installed, else by a load in Python, which costs more than a fast proxy does: its figures are
then too low, and the ratios too close to 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.programs import BESIDE, on_core

TARGET = "/v2/people.json?per_page=100"


class Figures(NamedTuple):
    """What came of a load; latencies in milliseconds."""

    seconds: float
    requests: int
    p50: float
    p99: float


def load(port: int, *, connections: int, seconds: int, post: int) -> Figures:
    """Load a port of this machine; whatever is not a success ends the program."""
    if shutil.which("wrk") is None:
        return asyncio.run(_by_python(port, connections=connections, seconds=seconds, post=post))
    script = str(Path(__file__).with_name("wrk.lua"))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
        "-s",
        script,
        f"http://127.0.0.1:{port}{TARGET}",
    ]
    told = subprocess.run(
        [*on_core(BESIDE), *command], env={**os.environ, "POST": str(post)}, check=True, capture_output=True, text=True
    )
    found = json.loads(told.stdout.splitlines()[-1])
    if found.pop("failed") or not found["requests"]:
        raise SystemExit(f"not all requests succeeded, or there were none in so short a time:\n{told.stdout}")
    return Figures(**found)


async def _by_python(port: int, *, connections: int, seconds: int, post: int) -> Figures:
    head = f"Host: 127.0.0.1:{port}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    if post:
        head += f"Content-Type: application/json\r\nContent-Length: {post}\r\n"
    request = f"{'POST' if post else 'GET'} {TARGET} HTTP/1.1\r\n{head}\r\n".encode() + b"x" * post
    latencies: list[float] = []
    began = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (asked := time.perf_counter()) < began + seconds:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not a 200: {answer!r}")
            lower = answer.lower()
            if (at := lower.find(b"content-length:")) >= 0:
                await reader.readexactly(int(lower[at + 15 : lower.index(b"\r", at)]))
            else:
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    await reader.readexactly(size + 2)
                await reader.readexactly(2)
            latencies.append((time.perf_counter() - asked) * 1000)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(connections)))
    cuts = statistics.quantiles(latencies, n=100)
    return Figures(time.perf_counter() - began, len(latencies), cuts[49], cuts[98])
