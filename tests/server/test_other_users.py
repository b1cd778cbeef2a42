"""Other users of this machine: without a local key, they cannot act with this user's token."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.config import ListenSettings, Secret
from tests.support.clock import FakeTime
from tests.support.commands import pointed_at
from tests.support.pair import LOCAL_KEY, asked, pair, problem
from tests.support.programs import program, spawn
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, port_of, read_message
from tests.support.scripted import ScriptedUpstream
from tests.support.users import ANOTHER_USER, another_user, needs_users, socket_of_another_user
from tests.support.waiting import SOON, until
from tests.support.without_netlink import SOCKET


async def asked_by_another_user(url: str, request: bytes) -> Message:
    near = socket_of_another_user()
    near.connect(("127.0.0.1", port_of(url)))
    reader, writer = await asyncio.open_connection(sock=near)
    with closing(writer):
        writer.write(request)
        async with asyncio.timeout(SOON):
            return await read_message(reader)


@pytest.mark.parametrize("target", ["/v2/a", "/_slproxy/status.json", "/_slproxy/"])
async def test_another_user_is_refused_and_nothing_goes_up(target: str) -> None:
    needs_users()
    async with pair() as (upstream, app):
        document = problem(await asked_by_another_user(app.urls[0], get(target)), status=403, kind="user-refused")
        assert str(ANOTHER_USER) in str(document["detail"])
        assert "listen.key" in str(document["hint"])
        assert upstream.seen == []
        assert (await asked(app.urls[0], get("/v2/a"))).head.status == 200
        # Although the same bytes were just let in.
        problem(await asked_by_another_user(app.urls[0], get(target)), status=403, kind="user-refused")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(get("/_slproxy/healthz"), 200, id="a probe is answered"),
        pytest.param(get("/v2/a", host="evil.test"), 421, id="Host is looked at before"),
        pytest.param(get("/v2/a", "Origin: https://evil.test"), 403, id="Origin is looked at before"),
        pytest.param(get("/v2/a", "Via: 1.1 elsewhere"), 403, id="the user is looked at before Via"),
    ],
)
async def test_the_user_has_a_place_in_the_order_of_checks(request_bytes: bytes, status: int) -> None:
    needs_users()
    async with pair() as (upstream, app):
        answer = await asked_by_another_user(app.urls[0], request_bytes)
        assert answer.head.status == status
        assert (b"user-refused" in answer.body) == (b"elsewhere" in request_bytes)
        assert upstream.seen == []


@pytest.mark.parametrize(
    ("listen", "line", "status"),
    [
        pytest.param(ListenSettings(port=0, allow_other_users=True), (), 200, id="the setting lets them in"),
        pytest.param(
            ListenSettings(port=0, key=Secret(LOCAL_KEY)), (f"X-Slproxy-Key: {LOCAL_KEY}",), 200, id="so does the key"
        ),
        pytest.param(ListenSettings(port=0, key=Secret(LOCAL_KEY)), (), 401, id="without the key it is the key"),
    ],
)
async def test_what_lets_another_user_in(listen: ListenSettings, line: tuple[str, ...], status: int) -> None:
    needs_users()
    async with pair(listen=listen) as (_, app):
        assert (await asked_by_another_user(app.urls[0], get("/v2/a", *line))).head.status == status


async def test_a_write_of_another_user_who_sends_and_leaves_is_not_carried_out() -> None:
    """The kernel says uid 0 of a socket that nobody has open any more."""
    needs_users()
    async with pair() as (upstream, app):
        near = socket_of_another_user()
        near.connect(("127.0.0.1", port_of(app.urls[0])))
        near.send(get("/v2/a", method="POST", body=b"{}"))
        near.close()
        assert (await asked(app.urls[0], get("/v2/after"))).head.status == 200
        assert [message.head.target for message in upstream.seen] == ["/v2/after"]


async def test_another_user_is_refused_at_a_unix_socket_that_lets_them_connect() -> None:
    needs_users()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # noqa: PTH101  # nothing here blocks
        path = f"{folder}/s"
        async with ScriptedUpstream() as upstream:
            settings = replace(settings_for(upstream.url), listen=ListenSettings(uds=path, uds_mode=0o666))
            async with proxy(settings, clock=FakeTime().clock()):
                with another_user():
                    near = socket.socket(socket.AF_UNIX)
                    near.connect(path)
                reader, writer = await asyncio.open_unix_connection(sock=near)
                with closing(writer):
                    writer.write(get("/v2/a"))
                    problem(await read_message(reader), status=403, kind="user-refused")
            assert upstream.seen == []


@pytest.mark.skipif(platform.machine() not in SOCKET, reason="the filter is written for two processors")
async def test_where_the_kernel_cannot_be_asked_the_start_and_doctor_say_so_and_all_are_let_in(tmp_path: Path) -> None:
    confined = (sys.executable, "-m", "tests.support.without_netlink")
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY="ak_" + "0a1b2c" * 8)
        async with program("serve", home=tmp_path, env=env, before=confined) as running:
            await until(lambda: any("Every user of this machine" in line for line in running.errors))
            assert (await asked(running.url, get("/v2/a"))).head.status == 200
            if os.geteuid() == 0:
                assert (await asked_by_another_user(running.url, get("/v2/a"))).head.status == 200
        doctor = await spawn(["doctor"], tmp_path, env, stdin=asyncio.subprocess.DEVNULL, before=confined)
        found, _ = await doctor.communicate()
    users = next(line for line in found.decode().splitlines() if " users " in line)
    assert users.startswith("warning")
    assert "does not tell them apart" in users
