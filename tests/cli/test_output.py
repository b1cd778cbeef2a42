"""What commands print: shown and never obeyed, in any encoding; and lost output is never done."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.commands import KEY, free_port, pointed_at, run_here
from tests.support.programs import environment, program, spawn, verified
from tests.support.raw_http import Message, port_of, reply
from tests.support.scripted import ScriptedUpstream

pytestmark = pytest.mark.heavy

NAME = "J\x1b[2Jane\r\n\u202e Sm\u2028ith Ł \ud800"
ME = json.dumps({"data": {"id": 1, "team": {"id": 3}, "name": NAME, "email": "jane@company.com"}}).encode()
SHOWN = "Authenticated as: J\\x1b[2Jane\\r\\n\\u202e Sm\\u2028ith Ł \\ud800 (jane@company.com)\n"
FULL = Path("/dev/full")
LOST = "slproxy: Cannot write to standard output"
# Each command that prints a result, as far as it needs no upstream.
RESULTS = [
    ["token"],
    ["token", "--json"],
    ["config"],
    ["config", "--json"],
    ["status"],
    ["status", "--json"],
    ["profiles"],
    ["--help"],
    ["--version"],
    ["doctor"],
]


async def shell(line: str, home: Path, env: dict[str, str]) -> tuple[int, str, str]:
    """Run a line of a shell in which ``slproxy`` is the program."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", f'slproxy() {{ "{sys.executable}" -m slproxy "$@"; }}; {line}'),
        cwd=home,
        env=environment(home, **env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def as_me(body: bytes) -> ScriptedUpstream:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", body))

    return ScriptedUpstream(script)


async def test_a_name_is_shown_and_not_obeyed_in_whatever_encoding(tmp_path: Path) -> None:
    async with as_me(ME) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        assert await run_here("whoami", home=tmp_path, env=env) == (0, SHOWN, "")
        code, out, err = await shell("slproxy whoami", tmp_path, env | {"PYTHONIOENCODING": "ascii"})
    assert (code, out, err) == (0, SHOWN.replace("Ł", "\\u0141"), "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b'{"data":{"id":' + b"9" * 5_000 + b"}}", id="a number of thousands of digits"),
        pytest.param(ME + b" " * 2**20, id="more than a mebibyte"),
    ],
)
async def test_a_reply_that_is_none_is_an_error_of_one_line(tmp_path: Path, body: bytes) -> None:
    async with as_me(body) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        for arguments in (["whoami"], ["whoami", "--json"]):
            code, out, err = await run_here(*arguments, home=tmp_path, env=env)
            assert (code, out, err.count("slproxy: ")) == (1, "", 1), err
            assert "Traceback" not in err


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"[" * 100_000, "something answers at"),
        (b"x" * 2**21, "something answers at"),
        (b'{"detail":"\\u001b[2J\\nproxy     up"}', r"\x1b[2J\nproxy     up"),
        (
            b'{"version":"\\u001b[2J","profile":"default","ready":true,"token":7,"budget":{"limit":1e999}}',
            "something answers",
        ),
    ],
    ids=["deep", "endless", "escapes", "no proxy"],
)
async def test_whatever_listens_on_the_port_status_has_its_rows(tmp_path: Path, body: bytes, shown: str) -> None:
    async with as_me(body) as other:
        env = {"SLPROXY_LISTEN__PORT": str(port_of(other.url)), "SALESLOFT_API_KEY": KEY}
        code, out, err = await run_here("status", home=tmp_path, env=env)
    (row,) = [line for line in out.splitlines() if line.startswith("proxy")]
    assert (code, err, shown in row) == (0, "", True), row
    assert "\x1b" not in out


