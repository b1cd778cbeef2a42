"""Egress: which connections go through a proxy, such as a company's, as curl reads its variables.

1. ``https_proxy`` goes before ``HTTPS_PROXY``, ``all_proxy`` and ``ALL_PROXY``, ``no_proxy`` before ``NO_PROXY``; an
   empty one counts as none. ``HTTP_PROXY`` is not read: http is for loopback hosts, which no proxy can reach.
2. Only the real environment counts: a found ``.env`` must not decide who carries the token.
3. What a URL of a proxy holds is checked only where it would be used.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from types import MappingProxyType
from typing import Literal
from urllib.parse import unquote_to_bytes

from slproxy.config.api_key import check_no_api_key
from slproxy.config.hosts import HOST, is_loopback
from slproxy.config.secret import MASK, Secret
from slproxy.errors import ConfigError

PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
EXEMPT_VARIABLES = ("no_proxy", "NO_PROXY")
# What a proxy listens on where its URL has no port, as in curl: 1080 is SOCKS' own, and stayed.
_PORTS: Mapping[str, int] = MappingProxyType({"http": 1080, "https": 443})
_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://|(?!.*://))(?:(?P<user>[^\s/?#@]*)@)?"
    rf"(?P<host>{HOST})(?::(?P<port>[0-9]{{0,5}}))?(?:[/?#].*)?",
    re.IGNORECASE,
)
_URL_HINT = "such as http://proxy.company.test:3128, or http://USER:PASSWORD@…, with %40 for an @ in them"


@dataclass(frozen=True, kw_only=True)
class EgressProxy:
    """A proxy that opens connections for others (CONNECT, RFC 9110 §9.3.6)."""

    scheme: Literal["http", "https"]
    # Without the brackets of an IPv6 address.
    host: str
    port: int
    # The value of Proxy-Authorization (RFC 7617).
    credentials: Secret | None = None

    @property
    def name(self) -> str:
        """What messages call it: its host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{f'{MASK}@' if self.credentials else ''}{self.name}"


@dataclass(frozen=True, kw_only=True)
class Egress:
    """The setting ``upstream.proxy``, and what the environment adds to it."""

    mode: Literal["env", "off", "url"] = "env"
    proxy: EgressProxy | None = None
    # Where the proxy's URL stands: a variable, or the setting.
    named_in: str = ""
    # The list of those that are reached without it, as in NO_PROXY, and the variable that has it.
    exempt: str = ""
    exempt_in: str = ""

    @property
    def has_password(self) -> bool:
        """Whether the setting is a secret."""
        return self.proxy is not None and self.proxy.credentials is not None

    def __str__(self) -> str:
        return str(self.proxy) if self.proxy else self.mode

    def proxy_for(self, host: str) -> EgressProxy | None:
        """Return the proxy by which ``host`` is reached, None where it is reached directly."""
        return None if self.proxy is None or is_loopback(host) or exempts(self.exempt, host) else self.proxy

    def why(self, host: str) -> str:
        """Say why ``host`` is reached as it is."""
        if self.mode == "off":
            return "upstream.proxy is off"
        if not self.named_in:
            return "no proxy is set"
        if is_loopback(host):
            return "it is this machine"
        if exempts(self.exempt, host):
            return f"{self.exempt_in} names it"
        return self.named_in


# What holds where nothing is set.
FROM_ENVIRONMENT = Egress()


def parsed_egress(value: str) -> Egress:
    """Return what ``upstream.proxy`` says. Raises ConfigError, worded to follow its name."""
    if value.lower() in ("env", "off"):
        return Egress(mode="off" if value.lower() == "off" else "env")
    return Egress(mode="url", proxy=_parsed_proxy(value), named_in="upstream.proxy")


def from_environment(environ: Mapping[str, str], hosts: Iterable[str]) -> Egress:
    """Return what the environment says, as far as it matters to any of the ``hosts``. Raises ConfigError."""
    name, url = _first(environ, PROXY_VARIABLES)
    exempt_in, exempt = _first(environ, EXEMPT_VARIABLES)
    proxy = None
    if url and not all(is_loopback(host) or exempts(exempt, host) for host in hosts):
        try:
            proxy = _parsed_proxy(url)
        except ConfigError as refused:
            hint = f"{refused.hint}; or set upstream.proxy, to another one or to off"
            raise ConfigError(f"{name}: {refused.detail}", hint=hint) from refused
    return Egress(proxy=proxy, named_in=name, exempt=exempt, exempt_in=exempt_in)


def _first(environ: Mapping[str, str], names: Iterable[str]) -> tuple[str, str]:
    return next(((name, value) for name in names if (value := environ.get(name, ""))), ("", ""))


def _parsed_proxy(url: str) -> EgressProxy:
    match = _URL.fullmatch(url)
    # Never shown: it may hold a password.
    if match is None:
        raise ConfigError("is no URL of a proxy", hint=_URL_HINT)
    check_no_api_key(match["host"])
    scheme = (match["scheme"] or "http").lower()
    if scheme not in _PORTS:
        raise ConfigError(
            f"{scheme} is no kind of proxy that slproxy can use: expected http or https",
            hint="most companies' proxies speak HTTP as well: ask for that address, or put one that does before it",
        )
    host = match["host"].strip("[]").lower()
    try:
        host = str(IPv6Address(host)) if ":" in host else host
    except ValueError:
        raise ConfigError("holds no host", hint=_URL_HINT) from None
    port = int(match["port"] or _PORTS[scheme])
    if not 1 <= port <= 65535:
        raise ConfigError(f"{port} is no port", hint=_URL_HINT)
    credentials = None
    if match["user"] is not None:
        user, _, password = match["user"].partition(":")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        credentials = Secret(f"Basic {b64encode(pair).decode()}")
    return EgressProxy(scheme="https" if scheme == "https" else "http", host=host, port=port, credentials=credentials)


def exempts(listed: str, host: str) -> bool:
    """Tell whether a list as in NO_PROXY names a host.

    ``*`` alone is every host. A name is itself and all below it, with a leading dot or without. An address is itself,
    or with ``/bits`` its network. Ports and patterns are nothing: curl knows neither.
    """
    if listed == "*":
        return True
    name = host.strip("[]").lower().removesuffix(".")
    try:
        address = ip_address(name)
    except ValueError:
        return any(_is_below(name, item.lower()) for item in _items(listed))
    return any(_is_in(address, item) for item in _items(listed))


def _items(listed: str) -> list[str]:
    return [item for item in re.split(r"[ \t,]+", listed) if item]


def _is_below(name: str, item: str) -> bool:
    domain = item.removesuffix(".").removeprefix(".")
    return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def _is_in(address: IPv4Address | IPv6Address, item: str) -> bool:
    network, _, bits = item.partition("/")
    try:
        # To curl, 0 bits and what is no number are no bits at all.
        size = int(bits) if bits.isdecimal() and int(bits) else address.max_prefixlen
        return address in ip_network(f"{network}/{size}", strict=False)
    except ValueError:
        return False
