"""Running proxy: requests to the one on this machine, as any client makes them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import socket
from collections.abc import Mapping

from slproxy.auth import Identity, parse_identity
from slproxy.cli.output import print_note
from slproxy.cli.process import in_daemon_thread
from slproxy.config import ListenSettings, Secret, Settings
from slproxy.errors import KeyRequired, LoginRequired, OtherUserError, SlproxyError
from slproxy.server import reachable, url_of
from slproxy.sockets import Peers
from slproxy.untrusted import parse_json, printable

# How long a proxy on this machine may take to answer for itself, and for SalesLoft, in seconds.
OWN_TIMEOUT, UPSTREAM_TIMEOUT = 2.0, 30.0
# The largest reply that is read, in bytes: what listens there may be anything.
MAX_REPLY = 1024 * 1024


def address(listen: ListenSettings) -> str:
    """Return where these settings have the proxy listen, as a person reads it."""
    return f"unix:{listen.uds}" if listen.uds else url_of(listen.host, listen.port).removeprefix("http://")


async def ask(listen: ListenSettings, target: str, *, within: float = OWN_TIMEOUT) -> tuple[int, bytes]:
    """Ask the running proxy for something and return status and body.

    Raises:
        OtherUserError: what listens there is another user's.
        OSError, http.client.HTTPException: there is no answer, or no good one.
    """
    async with asyncio.timeout(2 * within):  # each read has that timeout, and there may be many
        return await in_daemon_thread(functools.partial(_ask, listen, target, timeout=within))


def _ask(listen: ListenSettings, target: str, *, timeout: float) -> tuple[int, bytes]:
    if listen.uds:
        connection: http.client.HTTPConnection = _UnixConnection(listen.uds, timeout)
    else:
        authority = reachable(url_of(listen.host, listen.port)).removeprefix("http://")
        connection = http.client.HTTPConnection(authority, timeout=timeout)
    with contextlib.closing(connection):
        connection.connect()
        # Before the key is shown: whoever got the port first may be anybody.
        with Peers() as peers:
            uid = peers.foreign_listener(connection.sock)
        if uid is not None:
            raise OtherUserError(uid, f"on port {listen.port}" if listen.uds is None else f"at {listen.uds}")
        connection.request("GET", target, headers=_headers(listen.key))
        response = connection.getresponse()
        body = response.read(MAX_REPLY + 1)
    if len(body) > MAX_REPLY:
        raise http.client.HTTPException(f"the reply is over {MAX_REPLY} bytes")
    return response.status, body


def _headers(key: Secret | None) -> dict[str, str]:
    headers = {"Host": "localhost", "User-Agent": "slproxy", "Accept": "application/json"}
    return headers if key is None else {**headers, "X-Slproxy-Key": key.reveal()}


async def status_of(listen: ListenSettings) -> dict[str, object] | None:
    """Return the ``status.json`` of the proxy at this address: ``None`` if nothing listens there.

    What answers otherwise has no ``version`` in it; ``detail`` may say why.
    """
    try:
        _, body = await ask(listen, "/_slproxy/status.json")
        document = parse_json(body)
    except OtherUserError as error:
        return {"detail": error.detail, "uid": error.uid}
    except TimeoutError:
        return {"detail": f"no answer in {OWN_TIMEOUT:g} s"}
    except OSError:
        return None
    except (http.client.HTTPException, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def described(listen: ListenSettings, proxy: Mapping[str, object]) -> str:
    """Return what a ``status.json`` says of who listens there, in a sentence; empty where it is no slproxy."""
    where = address(listen)
    if "version" in proxy:
        pid, profile = printable(str(proxy.get("pid"))), printable(str(proxy.get("profile")))
        return f"slproxy is already running at {where} (pid {pid}, profile {profile})."
    if proxy.get("type") == KeyRequired.type:
        return f"slproxy is already running at {where}, with another local key."
    return str(proxy["detail"]) if "uid" in proxy else ""


async def serving(settings: Settings) -> Mapping[str, object] | None:
    """Return the ``status.json`` of the proxy that is up with the login of this profile, and can be asked."""
    proxy = await status_of(settings.listen)
    if proxy is None or "version" not in proxy:
        if proxy is not None and (other := described(settings.listen, proxy)):
            print_note(f"slproxy: {other}")
        return None
    return proxy if proxy.get("profile") == settings.profile else None


async def identity_by(settings: Settings, proxy: Mapping[str, object]) -> tuple[Identity, bytes]:
    """Ask SalesLoft, through the proxy that is up, whom its token belongs to; return the reply as well.

    Raises SlproxyError.
    """
    where, token = address(settings.listen), proxy.get("token")
    try:
        status, body = await ask(settings.listen, "/v2/me.json", within=UPSTREAM_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        raise SlproxyError(f"The proxy at {where} did not answer.", hint="Run: slproxy status") from error
    if status != 401 and isinstance(reason := proxy.get("reason"), dict):
        detail, hint = printable(str(reason.get("detail"))), printable(str(reason.get("hint")))
        kind = LoginRequired if reason.get("type") == LoginRequired.type else SlproxyError
        raise kind(f"The proxy at {where} is not ready: {detail}", hint=hint)
    grant = token.get("grant") if isinstance(token, dict) else None
    return parse_identity(status, body, grant=grant), body


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
