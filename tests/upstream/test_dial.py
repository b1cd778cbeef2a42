"""Connections to the upstream: names, addresses and TLS, on both event loops."""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from slproxy.config import UpstreamSettings
from slproxy.errors import ConfigError, UpstreamUnreachable
from slproxy.upstream.addresses import Address, Names, alternating, connect
from slproxy.upstream.dial import Dialer, Origin
from tests.support import ROOT
from tests.support.egress import PATH
from tests.support.listener import Listener
from tests.support.loops import LOOPS, in_loop
from tests.support.waiting import PATIENCE


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module", name="rules")
def settings_that_trust_the_authority(tmp_path_factory: pytest.TempPathFactory) -> UpstreamSettings:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority().cert_pem.write_to_path(path)
    return UpstreamSettings(ca_file=path, connect_timeout=2.0)


def serving(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    context.minimum_version = context.maximum_version = version
    return context


class Wire(asyncio.BufferedProtocol):
    """A connection that keeps what came, and may pause after each piece of it."""

    transport: asyncio.Transport

    def __init__(self, *, pauses: bool = False) -> None:
        self.came = bytearray()
        self.ended = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray(1000)
        self._pauses = pauses
        self._more = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert self.transport.is_reading(), "nothing comes while it is paused"
        self.came += self._buffer[:nbytes]
        self._more.set()
        if self._pauses:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    def eof_received(self) -> bool:
        self.ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    async def has(self, size: int) -> bytes:
        while len(self.came) < size:
            self._more.clear()
            await self._more.wait()
        return bytes(self.came)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def resumed(wire: Wire) -> bool:
    return bool(wire.transport.get_extra_info("ssl_object").session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_large_passes_both_ways_and_the_next_connection_resumes_the_session(
    loop: str, version: ssl.TLSVersion, rules: UpstreamSettings
) -> None:
    sent = bytes(range(256)) * 2000

    async def work() -> None:
        async with Listener(echo, tls=serving(version)) as server, Listener(echo, tls=serving(version)) as other:
            dialer = Dialer(rules)
            for number, pauses in enumerate((True, False)):
                wire = await dialer.dial(Origin.of(server.url), functools.partial(Wire, pauses=pauses))
                wire.transport.writelines([sent[:1000], sent[1000:]])
                assert await wire.has(len(sent)) == sent
                assert resumed(wire) == (number == 1)
                wire.transport.close()
                assert await wire.lost is None
            stranger = await dialer.dial(Origin.of(other.url), Wire)
            assert not resumed(stranger), "a session is of one host and port"
            stranger.transport.abort()
            await stranger.lost

    in_loop(loop, work())


@pytest.mark.parametrize("loop", LOOPS)
def test_only_an_end_that_tls_vouches_for_is_one(loop: str, rules: UpstreamSettings) -> None:
    """RFC 9112 §9.8: a body that ends with the connection is whole only after ``close_notify``."""

    async def work() -> None:
        cut = False

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(1)
            writer.write(b"a body that ends with the connection")
            await writer.drain()
            if cut:
                writer.transport.abort()

        async with Listener(serve, tls=serving()) as server:
            dialer = Dialer(rules)
            for cut in (False, True):
                wire = await dialer.dial(Origin.of(server.url), Wire)
                wire.transport.write(b"?")
                error = await wire.lost
                assert bytes(wire.came) == b"a body that ends with the connection"
                assert (wire.ended, isinstance(error, OSError)) == (not cut, cut)

    in_loop(loop, work())


# What becomes of a connection: the fault's name, and what serves it.


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


async def talks_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ftp ready\r\n")
    await reader.read()


async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


FAULTS: dict[str, tuple[str, str | Callable[..., Awaitable[None]]]] = {
    "a name that does not exist": ("dns_error", "https://name.invalid"),
    "a label that no name can have": ("dns_error", f"https://{'n' * 64}.test"),
    "a port on which nobody listens": ("connection_refused", "https://localhost"),
    "an end in the handshake": ("connection_terminated", hangs_up),
    "no TLS": ("tls_protocol_error", talks_plainly),
    "silence in the handshake": ("connection_timeout", says_nothing),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_each_way_not_to_connect_has_its_name_and_nothing_was_sent(loop: str, rules: UpstreamSettings) -> None:
    async def one(name: str, where: str | Callable[..., Awaitable[None]]) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with Listener(echo if isinstance(where, str) else where) as server:
                url = f"https://127.0.0.1:{server.port}" if not isinstance(where, str) else where
                if url == "https://localhost":
                    url = f"{url}:{taken.getsockname()[1]}"
                dialer = Dialer(replace(rules, connect_timeout=0.2 if where is says_nothing else 5.0))
                with pytest.raises(UpstreamUnreachable) as told:
                    await dialer.dial(Origin.of(url), Wire)
        assert (told.value.proxy_error, told.value.maybe_sent) == (name, False), url
        assert told.value.__cause__ is not None

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for name, where in FAULTS.values():
                group.create_task(one(name, where))

    in_loop(loop, work())


async def test_without_tls_the_socket_is_what_it_was_and_bytes_are_plain(rules: UpstreamSettings) -> None:
    async with Listener(echo) as server:
        wire = await Dialer(rules).dial(Origin.of(server.url), Wire)
        wire.transport.write(b"plain")
        assert await wire.has(5) == b"plain"
        sock = wire.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        wire.transport.abort()
        await wire.lost


# Addresses.


def at(host: str, port: int = 1) -> Address:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.SOCK_STREAM, 0, "", (host, port)


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        ([], []),
        (["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"], ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]),
        (["1.1.1.1", "2.2.2.2", "::1"], ["1.1.1.1", "::1", "2.2.2.2"]),
    ],
)
def test_families_take_turns_the_systems_first_choice_first(found: list[str], tried: list[str]) -> None:
    assert alternating([at(host) for host in found]) == [at(host) for host in tried]


