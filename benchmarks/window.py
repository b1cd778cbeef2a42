"""Whether the kernel's receive window grows: a large reply over TLS with a round trip that the kernel itself sees.

``python -m benchmarks.window`` (as root, or where users may make namespaces) makes a network of its own that is gone
with it: a TUN device whose packets come back half a round trip later, as if from the host that they were sent to. It
loads the reply of ``benchmarks.upstream`` through slproxy, and directly, for some seconds each, and prints the rate and
the largest buffer that ``ss -tmi`` tells of the connection to the upstream.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path

from benchmarks import programs
from benchmarks.large import REQUEST
from benchmarks.upstream import LARGE

# Of the network that is meant for documentation (RFC 5737 §3): what is sent to the second comes from it to the first.
HERE, THERE = "192.0.2.1", "192.0.2.2"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
INSIDE = "SLPROXY_BENCH_NAMESPACE"


def reflect(delay: float) -> None:
    """Send each packet back, source and destination exchanged, which leaves its checksums as they are."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"there", IFF_TUN | IFF_NO_PI))
    for command in (
        "link set lo up",
        f"address add {HERE}/30 dev there",
        "link set there up mtu 9000 txqueuelen 100000",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    threading.Thread(target=_reflect, args=(device, delay), daemon=True).start()


def _reflect(device: int, delay: float) -> None:
    under_way: deque[tuple[float, bytes]] = deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        if select.select([device], [], [], wait)[0]:
            packet = os.read(device, 65536)
            under_way.append((time.monotonic() + delay, packet[:12] + packet[16:20] + packet[12:16] + packet[20:]))
        while under_way and under_way[0][0] <= time.monotonic():
            os.write(device, under_way.popleft()[1])


def receive_buffer(port: int) -> int:
    """Return the largest receive buffer of the connections to the upstream, in bytes."""
    command = ["ss", "-Htmi", "dst", f"{THERE}:{port}"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return max((int(size) for size in re.findall(r"skmem:\(.*?,rb(\d+),", told)), default=0)


def rate(sock: socket.socket, seconds: float, upstream_port: int) -> tuple[float, int]:
    """Return the bytes a second that a large reply comes with, and the largest buffer meanwhile."""
    largest = received = 0
    sock.sendall(REQUEST)
    buffer = bytearray(2**20)
    began = looked = time.monotonic()
    while (now := time.monotonic()) < began + seconds and received < LARGE:
        if not (size := sock.recv_into(buffer)):
            raise SystemExit(f"the reply ended: {bytes(buffer[:200])!r}")
        received += size
        if now > looked + seconds / 10:
            largest, looked = max(largest, receive_buffer(upstream_port)), now
    return received / (time.monotonic() - began), largest


def main() -> None:
    """Measure each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round-trip", type=float, default=0.04, help="in seconds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each (default: %(default)s)")
    programs.add_checkouts(parser)
    args = parser.parse_args()
    if INSIDE not in os.environ:
        command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), sys.executable]
        os.execvpe("unshare", [*command, "-m", "benchmarks.window", *sys.argv[1:]], {**os.environ, INSIDE: "1"})
    reflect(args.round_trip / 2)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate, ca = programs.certificate_for(THERE, folder)
        upstream = stack.enter_context(programs.upstream(certificate=certificate, host=HERE))
        print("|  | MB/s | receive buffer, KiB |\n|---|---|---|")

        def tell(name: str, sock: socket.socket) -> None:
            with sock:
                bytes_a_second, buffer = rate(sock, args.seconds, upstream.port)
            print(f"| {name} | {bytes_a_second / 1e6:.1f} | {buffer // 1024} |", flush=True)

        direct = socket.create_connection((THERE, upstream.port))
        context = ssl.create_default_context(cafile=str(ca))
        tell("direct", context.wrap_socket(direct, server_hostname=THERE))
        for name, checkout in programs.checkouts(args.beside).items():
            for suffix, uvloop in programs.loops().items():
                origin = f"https://{THERE}:{upstream.port}"
                with programs.slproxy(origin, uvloop=uvloop, checkout=checkout, UPSTREAM__CA_FILE=str(ca)) as proxy:
                    tell(name + suffix, socket.create_connection(("127.0.0.1", proxy.port)))


if __name__ == "__main__":
    main()
