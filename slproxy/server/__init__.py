"""The listening side: accepts connections and serves requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slproxy.server import pages
from slproxy.server.acceptor import Acceptor
from slproxy.server.listen import listen_at, listen_at_path
from slproxy.server.open_files import Room, room_for

if TYPE_CHECKING:
    from slproxy.server.server import Server

__all__ = [
    "Acceptor",
    "Room",
    "Server",
    "listen_at",
    "listen_at_path",
    "pages",
    "room_for",
]


def __getattr__(name: str) -> type[Server]:
    """Import the server when it is asked for: it stands on aiohttp, which takes as long to load as all the rest."""
    if name != "Server":
        raise AttributeError(name)
    from slproxy.server.server import Server  # noqa: PLC0415

    return Server
