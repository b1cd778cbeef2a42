"""``slproxy status --watch``: what it draws on a terminal, and what it prints where there is none."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import termios
from collections.abc import Mapping
from pathlib import Path

import pytest

import slproxy
from slproxy.cli.watch_text import Lines, screen
from tests.support.commands import KEY, free_port, pointed_at, state_of
from tests.support.programs import program, spawn
from tests.support.proxies import settings_for
from tests.support.raw_http import get, raw
from tests.support.scripted import ScriptedUpstream
from tests.support.terminals import terminal
from tests.support.waiting import PATIENCE, until

SETTINGS = settings_for("https://api.salesloft.com")
AT = 1_795_000_000.0

ROW = {
    "n": 1,
    "kind": "request",
    "at": AT,
    "client": "report",
    "method": "GET",
    "path": "/v2/people",
    "status": 200,
    "attempts": 1,
    "cost": 1,
    "wait_ms": 0.0,
    "token_ms": 0.0,
    "ms": 12.34,
    "error": "",
    "ended": "",
    "not_retried": "",
}
BUDGET = {
    "mode": "pace",
    "limit": 600,
    "ours": 600,
    "remaining": 150,
    "resets_in": 41.2,
    "window": "minute",
    "shared": None,
    "alone": False,
    "queue": {"interactive": 1, "bulk": 1},
    "waiting": {"report": 1, "sync (bulk)": 1},
    "this_minute": {"by_client": {"report": 450}, "by_endpoint": {"GET /v2/people": 450}, "by_others": 0},
    "last_minutes": [],
}
PROXY: Mapping[str, object] = {
    "version": slproxy.__version__,
    "pid": 1,
    "profile": "default",
    "upstream": "https://api.salesloft.com",
    "reason": None,
    "token": {"grant": "api_key", "last_renewal": {"at": 0, "outcome": "renewed"}},
    "budget": BUDGET,
    "requests": {"in_flight": 3},
    "recent": [ROW],
}


def drawn(proxy: Mapping[str, object] | None, *, width: int = 120, height: int = 40) -> list[str]:
    return screen(proxy, SETTINGS, at=AT, width=width, height=height)


def test_a_screen_shows_the_budget_who_waits_the_renewal_and_the_last_requests_newest_first() -> None:
    late = ROW | {"n": 2, "path": "/v2/" + "a" * 99, "status": 503, "attempts": 4, "wait_ms": 1200.0, "token_ms": 300.0}
    late |= {"error": "upstream-unreachable", "not_retried": "no attempts left", "cost": None}
    note = {"n": 3, "kind": "renewal", "at": AT, "note": "rejected: renewed"}
    lines = drawn({**PROXY, "recent": [ROW, late, note]})
    rows = {line[:9].strip(): line[10:] for line in lines[1:] if not line.startswith("time")}
    assert rows["proxy"].endswith("using api_key, ready")
    assert "          [##########..............................]" in lines
    assert rows["budget"] == "150 of 600 left, resets in 42 s; 2 requests waiting: report 1, sync (bulk) 1"
    assert rows["in flight"] == "2 requests", "without its own"
    assert rows["renewal"] == "1970-01-01 00:00:00Z: renewed"
    newest, second, why, last = lines[-4:]
    assert newest.endswith("renewal: rejected: renewed")
    assert re.search(r" report +GET +/v2/a+… +503 +4 +1\.5 s +12\.3 ms$", second)
    assert why == "         upstream-unreachable, not retried: no attempts left"
    assert re.search(r" report +GET +/v2/people +200 +1 +1 +12\.3 ms$", last)


def test_eighty_columns_are_enough_for_a_request() -> None:
    row = ROW | {"path": "/v2/people/123456.json", "method": "OPTIONS", "wait_ms": 59_900.0, "ms": 119_000.1}
    *_, head, line = drawn({**PROXY, "recent": [row]}, width=80)
    assert line.endswith(" OPTIONS /v2/people/123456…    200    1    1 59.9 s   119.0 s")
    assert len(head) == len(line) == 80


def test_what_is_longer_than_a_line_goes_on_below_for_its_end_is_what_to_do() -> None:
    reason = {"detail": "SalesLoft no longer accepts the stored login: " + "x" * 30, "hint": "Run: slproxy login"}
    said = f"{reason['detail']} {reason['hint']}"
    note = {"n": 2, "kind": "refusal", "at": AT, "note": said}
    lines = drawn({**PROXY, "reason": reason, "recent": [note]}, width=60)
    assert " ".join(line.strip() for line in lines).count(said) == 2
    assert all(len(line) <= 60 for line in lines if not line.startswith("time "))


@pytest.mark.parametrize("height", [1, 5, 12])
def test_a_screen_has_no_more_lines_than_the_terminal(height: int) -> None:
    assert len(drawn({**PROXY, "recent": [ROW] * 50}, height=height)) == height


@pytest.mark.parametrize(
    ("proxy", "says"),
    [
        (None, "not running at "),
        ({}, "not as slproxy"),
        ({**PROXY, "recent": None}, "inspect.enabled"),
        ({**PROXY, "recent": [{"kind": "request"}]}, "another version"),
        ({**PROXY, "budget": {"ours": 0, "remaining": 0}}, "another version"),
    ],
    ids=["nobody", "another program", "without the inspector", "rows of another kind", "a budget of another kind"],
)
def test_a_screen_says_what_it_cannot_show(proxy: Mapping[str, object] | None, says: str) -> None:
    assert any(says in line for line in drawn(proxy))
    assert Lines(SETTINGS).news(proxy, at=AT) or proxy == {**PROXY, "recent": None}


def test_lines_tell_each_thing_once_and_again_when_it_changes() -> None:
    lines = Lines(SETTINGS)
    first = [line[9:] for line in lines.news(PROXY, at=AT)]
    assert first[1:] == [
        "budget: 150 of 600 left; 2 requests waiting: report 1, sync (bulk) 1",
        "renewal: 1970-01-01 00:00:00Z: renewed",
        "GET /v2/people 200 12.3 ms, report",
    ]
    assert lines.news({**PROXY, "budget": {**BUDGET, "resets_in": 1.0}}, at=AT) == []
    more = {
        **PROXY,
        "recent": [ROW, ROW | {"n": 2, "attempts": 2, "cost": 3, "wait_ms": 900.0, "ended": "client left"}],
    }
    assert [line[9:] for line in lines.news(more, at=AT)] == [
        "GET /v2/people 200 12.3 ms, report, 2 attempts, cost 3, waited 0.9 s, client left"
    ]
    restarted = [line[9:] for line in lines.news({**PROXY, "pid": 2}, at=AT)]
    assert "(pid 2)" in restarted[0]
    assert restarted[1:] == ["GET /v2/people 200 12.3 ms, report"]


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid (util-linux) gives a process its terminal")
async def test_a_terminal_is_drawn_on_until_ctrl_c_and_then_is_as_before(tmp_path: Path) -> None:
    env = {"SLPROXY_LISTEN__PORT": str(free_port()), "TERM": "xterm"}
    async with program("serve", "--sandbox", home=tmp_path, env=env) as proxy:
        await raw(proxy.url, get("/v2/people", "User-Agent: curl/8.5"))
        with terminal() as it:
            process = await spawn(
                ["status", "--watch"], tmp_path, env, stdin=it.file, stdout=it.file, before=["setsid", "--ctty"]
            )
            before = termios.tcgetattr(it.file)
            await until(lambda: it.shows("/v2/people ", " of 600 left", "[####"))
            await raw(proxy.url, get("/v2/me.json", "X-Sandbox-Fault: expire-token"))
            await until(lambda: it.shows("renewal: rejected: renewed"))
            os.write(it.keys, b"\x03")
            async with asyncio.timeout(PATIENCE):
                _, errors = await process.communicate()
            assert (process.returncode, errors) == (0, b"")
            await until(lambda: it.shows("\x1b[?1049l"))
            assert termios.tcgetattr(it.file) == before
    assert it.drawn.startswith("\x1b[?1049h")
    assert it.drawn.endswith("\x1b[?7h\x1b[?25h\x1b[?1049l")
    erased_before = re.findall(r"(.?.?.)\x1b\[[KJ]", it.drawn, re.DOTALL)
    assert {each[-1] for each in erased_before} == {"H", "\n"}, "what a full line ends with stays"


async def test_a_pipe_gets_plain_lines_of_a_proxy_that_restarts_at_a_socket_with_a_key(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        env = pointed_at(
            upstream.url,
            SALESLOFT_API_KEY=KEY,
            SLPROXY_LISTEN__UDS=str(tmp_path / "socket"),
            SLPROXY_LISTEN__KEY="a-local-key-of-some-length",
        )
        del env["SLPROXY_LISTEN__PORT"]
        watching = await spawn(["status", "--watch"], tmp_path, env, stdin=asyncio.subprocess.DEVNULL)
        assert watching.stdout is not None

        async def until_told(text: str) -> None:
            assert watching.stdout is not None
            async with asyncio.timeout(PATIENCE):
                while text not in (line := (await watching.stdout.readline()).decode()):
                    assert line, f"it ended before it told {text!r}"
                    assert "\x1b" not in line

        await until_told("proxy: not running at unix:")
        for _ in range(2):
            async with program("serve", home=tmp_path, env=env) as proxy:
                await until_told("ready")
                await until_told("GET /v2/me.json 200 ")  # its own, whom requests act as
                assert await proxy.stop() == 0
            await until_told("proxy: not running at unix:")
        watching.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await watching.wait() == 0


async def test_the_inspector_tells_the_last_requests_but_those_for_its_own_pages(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as proxy:
            await until(lambda: len(upstream.seen) == 1)
            await raw(proxy.url, get("/v2/people?email=jane"))
            await state_of(proxy)
            told = (await raw(proxy.url, get("/_slproxy/inspector/recent"))).body
            other = await raw(proxy.url, get("/_slproxy/inspector/recent", "Origin: http://app.test"))
    rows = json.loads(told)["rows"]
    assert [(row["path"], row["status"]) for row in rows] == [("/v2/me.json", 200), ("/v2/people", 200)]
    assert b"jane" not in told
    assert other.head.status == 403
