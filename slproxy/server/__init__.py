"""The listening side: accepts connections and serves requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slproxy.server import pages
from slproxy.server.acceptor import Acceptor
from slproxy.server.listen import listen_at, listen_at_path, listen_openly
from slproxy.server.open_files import Room, room_for

if TYPE_CHECKING:
    from slproxy.server.open_listener import serve_openly
    from slproxy.server.own_requests import OwnRequests
    from slproxy.server.server import Server

__all__ = [
    "Acceptor",
    "OwnRequests",
    "Room",
    "Server",
    "listen_at",
    "listen_at_path",
    "listen_openly",
    "pages",
    "room_for",
    "serve_openly",
]


def __getattr__(name: str) -> object:
    """Import a server when it is asked for: it stands on aiohttp, which takes as long to load as all the rest."""
    if name == "Server":
        from slproxy.server.server import Server  # noqa: PLC0415

        return Server
    if name == "OwnRequests":
        from slproxy.server.own_requests import OwnRequests  # noqa: PLC0415

        return OwnRequests
    if name == "serve_openly":
        from slproxy.server.open_listener import serve_openly  # noqa: PLC0415

        return serve_openly
    raise AttributeError(name)
