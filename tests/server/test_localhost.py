"""`localhost` is two addresses: the proxy holds both, or does not start."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slproxy.config import ListenSettings
from slproxy.errors import ConfigError
from slproxy.server import listen_at
from tests.support import ROOT
from tests.support.commands import pointed_at
from tests.support.pair import pair
from tests.support.programs import run
from tests.support.raw_http import get, port_of, read_message
from tests.support.users import another_user, needs_users
from tests.support.waiting import SOON

LISTEN_AT = "import asyncio; from slproxy.server import listen_at; print(len(asyncio.run(listen_at('127.0.0.1', 0))))"


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")


@contextlib.contextmanager
def taken(host: str, *, only_ipv6: bool) -> Iterator[int]:
    """Listen as another program that would share its port if it could; yield the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_ipv6))
        while True:
            # Below those that the kernel gives to clients, one of which might have it at the other address.
            with contextlib.suppress(OSError):
                sock.bind((host, random.randrange(10_000, 30_000)))
                break
        sock.listen()
        yield sock.getsockname()[1]


@needs_ipv6
async def test_a_client_is_served_at_both_addresses_of_localhost() -> None:
    async with pair(listen=ListenSettings(port=0)) as (_, app):
        port = port_of(app.urls[0])
        assert app.urls == [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"]
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, port)
            app.writers.append(writer)
            writer.write(get("/v2/a", host=f"localhost:{port}"))
            async with asyncio.timeout(SOON):
                assert (await read_message(reader)).head.status == 200, host


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("localhost", ["127.0.0.1", "::1"]),
        ("127.0.0.1", ["127.0.0.1", "::1"]),
        ("[::1]", ["::1", "127.0.0.1"]),
        ("0:0:0:0:0:0:0:1", ["::1", "127.0.0.1"]),
        ("0.0.0.0", ["0.0.0.0", "::1"]),
        ("::", ["::", "127.0.0.1"]),
        ("127.0.0.2", ["127.0.0.2"]),
    ],
)
async def test_what_a_host_listens_on(host: str, addresses: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in await listen_at(host, 0)]
        assert [each.getsockname()[0] for each in sockets] == addresses
        assert len({each.getsockname()[1] for each in sockets}) == 1


TAKEN = {
    "127.0.0.1": ("127.0.0.1", False, "127.0.0.1"),
    "::1": ("::1", True, "[::1]"),
    "every IPv4 address": ("0.0.0.0", False, "127.0.0.1"),
    "every address": ("::", False, "127.0.0.1"),
    "every IPv6 address": ("::", True, "[::1]"),
}


@needs_ipv6
@pytest.mark.parametrize("where", TAKEN)
@pytest.mark.parametrize("user", ["this", "another"])
async def test_a_port_that_is_taken_at_one_of_them_is_not_listened_on(where: str, user: str) -> None:
    host, only_ipv6, named = TAKEN[where]
    with contextlib.ExitStack() as stack:
        if user == "another":
            needs_users()
            with another_user():
                port = stack.enter_context(taken(host, only_ipv6=only_ipv6))
        else:
            port = stack.enter_context(taken(host, only_ipv6=only_ipv6))
        with pytest.raises(ConfigError) as caught:
            await listen_at("127.0.0.1", port)
        assert f"{named}:{port} is in use" in caught.value.detail
        # Nothing is left of the address that was free.
        with socket.socket() as again:
            if named == "[::1]":
                again.bind(("127.0.0.1", port))


@needs_ipv6
async def test_a_start_beside_another_listener_at_the_other_address_fails_and_names_it(tmp_path: Path) -> None:
    with taken("::1", only_ipv6=True) as port:
        env = pointed_at("http://127.0.0.1:9", SLPROXY_LISTEN__PORT=str(port), SALESLOFT_API_KEY="ak_" + "0a1b2c" * 8)
        code, out, err = await run("serve", home=tmp_path, env=env)
    assert (code, out) == (2, "")
    assert f"[::1]:{port} is in use" in err
    assert "localhost" in err


def test_without_ipv6_the_one_address_is_enough() -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare")
    # A new network namespace has no ::1 until its loopback interface is up.
    command = [unshare, "--map-root-user", "--net", sys.executable, "-c", LISTEN_AT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "1\n", done.stderr
