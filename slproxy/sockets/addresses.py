"""Addresses that are listened on, as URLs spell them."""

from __future__ import annotations


def authority(host: str, port: int) -> str:
    """Return host and port as a URL has them: an IPv6 address in brackets."""
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(host: str, port: int) -> str:
    """Return the URL of an address that is listened on."""
    return f"http://{authority(host, port)}"


def reachable(url: str) -> str:
    """Return the URL with a name of this machine in the place of a wildcard: no client may ask for 0.0.0.0."""
    for every in ("//0.0.0.0:", "//[::]:", "//:"):
        url = url.replace(every, "//localhost:")
    return url
