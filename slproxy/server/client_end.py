"""Client's end of a connection: watched while its request waits to be sent, so that nothing is sent for nobody.

The event loop sees an end or a reset only of a connection that it reads. It does not read behind a body that nobody
takes for now, nor behind an end; there the socket is looked at, every so often and right before a request is sent.
"""

from __future__ import annotations

import asyncio
import contextlib

from slproxy.errors import BadRequest, ClientLeft, Problem
from slproxy.server.client_request import ClientRequest
from slproxy.server.response import reset
from slproxy.sockets import HERE, Peers, Presence, presence

# What is sent for a client of whom nothing tells whether it still waits (RFC 9110 §9.2.1).
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# What takes no longer has not waited, in seconds.
AT_ONCE = 0.005


def broken_body(error: BaseException) -> Problem:
    """Return what to answer to a request whose body cannot be read to its end."""
    if isinstance(error, Problem):
        return error
    return BadRequest("The body of the request broke off or does not parse.", hint="Send it whole.")


class ClientEnd:
    """Whether the client of the request in hand is still there. It ``is_held`` while nothing of it is under way."""

    __slots__ = ("_is_local", "_peers", "_request", "_seen_waiting", "_transport", "has_ended", "is_held")

    def __init__(self, transport: asyncio.Transport, peers: Peers, *, is_local: bool) -> None:
        """``is_local``: the kernel knows who has the client's socket open."""
        self._transport = transport
        self._peers, self._is_local = peers, is_local
        self._request: ClientRequest | None = None
        self._seen_waiting = 0
        self.is_held = False
        # Whether its end was read.
        self.has_ended = False

    def hold(self, request: ClientRequest) -> None:
        """Take a request in hand."""
        self._request, self._seen_waiting, self.is_held = request, 0, True

    def release(self) -> None:
        """Let go of the request: it knows the connection that knows this, and neither would be freed."""
        self._request, self.is_held = None, False

    def begin_sending(self, *, waited: float) -> None:
        """Look once more, right before the first byte of the request goes upstream, ``waited`` seconds after it came.

        Raises:
            ClientLeft: the client has left.
            BadRequest: its body is known to be broken.
        """
        request = self._request
        # What goes out at once, and does no harm if it goes out for nobody, is not worth a look: that takes 2 % of its
        # time.
        if (
            request is None
            or waited >= AT_ONCE
            or request.method not in SAFE
            or self.has_ended
            or not request.body.is_eof()
            or not self._transport.is_reading()
        ):
            body = self._look(is_unsent=True).body
            if (error := body.exception()) is not None:
                raise broken_body(error) from error
        self.is_held = False

    def begin_last_piece(self) -> None:
        """Look once more, right before the end of the body goes upstream. Raises ClientLeft."""
        self._look(is_unsent=True)

    def end_sending(self) -> None:
        """Hold the request again: it may have to wait for another send."""
        self.is_held = True

    def watch(self) -> None:
        """Look every so often, where the event loop would not see the client leave."""
        if self._request is None or self._transport.is_closing():
            return
        is_unread = not self._transport.is_reading()
        # It waits for the proxy, and not for the rest of its own body.
        self._seen_waiting += self.is_held and (is_unread or self._request.body.is_eof())
        if self.has_ended or is_unread:
            with contextlib.suppress(ClientLeft):  # its request is cancelled
                self._look(is_unsent=self.is_held)

    def _look(self, *, is_unsent: bool) -> ClientRequest:
        """Return the request of a client that is there. Cut off one that has left, and so what is under way for it.

        A client that closes and one that closes its half only look alike. Where nothing tells them apart, what does no
        harm is sent and answered; a write that has waited is not sent.

        Raises:
            ClientLeft: it has left.
        """
        request, client = self._request, self._transport.get_extra_info("socket")
        if request is None or client is None or self._transport.is_closing():
            raise ClientLeft("The client has left while its request waited.")
        found = presence(
            client,
            self._peers,
            is_local=self._is_local,
            has_ended=self.has_ended,
            has_unread=not self._transport.is_reading(),
        )
        if found is HERE:
            return request
        # Seen twice: one that ends with a request that goes out at once has not waited.
        is_doubtful = is_unsent and self._seen_waiting >= 2 and request.method not in SAFE
        if found is Presence.LEFT or (found is Presence.UNKNOWN and is_doubtful):
            reset(self._transport)
            raise ClientLeft("The client has left while its request waited.")
        return request
