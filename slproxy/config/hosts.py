"""Hosts and web origins, as settings and browsers spell them."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType

# The default port of a scheme.
PORTS = MappingProxyType({"http": 80, "https": 443})
# A label has 1 to 63 characters (RFC 1035 §2.3.4); Python cannot even look another one up.
_LABEL = r"[A-Za-z0-9_-]{1,63}"
HOST = rf"\[[0-9A-Fa-f:.]+\]|(?!-){_LABEL}(?:\.{_LABEL})*(?<!-)\.?"
_NAME = re.compile(HOST)
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://({HOST})(?::([0-9]{{1,5}}))?", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``: localhost and names below it (RFC 6761 §6.3), 127.0.0.0/8, ::1."""
    name = host.strip("[]").removesuffix(".").lower()
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def bare_host(value: str) -> str | None:
    """Return the host as a Host header spells it, in lower case; None if it is more or less than a host."""
    try:
        address = ip_address(value.removeprefix("[").removesuffix("]"))
        return f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        return value.lower().removesuffix(".") if _NAME.fullmatch(value) and value[0] != "[" else None


def parse_origin(value: str) -> tuple[str, str, str] | None:
    """Return scheme, host and ``:port`` as browsers spell an origin (RFC 6454 §6.1), None where it is none."""
    match = _ORIGIN.fullmatch(value)
    if not match:
        return None
    scheme, host = match[1].lower(), match[2].lower()
    try:
        name = f"[{IPv6Address(host[1:-1])}]" if host.startswith("[") else host
    except ValueError:
        return None
    if match[3] is None:
        return scheme, name, ""
    port = int(match[3])
    if not 1 <= port <= 65535:
        return None
    return scheme, name, "" if PORTS.get(scheme) == port else f":{port}"
