"""The listening side: accepts connections and serves requests."""

from slproxy.server import pages
from slproxy.server.acceptor import Acceptor
from slproxy.server.listen import listen_at, listen_at_path, reachable, url_of
from slproxy.server.server import Server

__all__ = [
    "Acceptor",
    "Server",
    "listen_at",
    "listen_at_path",
    "pages",
    "reachable",
    "url_of",
]
