"""Dial: how a connection to the upstream is made and verified."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import urlsplit

from slproxy.config import UpstreamSettings
from slproxy.errors import ConfigError

P = TypeVar("P", bound=asyncio.BaseProtocol)


@dataclass(frozen=True, slots=True)
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
        self._rules = rules
        self._tls = _tls_context(rules)

    async def dial(self, origin: Origin, make: Callable[[], P]) -> P:
        """Return the protocol of a new connection whose certificate is good.

        Raises:
            UpstreamFault: there is none within ``upstream.connect_timeout``.
        """
        loop = asyncio.get_running_loop()
        tls = self._tls if origin.scheme == "https" else None
        async with asyncio.timeout(self._rules.connect_timeout):
            infos = await asyncio.to_thread(socket.getaddrinfo, origin.host, origin.port, type=socket.SOCK_STREAM)
            _, protocol = await loop.create_connection(
                make, infos[0][4][0], origin.port, ssl=tls, server_hostname=origin.host if tls else None
            )
        return protocol


def _tls_context(rules: UpstreamSettings) -> ssl.SSLContext | None:
    """Return how certificates are verified: against the system's CAs, and ``ca_file`` besides."""
    if not rules.api_url.startswith("https:") and not rules.accounts_url.startswith("https:"):
        return None  # loopback only; reading the system's CAs takes 20 ms
    context = ssl.create_default_context()
    if rules.ca_file is not None:
        try:
            context.load_verify_locations(cafile=rules.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"upstream.ca_file: {rules.ca_file} is not a file of PEM certificates.", hint="Export the CA as PEM."
            ) from error
    return context
