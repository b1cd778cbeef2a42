"""Tunnel: the connection that an egress proxy opens to the upstream (CONNECT, RFC 9110 §9.3.6)."""

from __future__ import annotations

import asyncio
import re
from typing import cast

from slproxy.config import EgressProxy
from slproxy.errors import UpstreamUnreachable

# What the head of a proxy's answer may take, in bytes.
MAX_HEAD = 16 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")
# Those that are in use: a word that a proxy makes up is not repeated, since it may be what it was given.
_SCHEME = re.compile(
    rb"^proxy-authenticate:[ \t]*(basic|bearer|digest|kerberos|negotiate|ntlm)\b", re.IGNORECASE | re.MULTILINE
)
_HTML = re.compile(rb"^content-type:[ \t]*text/html", re.IGNORECASE | re.MULTILINE)


def connect_request(proxy: EgressProxy, target: str) -> bytes:
    """Return the request for a connection to ``target``, a host and port."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {proxy.credentials.reveal()}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class Tunnel(asyncio.BufferedProtocol):
    """Asks for the connection; ``opened`` is done when there is one, and raises UpstreamUnreachable when not."""

    def __init__(self, proxy: EgressProxy, host: str, port: int, *, named_in: str) -> None:
        """``named_in`` is where the proxy is set: what to correct."""
        self._proxy = proxy
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._named_in = named_in
        self._head = bytearray(MAX_HEAD)
        self._size = 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        cast("asyncio.Transport", transport).write(connect_request(self._proxy, self._target))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Return where the answer is read to; what comes behind it is dropped."""
        return memoryview(self._head)[0 if self.opened.done() else self._size :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take a piece of the answer."""
        if self.opened.done():
            return
        self._size += nbytes
        end = self._head.find(b"\r\n\r\n", 0, self._size)
        if end < 0:
            if self._size == MAX_HEAD or not b"HTTP/1.".startswith(self._head[: min(self._size, 7)]):
                self._fail(self._not_http())
            return
        fault = self._fault_in(bytes(self._head[: end + 2]), has_more=self._size > end + 4)
        if fault is None:
            self.opened.set_result(None)
        else:
            self._fail(fault)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        if not self.opened.done():
            self._fail(exc or ConnectionResetError("the proxy closed the connection"))

    def _fail(self, error: Exception) -> None:
        self.opened.set_exception(error)
        self.opened.exception()  # nobody waits for it where the attempt was given up right before

    def fault_of(self, error: Exception) -> UpstreamUnreachable:
        """Return what an exception means that came instead of an answer."""
        if isinstance(error, TimeoutError):
            name, detail = "connection_timeout", f"The proxy {self._proxy.name} did not answer in time."
        else:
            name, detail = "connection_terminated", f"The proxy {self._proxy.name} closed the connection unanswered."
        hint = f"Is that a proxy? Check its address in {self._named_in}."
        return UpstreamUnreachable(detail, maybe_sent=False, hint=hint, proxy_error=name)

    def _fault_in(self, head: bytes, *, has_more: bool) -> UpstreamUnreachable | None:
        """Return what is wrong with an answer, None if the connection is there."""
        match = _STATUS.match(head)
        if match is None:
            return self._not_http()
        status, name, named_in = int(match[1]), self._proxy.name, self._named_in
        if 200 <= status < 300 and not has_more and not _HTML.search(head):
            return None
        if status in (401, 407):  # the first is tinyproxy's, for a wrong password
            return self._asks_for_credentials(head, status)
        if 400 <= status < 500:
            return UpstreamUnreachable(
                f"The proxy {name} refused a connection to {self._target} ({status}).",
                maybe_sent=False,
                hint=f"Ask who runs it to allow {self._target}, or name another one in {named_in}.",
                proxy_error="http_request_denied",
                is_lasting=True,
            )
        if status >= 500:
            return UpstreamUnreachable(
                f"The proxy {name} could not connect to {self._target} ({status}).",
                maybe_sent=False,
                hint=f"If it does not pass, ask who runs it, or name another one in {named_in}.",
                proxy_error="connection_timeout" if status == 504 else "destination_unavailable",
            )
        return UpstreamUnreachable(
            f"The proxy {name} answered with a page ({status}) instead of a connection.",
            maybe_sent=False,
            hint=f"Does the network want you to sign in first, in a browser? Else check {named_in}.",
            proxy_error="http_protocol_error",
        )

    def _asks_for_credentials(self, head: bytes, status: int) -> UpstreamUnreachable:
        name, named_in = self._proxy.name, self._named_in
        schemes = dict.fromkeys(scheme.decode("ascii") for scheme in _SCHEME.findall(head))
        if schemes and "basic" not in map(str.lower, schemes):
            # NTLM and Kerberos authenticate a connection by the user's own login; that is a program of its own.
            kinds = ", ".join(schemes)
            detail = f"The proxy {name} wants credentials of a kind that slproxy cannot give: {kinds} ({status})."
            hint = f"Run a proxy on this machine that can, such as cntlm or px, and name that in {named_in}."
        elif self._proxy.credentials is not None:
            detail = f"The proxy {name} refused the user name or the password ({status})."
            hint = f"Correct them in {named_in}; signs such as @ : / in them are written %40 %3A %2F."
        else:
            detail = f"The proxy {name} wants a user name and a password ({status})."
            hint = f"Put them into {named_in}: {self._proxy.scheme}://USER:PASSWORD@{name}."
        return UpstreamUnreachable(
            detail, maybe_sent=False, hint=hint, proxy_error="proxy_configuration_error", is_lasting=True
        )

    def _not_http(self) -> UpstreamUnreachable:
        return UpstreamUnreachable(
            f"What listens at {self._proxy.name} did not answer as an HTTP proxy does.",
            maybe_sent=False,
            hint=f"Check the address in {self._named_in}: its port, and whether it begins with http or https.",
            proxy_error="http_protocol_error",
        )
