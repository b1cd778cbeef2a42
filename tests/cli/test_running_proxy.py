"""Commands beside a proxy that is up: they ask it, name it, and tell its key to nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slproxy.sockets import Peers
from tests.support.commands import KEY, free_port, logged_in, oauth, pointed_at, run_here, sandboxed
from tests.support.programs import Program, program, run
from tests.support.raw_http import port_of

pytestmark = pytest.mark.heavy

WHO = "Authenticated as: Jane Smith (jane@company.com)\n"
NOBODY = 65534


@asynccontextmanager
async def beside(tmp_path: Path, **more: str) -> AsyncIterator[tuple[Program, Path, dict[str, str]]]:
    """A proxy with an API key, and the home and settings of somebody who has none but knows where it listens."""
    home = tmp_path / "without"
    home.mkdir()
    async with sandboxed() as sandbox:
        env = pointed_at(sandbox.url, SLPROXY_LISTEN__PORT=str(free_port()), **more)
        async with program("serve", home=tmp_path, env=env | {"SALESLOFT_API_KEY": KEY}) as server:
            yield server, home, env


async def test_without_credentials_the_proxy_that_is_up_is_asked(tmp_path: Path) -> None:
    async with beside(tmp_path) as (server, home, env):
        assert await run_here("whoami", home=home, env=env) == (0, WHO, "")
        facts = json.loads((await run_here("whoami", "--json", home=home, env=env)).out)
        assert (facts["data"]["name"], facts["grant"]) == ("Jane Smith", "api_key")
        code, out, err = await run_here("token", home=home, env=env)
        assert (code, out) == (3, "")
        where = f"127.0.0.1:{port_of(server.url)}"
        assert f"No credentials are set. The proxy at {where} has a token, and does not hand it out." in err
        findings = json.loads((await run_here("doctor", "--json", home=home, env=env)).out)
        (found,) = [each for each in findings if each["check"] == "credentials"]
        assert found["state"] == "ok"
        assert f"the proxy at {where} has some: api_key" in found["detail"]
        assert "Jane Smith" in found["detail"]
        # That of another profile is another identity.
        assert (await run_here("whoami", "--profile", "other", home=home, env=env)).code == 3


async def test_the_proxy_that_is_asked_may_itself_be_in_trouble(tmp_path: Path) -> None:
    async with beside(tmp_path, SLPROXY_UPSTREAM__CONNECT_TIMEOUT="1", SLPROXY_RETRY__ATTEMPTS="1") as (_, home, env):
        pass
    code, out, err = await run_here("whoami", home=home, env=env)
    assert (code, out, err.splitlines()[0]) == (3, "", "slproxy: No credentials are set.")
    async with program("serve", home=home, env=env):
        code, out, err = await run_here("whoami", home=home, env=env)
    assert (code, out) == (3, ""), "a login is needed, whoever says so"
    assert "is not ready: No credentials are set." in err


async def test_what_the_proxy_that_is_asked_says_of_salesloft_is_passed_on(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    env = pointed_at(nowhere, SLPROXY_LISTEN__PORT=str(free_port()), SLPROXY_RETRY__ATTEMPTS="1")
    async with program("serve", home=tmp_path, env=env | {"SALESLOFT_API_KEY": KEY}) as server:
        code, out, err = await run_here("whoami", home=tmp_path, env=env)
    assert (code, out) == (1, "")
    said = f"slproxy: The proxy at 127.0.0.1:{port_of(server.url)} could not ask SalesLoft: "
    assert err == f"{said}SalesLoft's host refused the connection.\n  Check the network and upstream.api_url.\n"


@pytest.mark.parametrize("key", ["", "another-key"])
async def test_a_port_that_is_taken_by_a_proxy_of_ours_is_said_to_be(tmp_path: Path, key: str) -> None:
    async with beside(tmp_path, **({"SLPROXY_LISTEN__KEY": "its-own-key-of-16"} if key else {})) as (
        server,
        home,
        given,
    ):
        env = given | {"SALESLOFT_API_KEY": KEY} | ({"SLPROXY_LISTEN__KEY": key} if key else {})
        where = f"127.0.0.1:{port_of(server.url)}"
        known = ", with another local key." if key else f" (pid {server.process.pid}, profile default)."
        code, _, err = await run("serve", home=home, env=env)
        assert (code, f"slproxy is already running at {where}{known}" in err) == (2, True), err
        assert (f"Use that one, stop it (kill {server.process.pid})," in err) is not bool(key)
        findings = json.loads((await run_here("doctor", "--json", home=home, env=env)).out)
        (found,) = [each for each in findings if each["check"] == "port"]
        assert (found["state"], where in found["detail"]) == ("broken" if key else "ok", True), found


async def test_doctor_takes_no_plain_file_for_a_free_socket(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY)
        del env["SLPROXY_LISTEN__PORT"]
        (tmp_path / "file").write_text("mine")
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(tmp_path / "stale"))
        states = {}
        for name in ("file", "stale", "new", "none/new"):
            out = (await run_here("doctor", "--json", "--uds", str(tmp_path / name), home=tmp_path, env=env)).out
            states[name] = [each["state"] for each in json.loads(out) if each["check"] == "port"]
    assert states == {"file": ["broken"], "stale": ["ok"], "new": ["ok"], "none/new": ["broken"]}


THEIRS = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
if sys.argv[1] == "uds":
    os.umask(0)
    listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[2]); listener.listen()
else:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
print("up", flush=True)
while True:
    client, _ = listener.accept()
    print(client.recv(4096), flush=True)
    client.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("kind", ["port", "uds"])
async def test_the_local_key_is_told_to_no_listener_of_another_user(tmp_path: Path, kind: str) -> None:
    with Peers() as peers:
        if peers.why_unknown:
            pytest.skip(peers.why_unknown)
    folder = Path(tempfile.mkdtemp())  # pytest's own nobody else may enter
    os.chmod(folder, 0o777)  # noqa: PTH101  # for the other user
    place = str(free_port()) if kind == "port" else str(folder / "s")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", THEIRS, kind, place), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"up\n"
        listen = {"SLPROXY_LISTEN__PORT": place} if kind == "port" else {"SLPROXY_LISTEN__UDS": place}
        env = {**listen, "SLPROXY_LISTEN__KEY": "marker-local-key-16"}
        said = f"Another user's program (uid {NOBODY}) listens {'on port' if kind == 'port' else 'at'} {place}"
        code, out, err = await run_here("whoami", home=tmp_path, env=env)
        assert (code, out, said in err) == (3, "", True), err
        out = (await run_here("status", home=tmp_path, env=env)).out
        assert said in out
        facts = json.loads((await run_here("status", "--json", home=tmp_path, env=env)).out)
        assert facts["proxy"]["uid"] == NOBODY
        assert said in (await run_here("token", home=tmp_path, env=env)).err
        # It got connections, and nothing over them.
        for _ in range(4):
            assert await process.stdout.readline() == b"b''\n"
    finally:
        process.kill()
        await process.wait()
        shutil.rmtree(folder)


async def test_a_proxy_of_this_user_is_shown_its_key(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        env = oauth(sandbox, SLPROXY_LISTEN__KEY="marker-local-key-16", SLPROXY_LISTEN__PORT=str(free_port()))
        async with program("serve", home=tmp_path, env=env):
            facts = json.loads((await run_here("status", "--json", home=tmp_path, env=env)).out)
    assert facts["proxy"]["ready"] is True
