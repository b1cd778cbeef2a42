"""The callback server: who may use it, what its pages let a browser do, and where it cannot listen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from slproxy.auth.callback_server import MOST_CONNECTIONS, CallbackServer, callback_server
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.errors import ConfigError
from slproxy.sockets import Peers
from tests.support.commands import free_port
from tests.support.raw_http import Head
from tests.support.users import another_user, needs_users, socket_of_another_user
from tests.support.waiting import SOON

URL = "https://accounts.example/oauth/authorize?state=S&code_challenge=C"


def attempt(uri: str) -> LoginAttempt:
    return LoginAttempt(url=URL, redirect_uri=uri, state="S", verifier="v" * 43)


@asynccontextmanager
async def waiting(host: str = "localhost") -> AsyncIterator[tuple[CallbackServer, int]]:
    port = free_port()
    async with callback_server(attempt(f"http://{host}:{port}/callback")) as server:
        yield server, port


async def answer(port: int, target: str, method: str = "GET", *headers: str) -> tuple[Head, str]:
    lines = "".join(f"{each}\r\n" for each in ("Host: localhost", "Connection: close", *headers))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return Head(head), body.decode()


async def test_the_address_for_the_browser_redirects_to_the_login_and_tells_nothing_of_it() -> None:
    async with waiting() as (server, port):
        assert not {"state", "challenge", "=", "?", "oauth"} & set(re.split(r"\W", server.start_url))
        assert "?" not in server.start_url
        head, body = await answer(port, urlsplit(server.start_url).path)
    assert (head.status, head.get("Location")) == (302, URL)
    assert URL not in body


async def test_whoever_opens_many_connections_keeps_few_and_no_browser_out() -> None:
    async with waiting() as (server, port):
        idle = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", port) for _ in range(3 * MOST_CONNECTIONS)),
        )
        async with asyncio.timeout(SOON):
            ends = [asyncio.create_task(reader.read()) for reader, _ in idle]
            while sum(each.done() for each in ends) < 2 * MOST_CONNECTIONS:
                await asyncio.sleep(0.01)
            head, _ = await answer(port, urlsplit(server.start_url).path)
        for _, writer in idle:
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)
    assert head.status == 302


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "START", 302),
        ("GET", "/callback?code=C&state=S", 200),
        ("GET", "/callback?code=C&state=wrong", 400),
        ("GET", "/callback?state=S&error=access_denied&error_description=<script>alert(1)</script>", 400),
        ("GET", "/callback", 400),
        ("GET", "/favicon.ico", 404),
        ("GET", "/callback/<b>", 404),
        ("POST", "/callback?code=C&state=S", 405),
        ("HEAD", "/callback?code=C&state=S", 405),
        ("OPTIONS", "/callback", 405),
        ("nonsense", "x y", 400),
    ],
)
async def test_every_page_may_run_and_frame_and_keep_nothing(method: str, target: str, status: int) -> None:
    async with waiting() as (server, port):
        server.show("Logged in", "<i>Jane</i>")
        head, body = await answer(port, target.replace("START", urlsplit(server.start_url).path), method)
    assert head.status == status
    policy = dict(part.strip().partition(" ")[::2] for part in (head.get("Content-Security-Policy") or "").split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert all(re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", policy[each]) for each in ("style-src", "script-src"))
    assert head.get("X-Frame-Options") == "DENY"
    assert head.get("X-Content-Type-Options") == "nosniff"
    assert head.get("Cache-Control") == "no-store"
    assert head.get("Referrer-Policy") == "no-referrer"
    assert head.get("Date") is not None
    assert head.get("Server") is None
    assert "aiohttp" not in head.raw.decode() + body
    assert "Python" not in head.raw.decode() + body
    assert "<i>" not in body
    assert "alert" not in body
    assert (not body) == (method == "HEAD")
    if body:
        assert '<meta name="viewport"' in body


async def test_another_user_of_the_machine_neither_starts_nor_ends_a_login() -> None:
    needs_users()
    async with waiting() as (server, port):
        for target in (urlsplit(server.start_url).path, "/callback?code=planted&state=S", "/callback?error=x&state=S"):
            peer = socket_of_another_user()
            peer.setblocking(False)
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=peer)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            told = (await reader.read()).decode()
            writer.close()
            assert told.startswith("HTTP/1.1 403 ")
            assert "Location" not in told
            # A person whose browser is another user's can copy what is in its address bar.
            assert "<script>" not in told
        server.show("Logged in", "Jane")
        assert (await answer(port, "/callback?code=C&state=S"))[0].status == 200
        assert await server.code() == "C"


class Untold(Peers):
    """A kernel that does not tell users apart."""

    def __init__(self) -> None:
        super().__init__()
        self.why_unknown = "this system does not tell"


async def test_where_users_are_not_told_apart_the_address_for_the_browser_works_once() -> None:
    port = free_port()
    with Untold() as peers:
        server = CallbackServer(attempt(f"http://localhost:{port}/callback"), peers)
        path = urlsplit(server.start_url).path
        async with await asyncio.start_server(server.serve, "127.0.0.1", port):
            assert [(await answer(port, path))[0].status for _ in range(2)] == [302, 400]
            assert (await answer(port, path))[0].get("Location") is None
            await server.close()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://192.0.2.1:3000/callback", "192.0.2.1:3000: Cannot assign requested address."),
        ("http://no-such-name.invalid:3000/callback", "no-such-name.invalid:3000: cannot resolve the name."),
        ("http://[2001:db8::1]:3000/callback", "[2001:db8::1]:3000: Cannot assign requested address."),
    ],
)
async def test_an_address_of_another_machine_is_told_at_once(uri: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with callback_server(attempt(uri)):
            pass
    assert said in caught.value.detail
    assert "--no-browser" in caught.value.hint


async def test_a_port_that_this_user_may_not_have_is_told_at_once() -> None:
    with another_user() if os.geteuid() == 0 else contextlib.nullcontext():
        try:
            with socket.create_server(("127.0.0.1", 81)):
                pytest.skip("this system lets every user have port 81")
        except PermissionError:
            pass
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1:81: Permission denied") as caught:
            async with callback_server(attempt("http://127.0.0.1:81/callback")):
                pass
    assert "--no-browser" in caught.value.hint


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("whose", ["this user", "another user"])
async def test_somebody_who_listens_on_one_of_localhost_s_addresses_is_told_at_once(address: str, whose: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if whose == "another user":
        needs_users()
    port = free_port()
    with socket_of_another_user(family) if whose == "another user" else socket.socket(family) as taken:
        try:
            taken.bind((address, port))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        taken.listen()
        with pytest.raises(ConfigError, match="in use") as caught:
            async with callback_server(attempt(f"http://localhost:{port}/callback")):
                pass
        assert address in caught.value.detail
        # The other address is free again.
        other = "127.0.0.1" if family == socket.AF_INET6 else "::1"
        with contextlib.suppress(OSError), socket.create_server((other, port)):
            pass


async def test_an_idle_connection_of_the_browser_does_not_hold_up_the_end_nor_is_it_told() -> None:
    """Chromium opens one in case."""
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with asyncio.timeout(SOON):
        async with waiting() as (_, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await answer(port, "/favicon.ico")
        writer.close()
        await asyncio.sleep(0)
    assert not told
