"""Peers: what the kernel tells of the users at both ends of a connection."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from slproxy.sockets import GONE, Peers
from tests.support.users import ANOTHER_USER, another_user, needs_users, socket_of_another_user


@contextmanager
def connected(
    near: socket.socket, listener: socket.socket, *, at: str | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect ``near`` to ``listener``, at another address than its own where it has many; yield it and the far end."""
    with near, listener:
        name = listener.getsockname()
        near.connect(name if at is None else (at, name[1]))
        far, _ = listener.accept()
        with far:
            yield near, far


def listening(family: int = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((host, 0))
    except OSError:
        listener.close()
        pytest.skip(f"there is no {host}")
    listener.listen()
    return listener


def own_address() -> str:
    """Return an address of this machine that is not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback's")
        return str(probe.getsockname()[0])


CLIENTS = {
    "IPv4": (socket.AF_INET, "127.0.0.1", "127.0.0.1", None),
    "IPv6": (socket.AF_INET6, "::1", "::1", None),
    # As Java's clients are, and Go's.
    "IPv4 in a socket for IPv6": (socket.AF_INET6, "127.0.0.1", "::ffff:127.0.0.1", None),
    "another loopback address": (socket.AF_INET, "127.0.0.1", "127.0.0.1", "127.7.7.7"),
    "from the machine's own address": (socket.AF_INET, "127.0.0.1", "127.0.0.1", "own"),
}


@pytest.mark.parametrize("way", CLIENTS)
@pytest.mark.parametrize("user", ["this", "another"])
def test_whose_a_client_is(way: str, user: str) -> None:
    family, host, target, source = CLIENTS[way]
    if user == "another":
        needs_users()
    listener = listening(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    near = socket_of_another_user(family) if user == "another" else socket.socket(family, socket.SOCK_STREAM)
    if source is not None:
        near.bind((own_address() if source == "own" else source, 0))
    with connected(near, listener, at=target) as (_, far), Peers() as peers:
        expected = ANOTHER_USER if user == "another" else None
        assert peers.foreign_client(far) == expected


def test_a_client_of_root_is_at_home_with_every_user() -> None:
    needs_users()
    with ExitStack() as stack:
        _, far = stack.enter_context(connected(socket.socket(), listening()))
        with another_user():
            peers = stack.enter_context(Peers())
        assert peers.why_unknown is None
        assert peers.foreign_client(far) is None


@pytest.mark.parametrize("end", ["closed", "closed with bytes unread", "closed after bytes", "reset"])
def test_a_client_that_has_gone_is_nobody_and_never_root(end: str) -> None:
    """The kernel says uid 0 of a socket that no process has open any more."""
    needs_users()
    with connected(socket_of_another_user(), listening()) as (near, far), Peers() as peers:
        if end == "closed with bytes unread":
            far.send(b"x")
        if end == "closed after bytes":
            near.send(b"POST /v2/a HTTP/1.1\r\n")
        if end == "reset":
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.close()
        assert peers.foreign_client(far) == GONE


def test_a_client_whose_process_has_ended_is_nobody() -> None:
    with listening() as listener, Peers() as peers:
        if peers.why_unknown is not None:
            pytest.skip(peers.why_unknown)
        script = f"import socket; socket.create_connection({listener.getsockname()}).send(b'x')"
        subprocess.run([sys.executable, "-c", script], check=True)
        far, _ = listener.accept()
        with far:
            assert peers.foreign_client(far) == GONE


@pytest.mark.parametrize("user", ["this", "another"])
def test_whose_the_client_of_a_unix_socket_is(user: str) -> None:
    if user == "another":
        needs_users()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as near, Peers() as peers:
        listener.bind("")  # a name of the kernel's choice, with no file that has a mode (unix(7), autobind)
        listener.listen()
        with ExitStack() as stack:
            if user == "another":
                stack.enter_context(another_user())
            near.connect(listener.getsockname())
        far, _ = listener.accept()
        with far:
            assert peers.foreign_client(far) == (ANOTHER_USER if user == "another" else None)
        assert peers.foreign_listener(near) is None


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
)
def test_a_listener_of_another_user_is_told_before_and_after_it_accepts(family: int, host: str, accepted: bool) -> None:
    needs_users()
    with socket_of_another_user(family) as listener, socket.socket() as near, Peers() as peers, ExitStack() as stack:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((host, 0))
        listener.listen()
        near.connect(("127.0.0.1", listener.getsockname()[1]))
        if accepted:
            with another_user():
                far, _ = listener.accept()
            stack.enter_context(far)
            listener.close()
        assert peers.foreign_listener(near) == ANOTHER_USER


def test_this_users_listener_is_at_home() -> None:
    with connected(socket.socket(), listening()) as (near, _), Peers() as peers:
        assert peers.foreign_listener(near) is None
