"""Callback server: takes the browser's callback of one login, and nothing else.

1. The browser is started with an address of this server, which redirects it to SalesLoft: any user of this machine can
   read the command line of a browser, and with the ``state`` in it could send a grant of their own to the callback. A
   private file would do the same, but browsers from Snap and Flatpak cannot read most folders (jupyter/notebook#4500).
2. That address is for this user alone, as the callback is. Where the kernel does not tell users apart, it works once.
3. ``localhost`` is both of its addresses: on the one that is free, anybody could wait for the code.
4. A few connections are kept at once: else anybody could take all that this process may open, and the login with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, unquote, urlsplit

from slproxy.auth.callback import parse_callback
from slproxy.auth.callback_page import page
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.errors import ConfigError, ForeignCallbackError, LoginError
from slproxy.http import http_date
from slproxy.sockets import Peers, authority

# How long a person may take in the browser, in seconds: SalesLoft's codes last as long.
LOGIN_TIMEOUT = 600.0
# How long the head of a request may take, and how long the last page is waited for, in seconds.
HEAD_TIMEOUT, PAGE_TIMEOUT = 15.0, 1.0
LARGEST_HEAD = 64 * 1024
# A browser opens six to a host, and sends its request at once.
MOST_CONNECTIONS = 64
_PURPOSE = "This address only waits for the callback of a login."
_ANOTHER_USER = (
    "This address waits for the browser of another user of this machine. If the login is yours all the same, paste the "
    "URL of this page into the terminal that waits for it."
)
_STARTED = (
    "This address works once. If you did not open it before, somebody else did: press Ctrl-C in the terminal, and log "
    "in again. Otherwise open the URL that the terminal shows."
)
# What says that a machine has no IPv6.
_NO_IPV6 = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class CallbackServer:
    """Waits at the redirect URI for the code, and shows the browser how the login ended."""

    def __init__(self, attempt: LoginAttempt, peers: Peers) -> None:
        self._attempt = attempt
        self._peers = peers
        redirect = urlsplit(attempt.redirect_uri)
        self._callback_path = unquote(redirect.path or "/")
        self._start_path = f"/{secrets.token_urlsafe(24)}"
        self._may_start = True
        self.start_url = f"http://{redirect.netloc}{self._start_path}"
        self._code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._page: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def code(self) -> str:
        """Wait for the code. Raises LoginError when the person said no, or after ``LOGIN_TIMEOUT``."""
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                return await asyncio.shield(self._code)
        except TimeoutError:
            raise LoginError(
                f"No callback came from the browser within {LOGIN_TIMEOUT / 60:.0f} minutes.",
                hint="Run slproxy login again; where the browser is elsewhere: slproxy login --no-browser",
            ) from None

    def show(self, title: str, text: str) -> None:
        """Show the browser how the login ended."""
        if not self._page.done():
            self._page.set_result((title, text))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of the browser."""
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        if len(self._connections) > MOST_CONNECTIONS:
            self._cut_off_oldest()
        try:
            head = b""
            with contextlib.suppress(TimeoutError, asyncio.LimitOverrunError):
                async with asyncio.timeout(HEAD_TIMEOUT):
                    head = await reader.readuntil(b"\r\n\r\n")
            self._answering.add(task)
            writer.write(await self._answer(head, self._peers.foreign_client(writer.get_extra_info("socket"))))
            await writer.drain()
            writer.write_eof()
            # What is closed with something unread is reset, and the page with it (RFC 9112 §9.6).
            async with asyncio.timeout(PAGE_TIMEOUT):
                while await reader.read(LARGEST_HEAD):
                    pass
        except (OSError, EOFError, TimeoutError):
            pass  # the browser has gone, or had opened the connection only in case
        finally:
            self._connections.pop(task, None)
            self._answering.discard(task)
            writer.close()

    def _cut_off_oldest(self) -> None:
        """Close the connection that has waited longest for its request, or else for its answer to be read."""
        oldest = next(
            (each for each in self._connections if each not in self._answering), next(iter(self._connections))
        )
        self._connections.pop(oldest).transport.abort()

    async def close(self) -> None:
        """Let the browser have the pages that are on their way, and close its connections."""
        self.show("Not logged in", "The login was cancelled in the terminal.")
        if self._answering:
            await asyncio.wait(self._answering, timeout=PAGE_TIMEOUT)
        # To cancel who serves them would be logged, by Python 3.11 (python/cpython#113538).
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._code.done() and not self._code.cancelled():
            self._code.exception()  # a denial that a pasted code has overtaken

    async def _answer(self, head: bytes, foreign: int | None) -> bytes:
        line = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(line) != 3 or not line[2].startswith("HTTP/1."):
            return _page(400, "Not understood", _PURPOSE)
        method, target, _ = line
        path, _, query = target.partition("?")
        if foreign is not None:
            return _page(403, "Another user's login", _ANOTHER_USER, method=method, keeps_url=True)
        if method != "GET":
            return _page(405, "Nothing here", _PURPOSE, "Allow: GET", method=method)
        if secrets.compare_digest(path.encode(), self._start_path.encode()):
            return self._start()
        if unquote(path) != self._callback_path:
            return _page(404, "Nothing here", _PURPOSE)
        if self._code.done():
            return _page(400, "Already used", "This login has had its callback. You can close this tab.")
        try:
            code = parse_callback(self._attempt, query)
        except LoginError as error:
            if not isinstance(error, ForeignCallbackError):
                self._code.set_exception(error)
            return _page(400, "Not logged in", f"{error.detail} {error.hint}")
        self._code.set_result(code)
        return _page(200, *await asyncio.shield(self._page))

    def _start(self) -> bytes:
        if not self._may_start:
            return _page(400, "Already used", _STARTED)
        self._may_start = self._peers.why_unknown is None
        return _page(302, "To SalesLoft", "The login is at SalesLoft.", f"Location: {self._attempt.url}")