async def test_what_a_running_proxy_says_of_itself_begins_no_line_of_ours(tmp_path: Path) -> None:
    said = {"version": "1", "profile": "default", "pid": "1\nslproxy: x", "reason": {"detail": "a\nb", "hint": "c\nd"}}
    async with as_me(json.dumps(said).encode()) as other:
        env = {"SLPROXY_LISTEN__PORT": str(port_of(other.url))}
        _, _, err = await run_here("whoami", home=tmp_path, env=env)
        _, _, busy = await shell("slproxy serve", tmp_path, env | {"SALESLOFT_API_KEY": KEY})
    assert err == f"slproxy: The proxy at 127.0.0.1:{port_of(other.url)} is not ready: a\\nb\n  c\\nd\n"
    assert "(pid 1\\nslproxy: x, profile default)" in busy


async def test_a_log_line_for_a_person_obeys_nothing(tmp_path: Path) -> None:
    async with as_me(ME) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY, SLPROXY_LOG__FORMAT="pretty")
        async with program("serve", home=tmp_path, env=env) as server:
            assert SHOWN.strip() in await verified(server)


async def with_output(arguments: list[str], home: Path, env: dict[str, str], stdout: int) -> tuple[int, str]:
    """Run a command whose standard output is ``stdout``; return its exit code and standard error."""
    process = await spawn(arguments, home, env, stdin=asyncio.subprocess.DEVNULL, stdout=stdout)
    _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
async def test_lost_output_is_one_line_and_exit_1_and_who_has_gone_need_not_be_told(tmp_path: Path) -> None:
    env = {
        "SALESLOFT_API_KEY": KEY,
        "SLPROXY_LISTEN__PORT": str(free_port()),
        "SLPROXY_UPSTREAM__API_URL": "http://127.0.0.1:9",
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": "http://127.0.0.1:9",
        "SLPROXY_RETRY__ATTEMPTS": "1",
    }
    gone, closed = os.pipe()
    os.close(gone)
    with os.fdopen(os.open(FULL, os.O_WRONLY), "wb") as full, os.fdopen(closed, "wb") as unread:
        for number, arguments in enumerate(RESULTS):
            unbuffered = {"PYTHONUNBUFFERED": "1"[number % 2 :]}  # as many images have it
            code, err = await with_output(arguments, tmp_path, env | unbuffered, full.fileno())
            assert (code, err.splitlines()[:1]) == (1, [f"{LOST}: No space left on device."]), (arguments, err)
            assert len(err.splitlines()) == 2, err
            assert await with_output(arguments, tmp_path, env, unread.fileno()) == (1, ""), arguments


async def test_streams_that_are_closed_from_the_start_are_no_traceback_and_no_success(tmp_path: Path) -> None:
    lost, api_key = (
        f"{LOST}: Bad file descriptor.\n  The result was lost: check the disk, or where the output goes.\n",
        {"SALESLOFT_API_KEY": KEY},
    )
    results = await asyncio.gather(
        shell("slproxy token >&-", tmp_path, api_key),
        shell("slproxy token >/dev/full", tmp_path, api_key | {"PYTHONIOENCODING": "ascii"}),
        shell("slproxy token 2>&-", tmp_path, {}),
        shell("slproxy --help >&- 2>/dev/full", tmp_path, {}),
    )
    assert results[0] == (1, "", lost)
    assert (results[1][0], results[1][2].splitlines()[0]) == (1, f"{LOST}: No space left on device.")
    assert [*results[2:]] == [(3, "", ""), (1, "", "")]


@pytest.mark.parametrize("line", ["config --port 9000 --read-only", "--port 9000 --read-only config"])
async def test_config_shows_what_serve_would_make_of_its_flags(tmp_path: Path, line: str) -> None:
    env = {"SLPROXY_LISTEN__PORT": "9001", "SLPROXY_LISTEN__HOST": "127.0.0.2"}
    code, out, err = await run_here(*line.split(), "--json", home=tmp_path, env=env)
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown["listen.port"] == {"value": 9000, "origin": "flag --port"}
    assert shown["policy.read_only"] == {"value": True, "origin": "flag --read-only"}
    assert shown["listen.host"] == {"value": "127.0.0.2", "origin": "env SLPROXY_LISTEN__HOST"}
