"""The connection pool: how a connection is made, verified and taken up again."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import asyncio.sslproto
import functools
import select
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

from slproxy.config import UpstreamSettings
from slproxy.errors import ConfigError
from slproxy.upstream.framing import ReplyWatch
from slproxy.upstream.reuse import MAX_SILENCE, Era, last_heard, may_carry, watch_peer

if TYPE_CHECKING:
    from aiohttp.connector import Connection

# An idle connection is given up before common servers give theirs up (nginx: 75 s), which spares most stale ones.
POOL_KEEPALIVE = 50.0
# What the kernel may hold of a reply, in bytes; Linux doubles it (socket(7)). asyncio reads as much in one go, and two
# such pieces are in memory for a client that does not read. 64 KiB a round trip are plenty for pages of an API.
RECEIVE_BUFFER = 32 * 1024
# The same for TLS, whose buffers are asyncio's own.
TLS_READ_AHEAD = 16 * 1024
# What asyncio allocates for a TLS connection, and for one read of any connection, in bytes.
TLS_BUFFER = 32 * 1024
READ_SIZE = 32 * 1024


def new_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Make the socket of a new connection, with a small buffer (``RECEIVE_BUFFER``)."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


class Lookups:
    """Looks names up in the loop's executor, whatever the loop.

    uvloop has threads of its own for it, which the end of the process waits for: a resolver that hangs holds it up.
    """

    async def getaddrinfo(self, host: str, port: int, **options: int) -> list[tuple[object, ...]]:
        return list(await asyncio.to_thread(socket.getaddrinfo, host, port, **options))

    async def getnameinfo(self, address: tuple[str, int, int, int], flags: int = 0) -> tuple[str, str]:
        return await asyncio.to_thread(socket.getnameinfo, address, flags)


class UpstreamProtocol(ResponseHandler):
    """A connection whose replies are checked as their bytes arrive, before aiohttp's parser has mended them."""

    watch: ReplyWatch | None = None
    made_in = 0
    # When it went back to the pool, in loop time.
    idle_since = 0.0

    def data_received(self, data: bytes) -> None:
        if self.watch is not None:
            self.watch.feed(data)
            if self.watch.is_faulty:
                self.set_exception(HttpProcessingError(message="a reply that can be read in two ways"))
                if self.transport is not None:
                    self.transport.abort()  # which breaks the body that was on its way
                return
        super().data_received(data)


class Connector(aiohttp.TCPConnector):
    """A pool that never hands out a connection which has died while it was idle, as far as that can be known."""

    bodies: WeakKeyDictionary[ResponseHandler, _Body]
    era: Era

    async def take(
        self, origin: aiohttp.ClientRequest, within: aiohttp.ClientTimeout, *, repeatable: bool
    ) -> Connection:
        """Return a connection to ``origin``, one whose peer is there as far as can be known."""
        while True:
            # Looked at before a connection is made: one that was made before a sleep is older than it.
            era = self.era.current()
            connection = await self.connect(origin, [], within)
            protocol = connection.protocol
            assert isinstance(protocol, UpstreamProtocol), "a connection in hand has a protocol, which is ours"
            # Only one that has carried a request can have died while idle. On a new one, bytes that wait to be read
            # are TLS 1.3 session tickets (RFC 8446 §4.6.1), not an end of file.
            if protocol not in self.bodies:
                self.bodies[protocol] = body = _Body()
                protocol.made_in = era
                if protocol.closed is not None:
                    protocol.closed.add_done_callback(body.on_closed)
                # Only TLS transports have it: by default they decrypt 256 KiB ahead of a protocol that has paused.
                if (limit := getattr(connection.transport, "set_read_buffer_limits", None)) is not None:
                    limit(TLS_READ_AHEAD)
                watch_peer(socket_of(connection))
                return connection
            # Bytes that came while it was idle are an answer to nothing, such as a load balancer's 408: the next
            # request must not get them. aiohttp may have read them already (`should_close`), or not yet.
            if not protocol.should_close and not is_readable(connection):
                idle = asyncio.get_running_loop().time() - protocol.idle_since
                heard = last_heard(socket_of(connection)) if idle >= MAX_SILENCE else 0.0
                if may_carry(made_in=protocol.made_in, era=era, repeatable=repeatable, idle=idle, heard=heard):
                    return connection
            connection.close()


def socket_of(connection: Connection) -> socket.socket:
    """Return the socket below a connection, TLS or not."""
    assert connection.transport is not None, "a connection in hand has a transport"
    sock: socket.socket = connection.transport.get_extra_info("socket")
    return sock


class _Body:
    """The body that is being read from a connection: it fails when the connection ends within it.

    aiohttp forgets it when a later chunk does not parse: in ``_http_parser.pyx``, ``feed_data`` drops its payload
    before it raises, ``connection_lost`` finds none to tell, and the reader waits until its own timeout.
    """

    content: aiohttp.StreamReader | None = None

    def on_closed(self, closed: asyncio.Future[None]) -> None:
        """Fail a body that the connection leaves unfinished."""
        if not closed.cancelled():
            closed.exception()  # retrieved, or asyncio would complain that nobody did
        # Let go of: it knows the connection that `bodies` knows it by, and neither would ever be freed.
        content, self.content = self.content, None
        if content is None or content.exception() is not None:
            return
        if not content.is_eof():
            content.set_exception(aiohttp.ClientPayloadError("the connection closed within a body"))


def is_readable(connection: Connection) -> bool:
    """Return whether the socket has something to read: on an idle connection, its end or bytes not asked for."""
    transport = connection.transport
    if transport is None or transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def connector(rules: UpstreamSettings, suspended: Callable[[], float]) -> Connector:
    """Make the pool of connections to the API's and the accounts' host."""
    # asyncio zeroes 256 KiB for each TLS connection, and there is no parameter for it (asyncio/sslproto.py).
    asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER
    # Nor for this: it allocates 256 KiB for each read, on the clients' side as well, and gives back what it did not
    # need, which leaves holes in the C heap (asyncio/selector_events.py; benchmarks/README.md, Soak).
    asyncio.selector_events._SelectorTransport.max_size = READ_SIZE  # type: ignore[attr-defined]  # noqa: SLF001
    pool = Connector(
        limit=0,
        keepalive_timeout=POOL_KEEPALIVE,
        ssl=_tls_context(rules),
        socket_factory=new_socket,
        # All that it asks of a loop are lookups.
        resolver=aiohttp.ThreadedResolver(loop=cast("asyncio.AbstractEventLoop", Lookups())),
    )
    # There is no parameter for the protocol that a connection gets (aiohttp/connector.py, BaseConnector.__init__).
    pool._factory = functools.partial(UpstreamProtocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # noqa: SLF001
    pool.bodies = WeakKeyDictionary()
    pool.era = Era(suspended)
    return pool


def _tls_context(rules: UpstreamSettings) -> ssl.SSLContext | bool:
    """Return how certificates are verified: against the system's CAs, and ``ca_file`` besides."""
    if not rules.api_url.startswith("https:") and not rules.accounts_url.startswith("https:"):
        return True  # loopback only; reading the system's CAs takes 20 ms
    context = ssl.create_default_context()
    if rules.ca_file is not None:
        try:
            context.load_verify_locations(cafile=rules.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"upstream.ca_file: {rules.ca_file} is not a file of PEM certificates.", hint="Export the CA as PEM."
            ) from error
    return context
