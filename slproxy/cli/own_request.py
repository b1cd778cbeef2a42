"""Own request: a blocking request to the proxy on this machine, as any client makes it.

Without an event loop, so that a command which asks for nothing else has not to load one.
"""

from __future__ import annotations

import contextlib
import http.client
import socket

from slproxy.config import ListenSettings
from slproxy.errors import OtherUserError
from slproxy.sockets import Peers, authority, reachable, url_of

# The largest reply that is read, in bytes: what listens there may be anything.
MAX_REPLY = 1024 * 1024


def address(listen: ListenSettings) -> str:
    """Return where these settings have the proxy listen, as a person reads it."""
    return f"unix:{listen.uds}" if listen.uds else authority(listen.host, listen.port)


def ask(listen: ListenSettings, target: str, *, timeout: float) -> tuple[int, bytes]:
    """Ask the running proxy for something and return status and body; each read has that ``timeout``, in seconds.

    Raises:
        OtherUserError: what listens there is another user's.
        OSError, http.client.HTTPException: there is no answer, or no good one.
    """
    if listen.uds:
        connection: http.client.HTTPConnection = _UnixConnection(listen.uds, timeout)
    else:
        where = reachable(url_of(listen.host, listen.port)).removeprefix("http://")
        connection = http.client.HTTPConnection(where, timeout=timeout)
    with contextlib.closing(connection):
        connection.connect()
        # Before the key is shown: whoever got the port first may be anybody.
        with Peers() as peers:
            uid = peers.foreign_listener(connection.sock)
        if uid is not None:
            raise OtherUserError(uid, f"on port {listen.port}" if listen.uds is None else f"at {listen.uds}")
        connection.putrequest("GET", target, skip_host=True)
        for name, value in (("Host", "localhost"), ("User-Agent", "slproxy"), ("Accept", "application/json")):
            connection.putheader(name, value)
        for key in listen.keys_to_send:
            connection.putheader("X-Slproxy-Key", key.reveal())
        connection.endheaders()
        response = connection.getresponse()
        body = response.read(MAX_REPLY + 1)
    if len(body) > MAX_REPLY:
        raise http.client.HTTPException(f"the reply is over {MAX_REPLY} bytes")
    return response.status, body


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
