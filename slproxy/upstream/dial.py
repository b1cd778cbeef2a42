"""Dial: how a connection to the upstream is made and verified.

1. Every address of a name gets its chance (RFC 8305).
2. The certificate is verified before a byte of the request, and so of the token, is written; no setting turns it off.
3. A session of TLS is resumed where the host allows it. Its certificate was verified when it began, by the same rules.
4. Where an egress proxy is set, all but this machine is reached through it (``Tunnel``), by name and with TLS from
   end to end: the proxy sees where to, and nothing else.
5. Foreign exceptions end here, as an ``UpstreamFault`` whose ``maybe_sent`` is false.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import urlsplit

from slproxy.config import EgressProxy, UpstreamSettings
from slproxy.errors import ConfigError, UpstreamUnreachable
from slproxy.upstream.addresses import Names, connect
from slproxy.upstream.connect_faults import connect_fault, proxy_fault
from slproxy.upstream.tls import Tls
from slproxy.upstream.tunnel import Tunnel

P = TypeVar("P", bound=asyncio.BufferedProtocol)

# What is read of a TLS connection in one go, in bytes: four records of the largest size (RFC 8446 §5.1).
READ_SIZE = 64 * 1024
# A session is resumed for so long after a certificate was verified for it, in seconds; then one is looked at again.
SESSION_LIFETIME = 3600.0


@dataclass(frozen=True, slots=True, eq=False)  # each is itself: the pool looks it up for each request
class Origin:
    """Where requests go; ``authority`` is what ``Host`` says."""

    scheme: str
    host: str
    port: int
    authority: str

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the origin of a URL that the settings have checked."""
        parts = urlsplit(url)
        return cls(parts.scheme, parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443), parts.netloc)


