"""The listening side: accepts connections and serves requests."""

from slproxy.server import pages
from slproxy.server.listen import BACKLOG, bind_unix_socket, cannot_listen, reachable, url_of
from slproxy.server.server import Server

__all__ = [
    "BACKLOG",
    "Server",
    "bind_unix_socket",
    "cannot_listen",
    "pages",
    "reachable",
    "url_of",
]
