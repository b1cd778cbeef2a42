"""Sockets: their addresses, which user of this machine is at the other end, and whether anybody still is."""

from slproxy.sockets.addresses import authority, reachable, url_of
from slproxy.sockets.peers import GONE, Peers
from slproxy.sockets.presence import HERE, Presence, presence

__all__ = [
    "GONE",
    "HERE",
    "Peers",
    "Presence",
    "authority",
    "presence",
    "reachable",
    "url_of",
]
