"""``log.audit`` of a real process: killed at any moment, rotated, and shared with the commands that log in and out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
from pathlib import Path

import pytest

from tests.support.commands import KEY, log_in, no_secret_in, oauth, pointed_at, run_here, sandboxed
from tests.support.programs import Program, program
from tests.support.raw_http import Message, get, port_of, raw, read_message, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.strace import under_strace
from tests.support.waiting import until

# How many requests a process has answered at most when it is killed.
MOST = 30


async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a length or in chunks, in one piece or in several."""
    ending = b"x" * 5_000
    if "chunks" in message.head.target:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n" + ending + b"\r\n")
        ending = b"0\r\n\r\n"
    else:
        writer.write(reply(body=ending * 2)[:-5_000])
    if "slow" in message.head.target:
        await writer.drain()
        await asyncio.sleep(0.005)
    writer.write(ending)


TARGETS = ("/v2/length", "/v2/slow/length", "/v2/chunks", "/v2/slow/chunks", "/_slproxy/status.json", "/nothing")


def ids_in(path: Path) -> list[object]:
    return [json.loads(line).get("id") for line in path.read_text().splitlines()]


def audited(url: str, path: Path, **more: str) -> dict[str, str]:
    return pointed_at(url, SALESLOFT_API_KEY=KEY, SLPROXY_LOG__AUDIT=str(path), SLPROXY_LOG__LEVEL="error", **more)


async def ask_on(url: str, name: str, whole: list[str]) -> None:
    """Ask for one thing after the other until the proxy dies, and note what was answered whole."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
        with contextlib.closing(writer):
            for number in range(100_000):
                target = random.choice(TARGETS)
                writer.write(get(target, f"X-Request-Id: {name}-{number}"))
                await read_message(reader)
                whole.append(f"{name}-{number}")


async def test_a_kill_loses_no_line_of_what_a_client_has_whole(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    path, kills = tmp_path / "audit", pytestconfig.getoption("--kills")
    whole: list[str] = []
    left = iter(range(kills))

    async def kill_again_and_again(url: str) -> None:
        for kill in left:
            async with program("serve", home=tmp_path, env=audited(url, path)) as running:
                mine: list[str] = []
                clients = [asyncio.create_task(ask_on(running.url, f"{kill}-{turn}", mine)) for turn in range(4)]
                enough = random.randrange(MOST)
                await until(lambda: len(mine) >= enough)  # noqa: B023  # it ends before the next round
                await running.stop(9)
                await asyncio.gather(*clients)
                whole.extend(mine)

    # Several processes write to the same file.
    async with ScriptedUpstream(script) as upstream, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(kill_again_and_again(upstream.url))
    told = set(ids_in(path))
    with capsys.disabled():
        print(f" {kills} kills, {len(whole)} answers whole, {len(told)} lines")
    assert len(whole) > kills, "most died with some answered"
    assert [each for each in whole if each not in told] == []


SEND = re.compile(r"(?:\d+ +)?(?:write|sendto|sendmsg|writev)\((\d+), (.*)")


async def test_a_line_is_written_before_the_last_byte_of_its_answer_goes(tmp_path: Path) -> None:
    path, trace = tmp_path / "audit", tmp_path / "trace"
    arguments = ["-f", "-s", "100000", "-o", str(trace), "-e", "trace=write,sendto,sendmsg,writev"]
    requests = [
        *(get(target, "X-Request-Id: mine") for target in TARGETS),
        get("/v2/a", "X-Request-Id: mine", method="HEAD"),
    ]
    async with (
        ScriptedUpstream(script) as upstream,
        program("serve", home=tmp_path, env=audited(upstream.url, path)) as running,
        under_strace(running.process.pid, arguments),
    ):
        writers = []
        for request in requests:
            # Each on a connection of its own, none of which is closed meanwhile: so each has a descriptor of its own.
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(running.url))
            writers.append(writer)
            writer.write(request)
            await read_message(reader, has_body=not request.startswith(b"HEAD"))
        for writer in writers:
            writer.close()
        await running.stop()
    calls = [found.groups() for line in trace.read_text().splitlines() if (found := SEND.match(line))]
    lines = [at for at, (_, data) in enumerate(calls) if r"\"id\": \"mine\"" in data]
    heads = [
        (at, call[0]) for at, call in enumerate(calls) if r"X-Request-Id: mine\r" in call[1] and '"HTTP/1.1 ' in call[1]
    ]
    assert len(lines) == len(heads) == len(requests)
    for written, (_, client), request in zip(lines, heads, requests, strict=True):
        assert written < max(at for at, call in enumerate(calls) if call[0] == client), request


async def test_what_was_rotated_is_opened_anew_at_sighup_whatever_the_settings_say(tmp_path: Path) -> None:
    path = tmp_path / "audit"

    async def rotate(running: Program, name: str) -> None:
        path.rename(tmp_path / name)
        running.process.send_signal(1)
        await until(path.exists)

    async with (
        ScriptedUpstream() as upstream,
        program("serve", home=tmp_path, env=audited(upstream.url, path)) as running,
    ):
        await raw(running.url, get("/v2/a", "X-Request-Id: first"))
        await rotate(running, "audit.1")
        await raw(running.url, get("/v2/a", "X-Request-Id: second"))
        (tmp_path / "slproxy.toml").write_text("[log]\nnothing = 1\n")
        await rotate(running, "audit.2")
        await raw(running.url, get("/v2/a", "X-Request-Id: third"))
        await until(lambda: "reload failed" in running.output)
    files = ("audit.1", "audit.2", "audit")
    assert [[each for each in ids_in(tmp_path / name) if each in ("first", "second", "third")] for name in files] == [
        ["first"],
        ["second"],
        ["third"],
    ]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_commands_that_log_in_renew_and_log_out_write_their_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with sandboxed(token_lifetime=1.0) as sandbox:
        env = oauth(sandbox, SLPROXY_LOG__AUDIT=str(path))
        await log_in(tmp_path, env)
        await asyncio.sleep(1.0)
        assert (await run_here("token", home=tmp_path, env=env)).code == 0
        assert (await run_here("logout", home=tmp_path, env=env)).code == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    events = [line for line in lines if line["kind"] != "request"]
    assert [line["kind"] for line in events] == ["login", "renewal", "logout"]
    assert "stored in" in events[0]["detail"]
    assert events[1]["outcome"] == "renewed"
    assert "revoked at SalesLoft" in events[2]["detail"]
    assert [(line["client"], line["path"]) for line in lines if line["kind"] == "request"] == [
        ("slproxy", "/v2/me.json")
    ]
    no_secret_in(path.read_text())
