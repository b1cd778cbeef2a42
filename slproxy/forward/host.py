"""Host: the names by which the proxy is called."""

from __future__ import annotations

import functools
import ipaddress
import re

# A name in DNS has 253 characters at most (RFC 1035 §2.3.4); a port and its colon six.
MAX_HOST = 260
# No digit behind the colon is the scheme's own port (RFC 3986 §3.2.3).
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?")


def is_own_host(accept_hosts: frozenset[str], host: str) -> bool:
    """Tell whether ``host`` is a loopback name or an accepted one, with any port or none: ports get mapped."""
    return len(host) <= MAX_HOST and _is_own_host(accept_hosts, host)


# A client calls the proxy by one name, request after request.
@functools.lru_cache(maxsize=256)
def _is_own_host(accept_hosts: frozenset[str], host: str) -> bool:
    match = HOST.fullmatch(host)
    if match is None or int(match["port"] or 0) > 0xFFFF:
        return False
    name = match["name"].lower()
    if name == "localhost" or name in accept_hosts:
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    # Brackets are for IPv6 alone (RFC 3986 §3.2.2); ip_address refuses short forms such as 127.1 by itself.
    # A mapped IPv4 address is loopback from Python 3.13 on, and is written by nobody who means this proxy.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return False
    return address.is_loopback and (address.version == 6) == name.startswith("[")
