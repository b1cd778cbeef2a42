"""Sockets: which user of this machine is at the other end."""

from slproxy.sockets.peers import GONE, Peers

__all__ = [
    "GONE",
    "Peers",
]
