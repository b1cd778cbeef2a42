"""Presence: whether a client that has ended its half of a connection still waits for an answer.

On the wire ``shutdown(SHUT_WR)`` and ``close()`` look alike: a FIN. Only when something is sent to a client that has
left does its socket answer with a reset, and all that could be sent is the answer. Of a client on this machine the
kernel knows more: whether a process still has its socket open, be its FIN behind bytes that nobody has read, or held
back by them. A Unix socket tells the two apart by itself.
"""

from __future__ import annotations

import select
from enum import Enum, auto
from typing import Protocol

from slproxy.sockets.peers import Connection, Peers

# Linux; elsewhere poll(2) does not tell a half that has ended from a whole connection.
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)


class Presence(Enum):
    """Whether a client waits for its answer; ``UNKNOWN``: it has closed its half, and may have left or not."""

    HERE = auto()
    UNKNOWN = auto()
    LEFT = auto()


# What most are; to look a member up in its enum takes ten times as long (Python 3.11).
HERE = Presence.HERE


class Client(Connection, Protocol):
    """The socket of a client's connection."""

    def fileno(self) -> int: ...


def presence(client: Client, peers: Peers, *, is_local: bool, has_ended: bool, has_unread: bool) -> Presence:
    """Return whether a client is there. A look takes 1.3 µs, and 8 where the kernel is asked for more.

    ``is_local``: before, ``peers`` knew who has it open. ``has_ended``: its end was read; ``has_unread``: its end may
    stand behind bytes that were not.
    """
    if not _POLLRDHUP:
        return Presence.UNKNOWN if has_ended else Presence.HERE
    poll = select.poll()
    poll.register(client.fileno(), _POLLRDHUP)
    happened = poll.poll(0)
    if not (happened or has_ended or has_unread):
        return HERE
    events = happened[0][1] if happened else 0  # of one socket
    # A reset; of a Unix socket also that the client has closed it (unix(7)).
    if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
        return Presence.LEFT
    ended = has_ended or bool(events & _POLLRDHUP)
    if not ended and not has_unread:
        return Presence.HERE
    if is_local and (is_open := peers.is_open(client)) is not None:
        return Presence.HERE if is_open else Presence.LEFT
    return Presence.UNKNOWN if ended else Presence.HERE
