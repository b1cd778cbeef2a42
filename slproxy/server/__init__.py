"""The listening side: accepts connections and serves requests."""

from slproxy.server import pages
from slproxy.server.acceptor import Acceptor
from slproxy.server.listen import listen_at, listen_at_path, reachable, url_of
from slproxy.server.open_files import Room, room_for
from slproxy.server.server import Server

__all__ = [
    "Acceptor",
    "Room",
    "Server",
    "listen_at",
    "listen_at_path",
    "pages",
    "reachable",
    "room_for",
    "url_of",
]
