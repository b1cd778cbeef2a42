"""Sockets of another user of this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from slproxy.sockets import Peers

# No account is needed: the kernel counts numbers. This one is nobody's by custom.
ANOTHER_USER = 65534


def needs_users() -> None:
    """Skip where this process cannot be another user for a moment, or the system does not tell users apart."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    with Peers() as peers:
        if peers.why_unknown is not None:
            pytest.skip(f"the kernel does not tell users apart: {peers.why_unknown}")


@contextmanager
def another_user(uid: int = ANOTHER_USER) -> Iterator[None]:
    """Be another user: a socket belongs to whoever made it."""
    before = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before)


def socket_of_another_user(family: int = socket.AF_INET) -> socket.socket:
    with another_user():
        return socket.socket(family, socket.SOCK_STREAM)
