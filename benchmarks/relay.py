"""A TCP relay that delays what passes, and throttles nothing: a network with a round trip, on loopback.

``python -m benchmarks.relay PORT UPSTREAM_PORT [SECONDS]`` delays each direction by so much (default: 0.02). The kernel
shakes hands at once, so what a client sends first is held for a round trip longer, as the handshake would have taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

Read = tuple[float, bytes]  # when it is to be passed on, in loop time


class Relay:
    """Relays between whoever connects and one port of this machine."""

    def __init__(self, upstream_port: int, delay: float) -> None:
        self._upstream_port, self._delay = upstream_port, delay

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        established = asyncio.get_running_loop().time() + 2 * self._delay
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, up_writer, established), self._pass(up_reader, writer, 0))
        for one in (writer, up_writer):
            one.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, not_before: float) -> None:
        under_way: asyncio.Queue[Read] = asyncio.Queue()
        writing = asyncio.create_task(self._write(under_way, writer))
        time, data = asyncio.get_running_loop().time, b"-"
        try:
            while data:
                data = await reader.read(2**18)
                under_way.put_nowait((max(time(), not_before) + self._delay, data))
            await writing
        finally:
            writing.cancel()

    async def _write(self, under_way: asyncio.Queue[Read], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _serve(port: int, upstream_port: int, delay: float) -> None:
    relay = Relay(upstream_port, delay)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0.02))
