"""Sends one request to the upstream, once. The only module that knows aiohttp's client.

1. The target goes out byte for byte, to one fixed origin. No URL is joined or normalised, and no redirect followed.
2. One call is one request on the wire. A pooled connection that died while it was idle is noticed before a byte is
   written, and replaced.
3. Nothing is added: no User-Agent, Accept, Content-Type or Content-Length that the client did not send; no cookies;
   nothing is decompressed.
4. Foreign exceptions end here: whatever aiohttp raises becomes an ``UpstreamFault`` that knows whether a byte of the
   request may have left.
5. The certificate is verified before a byte of the request, and so of the token, is written; no setting turns it off.

It stands on aiohttp's connector (names, TLS, the pool) and response parser, not on its session. The session repeats
idempotent requests by itself (``retry_persistent_connection``), merges headers that differ in case only
(``_prepare_headers``), adds ``Content-Length: 0`` to a POST without a body, and takes a third of a request's time
(benchmarks/README.md); for none of these it has a switch.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import asyncio.sslproto
import functools
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from slproxy.auth import Form, TokenEndpointReply
from slproxy.config import UpstreamSettings
from slproxy.errors import ConfigError, Overloaded
from slproxy.upstream.faults import STALLED, EvictedError, evicted, fault_of, not_http
from slproxy.upstream.pool import KEEPALIVE, Connector, Slot, UpstreamProtocol, new_socket
from slproxy.upstream.round_trip import Outbound, Reply, RoundTrip

if TYPE_CHECKING:
    from types import TracebackType


# An answer of the accounts host, in bytes and in seconds from the first to its last byte, the connecting included.
MAX_ANSWER = 64 * 1024
ANSWER_TIMEOUT = 10.0
MAKE_ROOM_EVERY = 0.1
READ_SIZE = 32 * 1024
TLS_BUFFER = 32 * 1024


class _Origin:
    """Where requests go: fixed at the start, so that nothing a client sends can change it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        # What aiohttp's connector knows an origin by. It is never sent.
        self.request = aiohttp.ClientRequest("GET", URL(url), loop=asyncio.get_running_loop())


