"""Callback server: takes the browser's callback of one login, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import html
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aiohttp import web

from slproxy.auth.callback import parse_callback
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.errors import (
    ConfigError,
    ForeignCallbackError,
    LoginError,
)

# How long a person may take in the browser, in seconds: SalesLoft's codes last as long.
LOGIN_TIMEOUT = 600.0

# The page takes the code out of the address bar and the history: neither is a place for it, used or not.
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<title>slproxy</title><style>
body{{font:17px/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:100vh;margin:0}}
body{{background:#f4f5f7;color:#1d2433}}
main{{background:#fff;padding:2.5rem 3rem;border-radius:12px;box-shadow:0 1px 4px #0002;max-width:28rem}}
h1{{font-size:1.3rem;margin:0 0 .5rem}}p{{margin:0;color:#566}}
</style></head><body><main><h1>{title}</h1><p>{text}</p></main>
<script>history.replaceState(null, "", location.pathname)</script></body></html>
"""


class CallbackServer:
    """Waits at the redirect URI for the code, and shows the browser how the login ended."""

    def __init__(self, attempt: LoginAttempt) -> None:
        self._attempt = attempt
        self._code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._page: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def code(self) -> str:
        """Wait for the code. Raises LoginError when the person said no, or after ``LOGIN_TIMEOUT``."""
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                return await self._code
        except TimeoutError:
            raise LoginError(
                f"No callback came from the browser within {LOGIN_TIMEOUT / 60:.0f} minutes.",
                hint="Run slproxy login again; where the browser is elsewhere: slproxy login --no-browser",
            ) from None

    def show(self, title: str, text: str) -> None:
        """Show the browser how the login ended."""
        if not self._page.done():
            self._page.set_result((title, text))

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the browser."""
        if request.method != "GET" or request.rel_url.raw_path != (urlsplit(self._attempt.redirect_uri).path or "/"):
            return _page(404, "Nothing here", "This address only waits for the callback of a login.")
        if self._code.done():
            return _page(400, "Already used", "This login has had its callback. You can close this tab.")
        try:
            code = parse_callback(self._attempt, request.rel_url.raw_query_string)
        except LoginError as error:
            if not isinstance(error, ForeignCallbackError):
                self._code.set_exception(error)
            return _page(400, "Not logged in", f"{error.detail} {error.hint}")
        self._code.set_result(code)
        title, text = await asyncio.shield(self._page)
        return _page(200, title, text)


@asynccontextmanager
async def callback_server(attempt: LoginAttempt) -> AsyncIterator[CallbackServer]:
    """Listen on the redirect URI's host and port while a login is under way. Raises ConfigError when that fails."""
    redirect = urlsplit(attempt.redirect_uri)
    if redirect.scheme != "http":
        raise ConfigError(
            f"The redirect URI {attempt.redirect_uri} is not on this machine.",
            hint="Log in with: slproxy login --no-browser",
        )
    port = redirect.port or 80
    waiting = CallbackServer(attempt)
    runner = web.ServerRunner(web.Server(waiting.serve, access_log=None), handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        listening = 0
        # A browser resolves localhost to either; a machine without IPv6 has only the first.
        for host in ("127.0.0.1", "::1") if redirect.hostname == "localhost" else (redirect.hostname,):
            try:
                await web.TCPSite(runner, host, port).start()
                listening += 1
            except OSError as error:
                if error.errno == errno.EADDRINUSE or (not listening and host != "127.0.0.1"):
                    raise ConfigError(
                        f"Cannot wait for the browser on {host}:{port}: {os.strerror(error.errno or 0)}.",
                        hint="Stop the program that uses the port, register another redirect URI with the app and set "
                        "SALESLOFT_REDIRECT_URI to it, or run: slproxy login --no-browser",
                    ) from error
        yield waiting
    finally:
        waiting.show("Not logged in", "The login was cancelled in the terminal.")
        await runner.cleanup()


def _page(status: int, title: str, text: str) -> web.Response:
    return web.Response(
        status=status,
        text=_PAGE.format(title=html.escape(title), text=html.escape(text)),
        content_type="text/html",
        headers={"Cache-Control": "no-store", "Connection": "close"},
    )