class Dialer:
    """Makes connections: names, addresses, TLS."""

    def __init__(self, rules: UpstreamSettings) -> None:
        """Raises ConfigError where ``upstream.ca_file`` holds no certificates."""
        self._rules = rules
        # Before it is loaded: what is written meanwhile is another one.
        self._ca = _ca(rules)
        self._context = _tls_context(rules)
        self._names = Names()
        self._buffer = memoryview(bytearray(READ_SIZE))
        # What may be resumed with a host and port, and until when, in loop time.
        self._sessions: dict[tuple[str, int], tuple[float, ssl.SSLSession]] = {}

    @property
    def has_old_ca(self) -> bool:
        """Whether ``upstream.ca_file`` holds something else than when it was loaded. Reads the file."""
        return _ca(self._rules) != self._ca

    async def dial(self, origin: Origin, make: Callable[[], P]) -> P:
        """Return the protocol of a new connection: connected, its certificate verified, no byte of a request written.

        What ``make`` makes is told ``connection_made`` when all that is done. Its transport reads and writes plain
        bytes, whether there is TLS below or not, and ``get_extra_info("socket")`` is the socket.

        Raises:
            UpstreamFault: there is none within ``upstream.connect_timeout``; the cause is the foreign exception.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._rules.connect_timeout
        proxy = self._rules.proxy.proxy_for(origin.host)
        if proxy is not None:
            transport = await self._tunnel(proxy, origin, deadline)
            async with _until(deadline, functools.partial(connect_fault, through=proxy)):
                with _aborted_on_error(transport):
                    tls = self._tls(origin.host, origin.port, make)
                    transport.set_protocol(tls)
                    tls.connection_made(transport)
                    return await tls.secured
        async with _until(deadline, connect_fault):
            sock = await self._connect(origin.host, origin.port)
            if origin.scheme == "http":
                _, protocol = await _over(sock, make)
                return protocol
            transport, tls = await _over(sock, functools.partial(self._tls, origin.host, origin.port, make))
            with _aborted_on_error(transport):
                return await tls.secured

    async def check_proxy(self, origin: Origin) -> None:
        """Have the egress proxy open a connection to the origin, and close it. Raises UpstreamFault."""
        if (proxy := self._rules.proxy.proxy_for(origin.host)) is not None:
            deadline = asyncio.get_running_loop().time() + self._rules.connect_timeout
            (await self._tunnel(proxy, origin, deadline)).abort()

    async def _tunnel(self, proxy: EgressProxy, origin: Origin, deadline: float) -> asyncio.Transport:
        """Return a connection that ends at the origin, although a proxy carries it. Nobody here resolves its name."""
        named_in = self._rules.proxy.named_in
        ask = functools.partial(Tunnel, proxy, origin.host, origin.port, named_in=named_in)
        async with _until(deadline, lambda error: proxy_fault(error, proxy, named_in)):
            sock = await self._connect(proxy.host, proxy.port)
            if proxy.scheme == "http":
                transport, tunnel = await _over(sock, ask)
            else:
                transport, tls = await _over(sock, functools.partial(self._tls, proxy.host, proxy.port, ask))
                with _aborted_on_error(transport):
                    tunnel = await tls.secured
                transport = tls
        with _aborted_on_error(transport):
            async with _until(deadline, tunnel.fault_of):
                await tunnel.opened
        return transport

    async def _connect(self, host: str, port: int) -> socket.socket:
        try:
            return await connect(await self._names.addresses(host, port))
        except OSError:
            self._names.forget(host, port)
            raise

    def _tls(self, host: str, port: int, make: Callable[[], P]) -> Tls[P]:
        assert self._context is not None, "made where an origin is https"
        key, now = (host, port), asyncio.get_running_loop().time()
        until, session = self._sessions.get(key, (0.0, None))

        def keep_session(fresh: ssl.SSLSession, is_resumed: bool) -> None:
            self._sessions[key] = (until if is_resumed else now + SESSION_LIFETIME, fresh)

        return Tls(
            self._context,
            host.removesuffix("."),  # certificates do not spell the root's
            make,
            self._buffer,
            session=session if now < until else None,
            keep_session=keep_session,
        )


Q = TypeVar("Q", bound=asyncio.BaseProtocol)


@contextlib.asynccontextmanager
async def _until(deadline: float, fault_of: Callable[[Exception], UpstreamUnreachable]) -> AsyncIterator[None]:
    """Give a stage the time that is left, and translate what goes wrong in it."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except (OSError, UnicodeError) as error:  # the second of a label that no name can have
        raise fault_of(error) from error


async def _over(sock: socket.socket, make: Callable[[], Q]) -> tuple[asyncio.Transport, Q]:
    """Return a transport over a connected socket, which is closed where there is none."""
    try:
        return await asyncio.get_running_loop().create_connection(make, sock=sock)
    except BaseException:
        sock.close()
        raise


@contextlib.contextmanager
def _aborted_on_error(transport: asyncio.Transport) -> Iterator[None]:
    """Close a connection that does not come to anything."""
    try:
        yield
    except BaseException:
        transport.abort()
        raise


def _ca(rules: UpstreamSettings) -> bytes | None:
    with contextlib.suppress(OSError):
        return None if rules.ca_file is None else rules.ca_file.read_bytes()
    return None


def _tls_context(rules: UpstreamSettings) -> ssl.SSLContext | None:
    """Return how certificates are verified: against the system's CAs, and ``ca_file`` besides."""
    if not rules.api_url.startswith("https:") and not rules.accounts_url.startswith("https:"):
        return None  # loopback only; reading the system's CAs takes 20 ms
    context = ssl.create_default_context()
    # A renegotiation, which TLS 1.3 did away with, would want to read in the middle of a write.
    context.options |= ssl.OP_NO_RENEGOTIATION
    if rules.ca_file is not None:
        try:
            context.load_verify_locations(cafile=rules.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"upstream.ca_file: {rules.ca_file} is not a file of PEM certificates.", hint="Export the CA as PEM."
            ) from error
    return context
