"""Reads: how much is asked of the kernel at once, and that connections which share a buffer share nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from slproxy.server.acceptor import Acceptor
from slproxy.server.reading import READ_SIZE

MIB = 1024 * 1024


class Recorder(asyncio.Protocol):
    """A connection that keeps what arrives on it."""

    def __init__(self, made: list[Recorder]) -> None:
        self.pieces: list[bytes] = []
        self.told: list[str] = []
        made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)

    def eof_received(self) -> bool | None:
        self.told.append("eof")
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="the extra `uvloop` is not installed")
    return uvloop.new_event_loop  # type: ignore[no-any-return]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_two_clients_at_once_are_read_in_small_pieces_and_never_mixed_up(loop: str) -> None:
    made: list[Recorder] = []

    async def pour(address: tuple[str, int], byte: bytes) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(byte * 4 * MIB)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def serve() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        acceptor = Acceptor(listener, lambda: Recorder(made), lambda: None)
        try:
            async with asyncio.timeout(30.0):
                await asyncio.gather(*(pour(listener.getsockname(), byte) for byte in (b"a", b"b")))
                while [each.told for each in made] != [["made", "eof", "lost"]] * 2:
                    await asyncio.sleep(0.01)
        finally:
            acceptor.close()

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(serve())
    got = [b"".join(each.pieces) for each in made]
    assert sorted((each[:1], len(each), len(set(each))) for each in got) == [(b"a", 4 * MIB, 1), (b"b", 4 * MIB, 1)]
    assert max(len(piece) for each in made for piece in each.pieces) == READ_SIZE