class Upstream:
    """The way to SalesLoft: a pool of connections to the API's and to the accounts' origin."""

    _connector: Connector
    _api: _Origin
    _accounts: _Origin

    def __init__(self, rules: UpstreamSettings) -> None:
        self._rules = rules
        self._connect_timeout = aiohttp.ClientTimeout(connect=rules.connect_timeout)
        # The pool itself is unlimited: a wait for a free connection is the proxy's, and must not look like a timeout of
        # the upstream (docs/hazards.md, trap 13).
        self._free = asyncio.Semaphore(rules.max_connections)
        self._lines: set[RoundTrip] = set()
        self._waiting = 0
        self._making_room: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        # asyncio zeroes 256 KiB for each TLS connection, and there is no parameter for it (asyncio/sslproto.py).
        asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER
        # Nor for this: it allocates 256 KiB for each read, on the clients' side as well, and gives back what it did not
        # need, which leaves holes in the C heap (asyncio/selector_events.py; benchmarks/README.md, Soak).
        asyncio.selector_events._SelectorTransport.max_size = READ_SIZE  # type: ignore[attr-defined]  # noqa: SLF001
        self._connector = connector = Connector(
            limit=0, keepalive_timeout=KEEPALIVE, ssl=_ssl_context(self._rules), socket_factory=new_socket
        )
        # There is no parameter for the protocol that a connection gets (aiohttp/connector.py, BaseConnector.__init__).
        connector._factory = functools.partial(UpstreamProtocol, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # noqa: SLF001
        connector.bodies = WeakKeyDictionary()
        self._api, self._accounts = _Origin(self._rules.api_url), _Origin(self._rules.accounts_url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connector.close()

    async def send(self, outbound: Outbound, slot: Slot, *, patience: float) -> Reply:
        """Send one request to the API and return the head of its reply, whatever its status.

        The head is waited for as long as ``upstream.response_timeout``, or ``patience`` if that is less, in seconds.
        The slot is freed once the reply is done with; where there is none, by the caller.

        Raises:
            UpstreamFault: there was no reply.
            Overloaded: the connection had to be given up for others.
        """
        timeout = min(self._rules.response_timeout, patience)
        return await self._send(self._api, outbound, response_timeout=timeout, on_close=slot.free)

    async def slot(self) -> Slot:
        """Wait for one of ``upstream.max_connections``, no longer than for a reply.

        Raises:
            Overloaded: none came free in time.
        """
        if not self._free.locked():
            await self._free.acquire()
            return Slot(self._free)
        since = asyncio.get_running_loop().time()
        self._waiting += 1
        if self._making_room is None:
            self._make_room()
        try:
            async with asyncio.timeout(self._rules.response_timeout):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded(
                f"All of upstream.max_connections were in use for {self._rules.response_timeout:g} s.",
                hint="Send fewer requests at a time, or raise the limit.",
                headers=(("Retry-After", "1"),),
            ) from error
        finally:
            self._waiting -= 1
        return Slot(self._free, waited=asyncio.get_running_loop().time() - since)

    def _make_room(self) -> None:
        """As long as somebody waits for a connection, take those that stalled clients hold, the longest first.

        A few hundred clients that read nothing would otherwise keep everybody else out for as long as they like.
        """
        self._making_room = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        stalled = sorted(
            (line for line in self._lines if line.idle_for(now) >= STALLED), key=lambda line: -line.idle_for(now)
        )
        for line in stalled[: self._waiting]:
            line.give_way()
        self._making_room = loop.call_later(MAKE_ROOM_EVERY, self._make_room)

    async def post_form(self, form: Form) -> TokenEndpointReply:
        """Post a form to the accounts host and return its whole answer.

        Raises:
            UpstreamFault: there was no answer, or none within ``ANSWER_TIMEOUT``.
        """
        body = form.encode()
        headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        outbound = Outbound(method="POST", target=form.path, headers=headers, body=body)
        content = b""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                reply = await self._send(
                    self._accounts, outbound, response_timeout=ANSWER_TIMEOUT, on_close=lambda: None
                )
                try:
                    async for chunk in reply.chunks():
                        content += chunk
                        if len(content) > MAX_ANSWER:  # no answer of a token endpoint; what is cut off reads as none
                            break
                finally:
                    reply.close()
        except TimeoutError as error:
            raise fault_of(error, reached=True, patience=ANSWER_TIMEOUT) from error
        return TokenEndpointReply(status=reply.status, headers=_by_name(reply), body=content)

    async def glance(self, *, accounts: bool) -> TokenEndpointReply:
        """Ask one of the two hosts for its front page, without a token, and return what it says but for the body.

        Raises UpstreamFault: it cannot be reached, or is not who it should be.
        """
        outbound = Outbound(method="GET", target="/", headers=[("Accept", "*/*")])
        reply = await self._send(
            self._accounts if accounts else self._api,
            outbound,
            response_timeout=ANSWER_TIMEOUT,
            on_close=lambda: None,
        )
        reply.close()
        return TokenEndpointReply(status=reply.status, headers=_by_name(reply), body=b"")

    async def _send(
        self, origin: _Origin, outbound: Outbound, *, response_timeout: float, on_close: Callable[[], None]
    ) -> Reply:
        """Make the one physical send; ``on_close`` is called once the reply is done with."""
        head = _head(outbound, origin.host)
        line: RoundTrip | None = None
        try:
            connection = await self._connector.connect(origin.request, [], self._connect_timeout)
            line = RoundTrip(connection, on_close, self._lines)
            message, content = await line.exchange(head, outbound, response_timeout=response_timeout)
            if message.code < 200:
                # 101 without having asked for an upgrade, which is not passed on (RFC 9110 §15.2.2).
                raise not_http()
            if not content.is_eof():
                self._connector.bodies[line.protocol].content = content
            return Reply(message, content, line, idle_timeout=self._rules.idle_timeout)
        except BaseException as error:
            if line is not None:
                line.close(keep=False)  # which frees what it held; the caller does where there was none
            if isinstance(error, EvictedError):
                raise evicted() from error
            if isinstance(error, aiohttp.ClientError | HttpProcessingError | OSError):
                reached = line is not None and line.reached
                raise fault_of(error, reached=reached, patience=response_timeout) from error
            raise


def _by_name(reply: Reply) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reply.headers}


def _head(outbound: Outbound, host: str) -> bytes:
    """Return the request line and headers as they go over the wire."""
    lines = [f"{outbound.method} {outbound.target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in outbound.headers]
    if callable(outbound.body) and not any(name.lower() == "content-length" for name, _ in outbound.headers):
        lines.append("Transfer-Encoding: chunked")
    head = "\r\n".join([*lines, "", ""])
    # No header that the parser or the settings let through holds a line end; one that did would be a second request.
    if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
        raise ValueError("a line end within a header")
    return head.encode("utf-8")


def _ssl_context(rules: UpstreamSettings) -> ssl.SSLContext | bool:
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
