"""Instructions that a GET takes in user space, by callgrind: a figure that other work on the machine does not change.

``python -m benchmarks.instructions`` counts them for the bare passthrough and for slproxy with pacing off and on, on
asyncio, over eight connections. What the kernel does for a request is not in it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

from benchmarks import programs
from benchmarks.load import TARGET
from benchmarks.programs import Program
from benchmarks.upstream import BODY

CONNECTIONS = 8
# Rounds over all connections: until everything has been done once, and what is counted.
WARM_UP, COUNTED = 20, 40


def rounds(sockets: Sequence[socket.socket], count: int) -> None:
    """Ask on all connections, then read all answers; and that again."""
    for _ in range(count):
        for sock in sockets:
            sock.sendall(f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n".encode())
        for sock in sockets:
            answer = b""
            while not answer.endswith(BODY):
                data = sock.recv(2**16)
                answer += data
                if not data:
                    raise SystemExit(f"the answer ended early: {answer!r}")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not a 200: {answer!r}")


def switch(program: Program, state: str) -> None:
    subprocess.run(["callgrind_control", "-i", state, str(program.pid)], check=True, capture_output=True)


def main() -> None:
    """Count, one after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    programs.add_checkouts(parser)
    args = parser.parse_args()
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not here")
    with tempfile.TemporaryDirectory() as folder, programs.upstream() as upstream:
        counts = Path(folder) / "counts"
        under = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counts}"]
        origin = f"http://127.0.0.1:{upstream.port}"
        starts: dict[str, partial[AbstractContextManager[Program]]] = {
            "bare": partial(programs.bare, origin, under=under)
        }
        for name, checkout in programs.checkouts(args.beside).items():
            for mode in ("off", "pace"):
                starts[f"{name} {mode}"] = partial(
                    programs.slproxy, origin, uvloop=False, checkout=checkout, under=under, PACE__MODE=mode
                )
        for name, start in starts.items():
            with start() as program, ExitStack() as stack:
                sockets = [
                    stack.enter_context(socket.create_connection(("127.0.0.1", program.port)))
                    for _ in range(CONNECTIONS)
                ]
                rounds(sockets, WARM_UP)
                switch(program, "on")
                rounds(sockets, COUNTED)
                switch(program, "off")
            [total] = re.findall(r"^totals: (\d+)", counts.read_text(), re.MULTILINE)
            print(f"| {name} | {int(total) / COUNTED / CONNECTIONS / 1000:,.0f} thousand |", flush=True)


if __name__ == "__main__":
    main()