def _page(status: int, title: str, text: str, *headers: str, method: str = "GET", keeps_url: bool = False) -> bytes:
    date = http_date(time.time())
    return page(status, title, text, date=date, method=method, headers=headers, keeps_url=keeps_url)


@asynccontextmanager
async def callback_server(attempt: LoginAttempt) -> AsyncIterator[CallbackServer]:
    """Listen on the redirect URI's host and port while a login is under way. Raises ConfigError when that fails."""
    redirect = urlsplit(attempt.redirect_uri)
    if redirect.scheme != "http":
        raise ConfigError(
            f"The redirect URI {attempt.redirect_uri} is not on this machine.",
            hint="Log in with: slproxy login --no-browser",
        )
    async with contextlib.AsyncExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in await _listeners(redirect)]
        waiting = CallbackServer(attempt, stack.enter_context(Peers()))
        stack.push_async_callback(waiting.close)
        for listener in listeners:
            server = await asyncio.start_server(waiting.serve, sock=listener, limit=LARGEST_HEAD)
            stack.callback(server.close)
        yield waiting


async def _listeners(redirect: SplitResult) -> list[socket.socket]:
    """Return sockets that listen where the browser will come. Raises ConfigError when one of them cannot be had."""
    port = 80 if redirect.port is None else redirect.port
    listeners: list[socket.socket] = []
    # A browser resolves localhost to either.
    for host in ("127.0.0.1", "::1") if redirect.hostname == "localhost" else (redirect.hostname,):
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            listeners.append(socket.create_server(found[0][4][:2], family=found[0][0]))
        except OSError as error:
            if listeners and (error.errno in _NO_IPV6 or isinstance(error, socket.gaierror)):
                continue
            for listener in listeners:
                listener.close()
            unknown = isinstance(error, socket.gaierror)
            reason = "cannot resolve the name" if unknown else os.strerror(error.errno or 0)
            raise ConfigError(
                f"Cannot wait for the browser on {authority(str(host), port)}: {reason}.",
                hint=_remedy(error),
            ) from error
    return listeners


def _remedy(error: OSError) -> str:
    first = "Stop the program that uses the port, register" if error.errno == errno.EADDRINUSE else "Register"
    return (
        f"{first} another redirect URI with the app, such as http://localhost:3000/callback, and set "
        "SALESLOFT_REDIRECT_URI to it, or run: slproxy login --no-browser"
    )
