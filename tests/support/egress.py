"""Egress proxies, as companies have them: one by script, and tinyproxy and squid, where they are installed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.listener import Listener, Serve, to_port
from tests.support.waiting import PATIENCE

# Debian has squid where only root looks for programs.
PATH = f"{os.environ['PATH']}:/usr/sbin"

needs_tinyproxy = pytest.mark.skipif(not shutil.which("tinyproxy", path=PATH), reason="tinyproxy is not installed")
needs_squid = pytest.mark.skipif(not shutil.which("squid", path=PATH), reason="squid is not installed")

USER, PASSWORD = "jane", "w0rdOfJane"
# As they are sent (RFC 7617).
CREDENTIALS = "Basic amFuZTp3MHJkT2ZKYW5l"


class Connector(Listener):
    """A proxy that connects each name of ``places`` to a port of this machine, and keeps what it was asked."""

    def __init__(self, places: Mapping[str, int], *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._take, tls=tls)
        self.places = places
        self.heads: list[str] = []
        # All that came through, as it was on the wire.
        self.tape = bytearray()

    @property
    def asked(self) -> list[str]:
        """The hosts and ports that it was to connect to."""
        return [head.split()[1] for head in self.heads]

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        self.heads.append(head)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def record(data: bytes) -> bytes:
            self.tape += data
            return data

        await to_port(self.places[head.split()[1]], asked=record, answered=record)(reader, writer)


def answering(answer: bytes, *, heads: list[bytes] | None = None) -> Serve:
    """Return what answers every request with these bytes, and then waits for the other side to hang up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        writer.write(answer)
        await writer.drain()
        while await reader.read(65536):
            pass

    return serve


@contextlib.asynccontextmanager
async def tinyproxy(*ports: str) -> AsyncIterator[int]:
    """Run a tinyproxy that wants ``USER`` and ``PASSWORD``; without ``ConnectPort`` it connects to any."""
    with _folder() as folder:
        port, path = free_port(), folder / "tinyproxy.conf"
        lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 20", f"BasicAuth {USER} {PASSWORD}"]
        path.write_text("\n".join([*lines, *ports, ""]))
        async with _running("tinyproxy", "-d", "-c", str(path), port=port):
            yield port


@contextlib.asynccontextmanager
async def squid(hosts: Mapping[str, str], *, denied: str = "denied.test") -> AsyncIterator[int]:
    """Run a squid that wants ``USER`` and ``PASSWORD``, knows the addresses of ``hosts``, and refuses ``denied``."""
    with _folder() as folder:
        port = free_port()
        (folder / "hosts").write_text("".join(f"{address} {host}\n" for host, address in hosts.items()))
        # Its protocol: a line with both, percent-encoded, and one back.
        (folder / "check").write_text(
            f"while read -r line; do [ \"$line\" = '{USER} {PASSWORD}' ] && echo OK || echo ERR; done"
        )
        (folder / "squid.conf").write_text(
            "\n".join(
                [
                    f"http_port 127.0.0.1:{port}",
                    f"hosts_file {folder}/hosts",
                    "dns_nameservers 127.0.0.1",
                    f"auth_param basic program /bin/sh {folder}/check",
                    "auth_param basic children 1",
                    "acl known proxy_auth REQUIRED",
                    f"acl denied dstdomain {denied}",
                    "http_access deny !known",
                    "http_access deny denied",
                    "http_access allow all",
                    "cache deny all",
                    "access_log none",
                    "cache_log /dev/null",
                    "pid_filename none",
                    "netdb_filename none",
                    f"coredump_dir {folder}",
                    "pinger_enable off",
                    "shutdown_lifetime 0 seconds",
                    "connect_retries 0",
                    "max_filedescriptors 256",
                    "",
                ]
            )
        )
        async with _running("squid", "-N", "-f", str(folder / "squid.conf"), port=port):
            yield port


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder that others can read: where root starts such a program, it becomes another user."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def _running(*command: str, port: int) -> AsyncIterator[None]:
    """Run a server in the foreground until the end, once it listens."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=quiet, stdout=quiet, stderr=quiet, env={"PATH": PATH}
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.returncode is None, f"{command[0]} has ended"
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
