"""Idle connections of clients: kept for longer than clients keep them, and ended so that nothing is lost."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from slproxy.app import App
from slproxy.server.admission import KEEPALIVE
from slproxy.server.connection import ClientConnection
from tests.support.pair import pair
from tests.support.programs import program, verified
from tests.support.raw_http import Message, get, port_of, reply
from tests.support.waiting import SOON, until

# The longest that a client is known to keep its own: Envoy's, an hour.
AN_HOUR = 3600.0


def sweep(app: App, *, idle_for: float) -> None:
    """Look for connections that have been idle for too long, as if so much time had passed."""
    assert app.server is not None
    for connection in app.server.connections:
        assert isinstance(connection, ClientConnection)
        connection.idle_since -= idle_for
    app.server.admission.sweep()


async def test_an_idle_connection_is_kept_for_an_hour_and_ends_without_a_reset_for_a_late_request() -> None:
    loop = asyncio.get_running_loop()
    async with pair() as (upstream, app):
        with socket.create_connection(("127.0.0.1", port_of(app.urls[0]))) as sock:
            sock.setblocking(False)
            async with asyncio.timeout(SOON):
                for target in ("/v2/a", "/v2/b"):
                    await loop.sock_sendall(sock, get(target))
                    assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")
                    sweep(app.app, idle_for=AN_HOUR)
                sweep(app.app, idle_for=KEEPALIVE)
                # Its client has not noticed, and asks: RFC 9112 §9.6.
                await asyncio.sleep(0.05)
                for _ in range(2):
                    await loop.sock_sendall(sock, get("/v2/late", method="POST", body=b"{}"))
                    await asyncio.sleep(0.05)
                assert await loop.sock_recv(sock, 65536) == b""
        assert [message.head.target for message in upstream.seen] == ["/v2/a", "/v2/b"]
        assert app.app.server is not None
        server = app.app.server
        await until(lambda: not server.connections)


async def test_a_connection_with_a_request_in_flight_is_not_idle() -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(reply())

    loop = asyncio.get_running_loop()
    async with pair(script) as (upstream, app):
        with socket.create_connection(("127.0.0.1", port_of(app.urls[0]))) as sock:
            sock.setblocking(False)
            await loop.sock_sendall(sock, get("/v2/a"))
            await until(lambda: len(upstream.seen) == 1)
            sweep(app.app, idle_for=2 * KEEPALIVE)
            go_on.set()
            async with asyncio.timeout(SOON):
                assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")


def ask_and_leave(port: int, *, times: int) -> None:
    """Ask, and leave as soon as the answer is there, each time on a new connection."""
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(get("/_slproxy/healthz"))
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(sys.platform != "linux", reason="a process's open files are counted in /proc")
async def test_no_connection_stays_whose_client_left_right_after_its_answer(tmp_path: Path) -> None:
    """uvloop reads the client's end before aiohttp has come back from the request that it has just answered."""
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path) as running:
        files = Path(f"/proc/{running.process.pid}/fd")
        # Its connection to the sandbox stays.
        await verified(running)
        before = len(os.listdir(files))  # noqa: PTH208  # its entries go while they are looked at
        await asyncio.to_thread(ask_and_leave, port_of(running.url), times=200)
        await until(lambda: len(os.listdir(files)) <= before, timeout=SOON)  # noqa: PTH208
