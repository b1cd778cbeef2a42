"""Client's end of a connection: watched while its request waits to be sent, so that nothing is sent for nobody.

The event loop sees an end or a reset only of a connection that it reads. It does not read behind a body that nobody
takes for now, nor behind an end; there the socket is looked at, every so often and right before a request is sent.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from slproxy.errors import BadRequest, ClientLeft, Problem
from slproxy.server.response import reset
from slproxy.sockets import Peers, Presence, presence

# What is sent for a client of whom nothing tells whether it still waits (RFC 9110 §9.2.1).
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def broken_body(error: BaseException) -> Problem:
    """Return what to answer to a request whose body cannot be read to its end."""
    if isinstance(error, Problem):
        return error
    return BadRequest("The body of the request broke off or does not parse.", hint="Send it whole.")


class ClientEnd:
    """Whether the client of the request in hand is still there. It is ``held`` while nothing of it is under way."""

    __slots__ = ("_is_doubtful", "_peers", "_request", "_transport", "has_ended", "is_held")

    def __init__(self, transport: asyncio.Transport, peers: Peers) -> None:
        self._transport = transport
        self._peers = peers
        self._request: web.BaseRequest | None = None
        self.is_held = False
        # Whether its end was read, and whether a look at it has left open if it still waits.
        self.has_ended = self._is_doubtful = False

    def hold(self, request: web.BaseRequest) -> None:
        """Take a request in hand."""
        self._request = request
        self.end_sending()

    def release(self) -> None:
        """Let go of the request: it knows the connection that knows this, and neither would be freed."""
        self._request = None
        self.is_held = False

    def begin_sending(self) -> None:
        """Look once more, right before the first byte of the request goes upstream.

        Raises:
            ClientLeft: the client has left.
            BadRequest: its body is known to be broken.
        """
        self.look()
        if self._transport.is_closing() or self._request is None:
            raise ClientLeft("The client has left before its request was sent.")
        if (error := self._request.content.exception()) is not None:
            raise broken_body(error) from error
        self.is_held = False

    def end_sending(self) -> None:
        """Hold the request again: it may have to wait for another send."""
        self.is_held, self._is_doubtful = True, False

    @property
    def is_unseen(self) -> bool:
        """Whether the event loop would not see the client leave."""
        return self.has_ended or not self._transport.is_reading()

    def look(self) -> None:
        """Cut off a client that has left, and so what is under way for it.

        A client that closes and one that closes its half only look alike. Where nothing tells them apart, what does no
        harm is sent and answered; a write that waits is not sent.
        """
        client = self._transport.get_extra_info("socket")
        if client is None or self._request is None or self._transport.is_closing():
            return
        found = presence(client, self._peers, has_ended=self.has_ended, has_unread=not self._transport.is_reading())
        # At the second look: a request that goes out at once does not wait.
        was_doubtful, self._is_doubtful = self._is_doubtful, found is Presence.UNTOLD
        is_write = self._request.method not in SAFE
        if found is Presence.LEFT or (found is Presence.UNTOLD and was_doubtful and self.is_held and is_write):
            reset(self._transport)
