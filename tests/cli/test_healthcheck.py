"""``slproxy healthcheck``: whether the proxy that the settings describe is up, and if not, why."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slproxy import config
from slproxy.cli.listening import listening
from slproxy.errors import ConfigError
from tests.support import ROOT
from tests.support.commands import KEY, free_port, pointed_at, run_here
from tests.support.programs import environment, program, run
from tests.support.raw_http import port_of

LOCAL_KEY = "local-key-0123456789"
NOBODY = "http://127.0.0.1:9"


async def checked(home: Path, *words: str, **env: str) -> tuple[int, str]:
    """Return the exit code and what it says, which is the same however the command line is read."""
    code, out, err = await run("healthcheck", *words, home=home, env=env)
    assert out == ""
    assert await run_here("healthcheck", *words, home=home, env=env) == (code, out, err)
    assert err.count("\n") == code, "one line where it fails, none where it does not"
    return code, err


@asynccontextmanager
async def listener(reply: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Something that listens and answers each request with ``reply``, or never; and the requests it got."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        if reply is None:
            await reader.read()
        else:
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


async def test_a_proxy_that_is_up_is_found_by_every_way_to_say_where_it_listens(tmp_path: Path) -> None:
    port = str(free_port())
    env = pointed_at(NOBODY, SALESLOFT_API_KEY=KEY, SLPROXY_LISTEN__PORT=port)
    async with program("serve", home=tmp_path, env=env):
        for file in ("named.toml", "slproxy.toml"):
            (tmp_path / file).write_text(f"[profile.other.listen]\nport = {port}\n[listen]\nport = {port}\n")
            (tmp_path / file).chmod(0o600)
            assert await checked(tmp_path, *(["--config", file] if file == "named.toml" else [])) == (0, "")
        assert await checked(tmp_path, "--profile=other") == (0, "")
        assert await checked(tmp_path, SLPROXY_LISTEN__PORT=port) == (0, "")
        assert await checked(tmp_path, "--port", port, "--ready") == (0, "")
        assert await checked(tmp_path, "--host", "localhost", f"--port={port}") == (0, "")
        assert await checked(tmp_path, "-v", "-p", port, "--log-level=debug") == (0, "")
        assert await checked(tmp_path, f"-p{port}", "-q") == (0, "")
        assert (await run_here("--port", port, "healthcheck", home=tmp_path)).code == 0
    code, said = await checked(tmp_path, "--port", port)
    assert (code, said) == (1, f"slproxy: not running at 127.0.0.1:{port}: Connection refused\n")


# Another process is the first in it.
CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc")


@cache
def is_container_allowed() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*CONTAINER, "true"], check=False).returncode


@pytest.mark.parametrize("flags", ["-v --port={port}", "--log-level debug -p {port}", "-q -p{port} --read-only"])
async def test_in_a_container_the_flags_of_its_first_process_count(tmp_path: Path, flags: str) -> None:
    if not is_container_allowed():
        pytest.skip("no namespace of processes can be made here")
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path) as server:
        first = f"proxy.py serve {flags.format(port=port_of(server.url))}"
        check = f'"{sys.executable}" "{ROOT}/proxy.py" healthcheck; exit $?'
        process = await asyncio.create_subprocess_exec(
            *(*CONTAINER, "bash", "-c", check, *first.split()),
            cwd=tmp_path,
            env=environment(tmp_path),
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_a_proxy_on_a_unix_socket_or_on_every_address_is_found(tmp_path: Path) -> None:
    env = pointed_at(NOBODY, SALESLOFT_API_KEY=KEY)
    del env["SLPROXY_LISTEN__PORT"]
    async with program("serve", "--uds", "socket", home=tmp_path, env=env):
        assert await checked(tmp_path, "--uds", "socket") == (0, "")
        assert await checked(tmp_path, "--ready", SLPROXY_LISTEN__UDS=str(tmp_path / "socket")) == (0, "")
    said = f"slproxy: not running at unix:{tmp_path}/missing: No such file or directory\n"
    assert await checked(tmp_path, "--uds", "missing") == (1, said)
    everywhere = {"SLPROXY_LISTEN__HOST": "0.0.0.0", "SLPROXY_LISTEN__KEY": LOCAL_KEY}
    async with program("serve", "--port", "0", home=tmp_path, env=env | everywhere) as server:
        assert await checked(tmp_path, "--port", str(port_of(server.url)), **everywhere) == (0, "")


async def test_why_it_is_not_ready_is_told_in_a_line_and_without_the_key(tmp_path: Path) -> None:
    env = pointed_at(NOBODY, SLPROXY_LISTEN__KEY=LOCAL_KEY, SLPROXY_LISTEN__PORT=str(free_port()))
    async with program("serve", home=tmp_path, env=env):
        del env["SLPROXY_LISTEN__KEY"]
        assert await checked(tmp_path, **env) == (0, "")
        code, said = await checked(tmp_path, "--ready", **env)
    assert code == 1
    assert said.startswith("slproxy: not ready (503): No credentials are set. Set SALESLOFT_API_KEY, or ")


async def test_what_else_answers_or_does_not_is_told(tmp_path: Path) -> None:
    async with listener(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, _):
        said = f"slproxy: another program answers at 127.0.0.1:{port}\n"
        assert await checked(tmp_path, "--port", str(port)) == (1, said)
    async with listener(None) as (port, _):
        assert (await run("healthcheck", "--port", str(port), home=tmp_path))[::2] == (
            1,
            f"slproxy: no answer at 127.0.0.1:{port} within 3 s\n",
        )
    assert (await checked(tmp_path, "--port", "0"))[1].startswith("slproxy: listen.port is 0, which names no port")
    for wrong in ("wrong", 4 * "0123456789abcdef"):
        code, err = await checked(tmp_path, SLPROXY_LISTEN__PORT=wrong)
        assert (code, err.startswith("slproxy: listen.port is no number"), wrong in err) == (1, True, False)
    (tmp_path / "wrong.toml").write_text("[listen")
    told = f"slproxy: the configuration file is not valid TOML: {tmp_path}/wrong.toml: slproxy config says why\n"
    assert await checked(tmp_path, "--config", "wrong.toml") == (1, told)


@pytest.mark.parametrize("name", ["LISTEN__HOST", "LISTEN__PORT", "LISTEN__UDS", "CONFIG"])
async def test_an_api_key_in_the_place_of_an_address_is_told_and_not_repeated(name: str, tmp_path: Path) -> None:
    code, said = await checked(tmp_path, **{f"SLPROXY_{name}": KEY})
    assert code == 1
    assert "looks like an API key of SalesLoft's: slproxy config says why" in said
    assert KEY.removeprefix("ak_")[:16] not in said


async def test_a_mistake_in_other_settings_leaves_a_proxy_that_is_up_healthy(tmp_path: Path) -> None:
    """It changes nothing of one that runs (docs/contract.md, Settings), so that a restart would only end it."""
    env = pointed_at(NOBODY, SALESLOFT_API_KEY=KEY, SLPROXY_LISTEN__PORT=str(free_port()))
    async with program("serve", home=tmp_path, env=env):
        broken = env | {
            "SLPROXY_RETRY__ATTEMPTS": "many",
            "SALESLOFT_API_KEY_FILE": "/missing",
            "SLPROXY_NONSENSE": "1",
        }
        assert await checked(tmp_path, **broken) == (0, "")


LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "host": st.sampled_from(["127.0.0.1", "0.0.0.0", "::1", "[::1]", "proxy.test"]),
        "port": st.integers(1, 65535),
    },
) | st.fixed_dictionaries({}, optional={"uds": st.sampled_from(["s", "/run/s"])})
Layer = Mapping[str, object]


@given(*(LAYERS for _ in range(4)), st.sampled_from(["default", "other"]), st.booleans())
def test_it_looks_where_serve_would_listen(
    tmp_path_factory: pytest.TempPathFactory,
    file: Layer,
    special: Layer,
    dotenv: Layer,
    environ: Layer,
    profile: str,
    named: bool,
) -> None:
    home = tmp_path_factory.getbasetemp() / "layers"
    (home / "conf").mkdir(parents=True, exist_ok=True)
    (home / "slproxy.toml").unlink(missing_ok=True)
    path = home / "conf" / "slproxy.toml" if named else home / "slproxy.toml"
    tables = (("listen", file), ("profile.other.listen", special))
    path.write_text(
        "".join(f"[{table}]\n" + "".join(f"{name} = {layer[name]!r}\n" for name in layer) for table, layer in tables)
    )
    (home / ".env").write_text("".join(f"SLPROXY_LISTEN__{name.upper()}={value}\n" for name, value in dotenv.items()))
    variables = {f"SLPROXY_LISTEN__{name.upper()}": str(value) for name, value in environ.items()}
    variables |= {"XDG_STATE_HOME": str(home), "XDG_CONFIG_HOME": str(home), "SLPROXY_PROFILE": profile}
    config_file = path if named else None
    try:
        wanted = config.load(
            config=config_file, profile=None, flags={}, environ=variables, cwd=home, sandbox=True
        ).listen
    except ConfigError:
        with pytest.raises(ValueError, match="on a socket or on a port, not both"):
            listening({"config": str(path)} if named else {}, variables, home)
        return

    found = listening({"config": str(path)} if named else {}, variables, home)

    assert (found["host"].strip("[]"), found["port"], found.get("uds")) == (wanted.host, str(wanted.port), wanted.uds)


@pytest.mark.parametrize(
    ("words", "env", "both"),
    [
        (["--port", "1"], {"UDS": "/none"}, "--port and listen.uds"),
        (["--host", "::1"], {"UDS": "/none"}, "--host and listen.uds"),
        (["--uds", "/none"], {"PORT": "1"}, "listen.port and --uds"),
        ([], {"UDS": "/none", "PORT": "1", "HOST": "::1"}, "listen.host and listen.port and listen.uds"),
    ],
)
async def test_a_socket_and_a_port_clash_for_who_looks_as_for_serve(
    words: list[str], env: dict[str, str], both: str, tmp_path: Path
) -> None:
    """Whichever was meant: to pick one would tell of another proxy than the one that is up."""
    clash = "the proxy listens on a socket or on a port, not both"
    env = {f"SLPROXY_LISTEN__{name}": value for name, value in env.items()}
    assert await checked(tmp_path, *words, **env) == (1, f"slproxy: {both} are set: {clash}\n")
    for command in ("serve", "status", "inspect", "doctor", "config"):
        code, out, err = await run_here(command, *words, home=tmp_path, env=env)
        assert code == 2
        assert clash in out + err


async def test_what_it_asks_for_is_what_the_proxy_has(tmp_path: Path) -> None:
    ok = b"HTTP/1.1 200 OK\r\nProxy-Status: slproxy\r\nContent-Length: 0\r\n\r\n"
    async with listener(ok) as (port, requests):
        await checked(tmp_path, "--port", str(port))
        await checked(tmp_path, "--port", str(port), "--ready")
    pages = [request.split()[1].decode() for request in requests]
    assert pages == [config.PROBES[0]] * 2 + [config.PROBES[1]] * 2
    assert {request.split(b"\r\n")[1] for request in requests} == {b"Host: localhost"}
