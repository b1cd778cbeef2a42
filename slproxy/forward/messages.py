"""Messages: a request as it came and as it was accepted, a reply, and the answer as the client gets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from slproxy.forward.accepted import AcceptedHeaders
from slproxy.forward.body import Body
from slproxy.http import Fields, RawHeaders
from slproxy.observe import Exchange


class Client(Protocol):
    """Who waits for the answer. While its request waits to be sent, it is watched, and given up once it has left."""

    def begin_sending(self, *, waited: float) -> None:
        """Look once more, right before the first byte goes upstream, ``waited`` seconds after the request came.

        Raises ClientLeft: nothing may be sent.
        """

    def begin_last_piece(self) -> None:
        """Look once more, right before the end of the body goes upstream. Raises ClientLeft: it may not be sent."""

    def end_sending(self) -> None:
        """Watch it again: the send is over, and the request may have to wait for another one."""


# What is made for each request is not frozen, and gets its fields by position where that is done: each takes a tenth of
# a microsecond less.


@dataclass(eq=False, slots=True)
class Inbound:
    """A request as the client sent it; ``read`` gives the next bytes of its body, none at its end."""

    method: str
    target: str
    headers: RawHeaders = field(repr=False)
    has_body: bool = False
    length: int | None = None
    read: Callable[[], Awaitable[bytes]] | None = None
    # The uid of the client, where it is another user of this machine (`sockets.Peers.foreign_client`).
    other_user: int | None = None
    client: Client | None = None


@dataclass(eq=False, slots=True)
class Request:
    """A request that was accepted and stripped; each attempt injects what is of its moment."""

    method: str
    target: str
    asked: AcceptedHeaders
    body: Body | None = field(repr=False)
    exchange: Exchange
    # None where the proxy asks for itself.
    client: Client | None = None
    # True for the proxy's own check of a rejected token: no renewal, since one has not helped.
    is_check: bool = False

    @property
    def replayable(self) -> bool:
        """Whether its body can be sent once more."""
        return self.body is None or self.body.replayable


class AnswerBody(Protocol):
    """The body of an answer, as it comes."""

    @property
    def ended(self) -> bool: ...

    def read_nowait(self) -> bytes: ...

    def chunks(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None: ...


class ReplyBody(AnswerBody, Protocol):
    """A reply, as far as answering goes: the upstream's own, or one that was kept."""

    status: int
    reason: str
    headers: RawHeaders

    def header(self, name: str, /) -> str | None:
        """Return the first value of a header, by any case of its name."""


@dataclass(eq=False, slots=True)
class Answer:
    """What the client gets: ``reason`` ``None`` means the standard phrase.

    ``passed`` are SalesLoft's headers as they go over the wire, ``headers`` the proxy's own. ``has_length`` is false
    where none of them says how long the body is; ``has_request_id``: SalesLoft's have an ``X-Request-Id``.
    """

    status: int
    headers: Fields = field(repr=False)
    body: AnswerBody | bytes = field(repr=False)
    reason: str | None = None
    passed: bytes = field(default=b"", repr=False)
    has_length: bool = True
    has_request_id: bool = False
    # The upstream may answer while it still takes the request's body, so that is freed last.
    request_body: Body | None = field(default=None, repr=False)
    close_connection: bool = False
    # Whether it lasts as long as its client wants: nobody waits for its end.
    is_endless: bool = False

    def close(self) -> None:
        """Free what the answer held, read to its end or not; its head may be looked at for longer."""
        if not isinstance(self.body, bytes):
            self.body.close()
            self.body = b""
        if self.request_body is not None:
            self.request_body.close()
            self.request_body = None
