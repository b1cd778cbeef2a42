"""Sockets: their addresses, which user of this machine is at the other end, and whether anybody still is."""

from slproxy.sockets.addresses import reachable, url_of
from slproxy.sockets.peers import GONE, Peers
from slproxy.sockets.presence import Presence, presence

__all__ = [
    "GONE",
    "Peers",
    "Presence",
    "presence",
    "reachable",
    "url_of",
]
