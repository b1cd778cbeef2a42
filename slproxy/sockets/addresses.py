"""Addresses that are listened on, as URLs."""

from __future__ import annotations


def url_of(host: str, port: int) -> str:
    """Return the URL of an address that is listened on."""
    return f"http://[{host.strip('[]')}]:{port}" if ":" in host else f"http://{host}:{port}"


def reachable(url: str) -> str:
    """Return the URL with a name of this machine in the place of a wildcard: no client may ask for 0.0.0.0."""
    for every in ("//0.0.0.0:", "//[::]:", "//:"):
        url = url.replace(every, "//localhost:")
    return url
