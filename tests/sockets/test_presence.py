"""Presence: what the kernel tells of a client that has ended its half of a connection, or all of it."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from slproxy.sockets import Peers, Presence, presence

HERE, UNKNOWN, LEFT = Presence.HERE, Presence.UNKNOWN, Presence.LEFT


def resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def closes_in_two_steps(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    client.close()


def stays(client: socket.socket) -> None:
    """Do nothing."""


# What a client does; what is told where the kernel knows its socket, and where it does not: on another machine, or
# behind a translation of addresses, which looks like a client that has left to who only looks for its socket.
WAYS = {
    "stays": (stays, HERE, HERE),
    "closes its half": (lambda client: client.shutdown(socket.SHUT_WR), HERE, UNKNOWN),
    "closes": (socket.socket.close, LEFT, UNKNOWN),
    "closes in two steps": (closes_in_two_steps, LEFT, UNKNOWN),
    "resets": (resets, LEFT, LEFT),
}


@pytest.mark.parametrize("size", [0, 100, 1_000_000], ids=["nothing", "a little", "more than fits"])
@pytest.mark.parametrize("way", WAYS)
def test_who_closes_is_told_from_who_closes_a_half(way: str, size: int) -> None:
    act, known, unknown = WAYS[way]
    with socket.create_server(("127.0.0.1", 0)) as listener, Peers() as peers:
        if peers.why_unknown is not None:
            pytest.skip(peers.why_unknown)
        client = socket.create_connection(listener.getsockname())
        with listener.accept()[0] as connection:
            assert peers.is_open(connection)
            client.setblocking(False)
            if size:
                client.send(b"x" * size)
            act(client)
            time.sleep(0.01)
            told = {
                is_local: presence(connection, peers, is_local=is_local, has_ended=False, has_unread=bool(size))
                for is_local in (True, False)
            }
        client.close()
    assert told[True] is known
    # Where its end is behind what does not fit, nothing is seen of it.
    assert told[False] in ({unknown, HERE} if size > 100 else {unknown})


@pytest.mark.parametrize("way", WAYS)
def test_a_unix_socket_tells_by_itself(way: str) -> None:
    act, known, _ = WAYS[way]
    client, connection = socket.socketpair()
    with client, connection, Peers() as peers:
        client.setblocking(False)
        client.send(b"x" * 1000)
        act(client)
        assert presence(connection, peers, is_local=True, has_ended=False, has_unread=True) is known


def test_a_kernel_that_does_not_tell_ends_nobody() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
        Peers() as peers,
    ):
        peers.close()
        assert presence(connection, peers, is_local=True, has_ended=False, has_unread=True) is HERE