@pytest.mark.parametrize("loop", LOOPS)
def test_an_address_that_is_dead_or_does_not_answer_is_passed_over(loop: str) -> None:
    """A listener whose backlog is full answers no SYN (listen(2)), as a host that drops what is sent to it."""

    async def work() -> None:
        with socket.socket() as silent, socket.socket() as filler, socket.socket() as taken:
            for each in (silent, taken):
                each.bind(("127.0.0.1", 0))
            silent.listen(0)
            filler.connect(silent.getsockname())
            async with Listener(echo) as server:
                deaf, dead = (at(*each.getsockname()) for each in (silent, taken))
                for others in ([dead], [deaf], [dead, deaf]):
                    with await connect([*others, at("127.0.0.1", server.port)]) as sock:
                        assert sock.getpeername()[1] == server.port
                with pytest.raises(ConnectionRefusedError):
                    await connect([at("255.255.255.255"), dead])  # to which the kernel knows no route
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(connect([deaf, dead]), 0.1)

    in_loop(loop, work())


async def test_a_name_is_looked_up_once_for_all_who_ask_and_again_when_it_failed() -> None:
    asked: list[str] = []
    may_end = threading.Event()

    def look_up(host: str, port: int) -> list[Address]:
        asked.append(host)
        assert may_end.wait(PATIENCE)
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "no name server")
        return [at("127.0.0.1", port)]

    names = Names(look_up)
    waiting = [asyncio.create_task(names.addresses("api.test", 443)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()  # who gives up takes it from nobody else
    may_end.set()
    assert [type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)] == [socket.gaierror] * 4
    assert asked == ["api.test"]
    for _ in range(3):
        assert await names.addresses("api.test", 443) == [at("127.0.0.1", 443)]
    assert len(asked) == 2
    names.forget("api.test", 443)
    await names.addresses("api.test", 443)
    assert len(asked) == 3


async def test_a_name_of_this_machine_is_an_address_of_this_machine() -> None:
    """A token may go there in the clear (docs/contract.md, Settings), whoever answers for the name."""

    def look_up(host: str, port: int) -> list[Address]:
        here = [at("127.0.0.1", port), at("::1", port)] if host == "localhost" else []
        return [at("192.0.2.9", port), *here]

    names = Names(look_up)
    assert await names.addresses("localhost", 80) == [at("127.0.0.1", 80), at("::1", 80)]
    assert await names.addresses("api.test", 80) == [at("192.0.2.9", 80)]
    with pytest.raises(OSError, match="another machine"):
        await names.addresses("api.localhost", 80)


LOOK_UP = """
import asyncio, sys
from slproxy.upstream.addresses import Names
for found in asyncio.run(Names().addresses(sys.argv[1], 80)):
    print(found[4][0])
"""


@pytest.mark.parametrize(
    ("own", "loopback"),
    [("192.0.2.9/24", "::1"), ("2001:db8::9/64", "127.0.0.1")],
    ids=["IPv6 beside IPv4", "IPv4 beside IPv6"],
)
def test_a_loopback_address_is_known_where_the_machine_has_no_other_of_its_kind(own: str, loopback: str) -> None:
    """As in most containers: glibc's AI_ADDRCONFIG does not count loopback addresses."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip", path=PATH)
    if unshare is None or ip is None:
        pytest.skip("there is no unshare, or no ip")
    prepare = f'{ip} link set lo up && {ip} addr add {own} dev lo && exec "$0" -c "$1" {loopback}'
    command = [unshare, "--map-root-user", "--net", "sh", "-c", prepare, sys.executable, LOOK_UP]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "RTNETLINK" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == f"{loopback}\n", done.stderr


async def test_a_ca_file_that_is_no_certificate_is_a_mistake_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"upstream\.ca_file"):
        Dialer(UpstreamSettings(ca_file=tmp_path / "ca.pem"))
