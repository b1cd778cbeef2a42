"""Running proxy: requests to the one on this machine, as any client makes them."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket

from slproxy.config import ListenSettings, Secret
from slproxy.server import reachable, url_of

# How long a proxy on this machine may take to answer, in seconds.
TIMEOUT = 2.0


def ask(url: str, target: str, *, key: Secret | None) -> tuple[int, bytes]:
    """Ask a running proxy for something and return status and body. Raises OSError or http.client.HTTPException."""
    if url.startswith("unix:"):
        connection: http.client.HTTPConnection = _UnixConnection(url.removeprefix("unix:"))
    else:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=TIMEOUT)
    headers = {"Host": "localhost", "User-Agent": "slproxy"}
    if key is not None:
        headers["X-Slproxy-Key"] = key.reveal()
    with contextlib.closing(connection):
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def status_of(listen: ListenSettings) -> dict[str, object] | None:
    """Return the ``status.json`` of the proxy at this address: ``None`` if nothing answers, empty if it is no proxy."""
    url = f"unix:{listen.uds}" if listen.uds else reachable(url_of(listen.host, listen.port))
    try:
        _, body = ask(url, "/_slproxy/status.json", key=listen.key)
        document = json.loads(body)
    except OSError:
        return None
    except (http.client.HTTPException, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)
