"""``slproxy status``: what it prints of the login, the running proxy and the budget."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import slproxy
from slproxy.cli.status_rows import rules_rows
from slproxy.store import FileStore
from tests.support.commands import (
    free_port,
    oauth,
    sandboxed,
    token_file,
)
from tests.support.logins import (
    FIRST,
    SECOND,
    command,
    given,
    kept_in,
    of_somebody,
    put,
    serves_and_renews,
)
from tests.support.programs import program, verified
from tests.support.raw_http import Message, get, port_of, raw, reply
from tests.support.sandboxes import login_at
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("chosen_keyring")]


async def test_status_tells_of_the_token_and_of_the_renewals_of_the_running_proxy(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        path = token_file(tmp_path)
        await put(FileStore(path, given(FIRST)), record)
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port()), "SLPROXY_STORE__KEY": FIRST}

        async def told(code: int) -> tuple[dict[str, str], dict[str, object]]:
            kept = await kept_in(FileStore(path, given(FIRST)))
            (out, err), (document, _) = await asyncio.gather(
                command("status", home=tmp_path, env=env, code=code, hidden=(record, kept)),
                command("status", "--json", home=tmp_path, env=env, code=code, hidden=(record, kept)),
            )
            assert err == ""
            return rows_in(out), json.loads(document)

        rows, facts = await told(0)
        assert set(rows) == {"profile", "auth", "token", "user", "stored in", "proxy"}
        assert re.search(r"valid for 1 h 59 min( \d+ s)?, renewed 4 times, \d+ s old", rows["token"]), rows
        assert "1 of team 3" in rows["user"]
        assert str(path) in rows["stored in"]
        assert "encrypted, key in store.key" in rows["stored in"]
        assert "not running" in rows["proxy"]
        assert set(facts) == {"profile", "token", "login_needed", "proxy"}
        token = facts["token"]
        assert isinstance(token, dict)
        assert {name: token[name] for name in ("grant", "generation", "user_id", "team_id", "valid", "saved")} == {
            "grant": "authorization_code",
            "generation": 5,
            "user_id": 1,
            "team_id": 3,
            "valid": True,
            "saved": True,
        }
        assert 0 <= token["age"] < PATIENCE
        assert 7200 - PATIENCE < token["expires_in"] <= 7200
        assert {"store", "encryption", "renewals", "last_renewal", "why"} <= set(token)

        async with program("serve", home=tmp_path, env=env) as server:
            started = time.time()
            await serves_and_renews(server, sandbox, record)
            rows, facts = await told(0)
            assert "up at" in rows["proxy"]
            assert rows["policy"] == "all of /v2/"
            assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ: renewed", rows["renewal"]), rows
            proxy = facts["proxy"]
            assert isinstance(proxy, dict)
            assert (proxy["profile"], proxy["token"]["generation"], proxy["token"]["renewals"]) == ("default", 6, 1)
            assert started - 1 <= proxy["token"]["last_renewal"]["at"] <= time.time()
            assert "renewed 5 times" in rows["token"]

            # The login dies: the proxy has tried, and says so; it is a person's turn.
            sandbox.revoke_all()
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 503
            rows, facts = await told(3)
            assert "no longer accepts" in rows["renewal"]
            assert "slproxy login" in rows["token"]
            assert "not ready" in rows["proxy"]
            assert facts["login_needed"] is True


async def test_status_does_not_take_the_proxy_of_another_profile_for_its_own(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        record = of_somebody(sandbox)
        await put(FileStore(token_file(tmp_path)), record)
        await put(FileStore(token_file(tmp_path, "work")), replace(login_at(sandbox), profile="work"))
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port())}
        async with program("serve", home=tmp_path, env=env) as server:
            await serves_and_renews(server, sandbox, record)
            out, _ = await command("status", "--profile", "work", home=tmp_path, env=env, code=0)
    (row,) = [line for line in out.splitlines() if line.startswith("proxy")]
    assert "default" in row, "whose proxy it is"
    assert "renewal" not in out, "it is not this login that was renewed"


def rows_in(out: str) -> dict[str, str]:
    """Return the rows that ``status`` printed."""
    return {line[:9].strip(): line[10:] for line in out.splitlines()}


async def rows_of_status(home: Path, env: Mapping[str, str], *, code: int) -> tuple[dict[str, str], str]:
    """Run ``status``, and return its rows and what else it said."""
    out, err = await command("status", home=home, env=env, code=code)
    return rows_in(out), err


async def test_status_tells_the_token_that_the_running_proxy_has(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port())}
        del env["SALESLOFT_REDIRECT_URI"]  # without one, id and secret are client credentials
        async with program("serve", home=tmp_path, env=env) as server:
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            rows, _ = await rows_of_status(tmp_path, env, code=0)
            assert rows["token"].startswith("valid for "), rows
            assert "restart" not in rows
            await put(FileStore(token_file(tmp_path)), of_somebody(sandbox))
            rows, _ = await rows_of_status(tmp_path, env, code=0)
    assert rows["auth"].startswith("client_credentials (")
    assert rows["restart"] == "a new start would use authorization_code (a stored login was found)"


async def test_status_needs_no_login_where_a_proxy_serves_the_sandbox(tmp_path: Path) -> None:
    env = {"SLPROXY_LISTEN__PORT": str(free_port())}
    await rows_of_status(tmp_path, env, code=3)
    async with program("serve", "--sandbox", home=tmp_path, env=env):
        rows, _ = await rows_of_status(tmp_path, env, code=0)
    assert rows["token"].startswith("valid for "), rows
    assert re.fullmatch(
        r"up at \S+ \(pid \d+\), forwarding to http://127.0.0.1:\d+, using authorization_code, ready", rows["proxy"]
    ), rows


@pytest.mark.parametrize(
    ("harm", "said"),
    [("damaged", "moved to"), ("another key", "cannot be decrypted")],
)
async def test_status_tells_of_the_proxy_where_the_store_is_wrong(tmp_path: Path, harm: str, said: str) -> None:
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path), given(FIRST)), of_somebody(sandbox))
        env = {**oauth(sandbox), "SLPROXY_LISTEN__PORT": str(free_port()), "SLPROXY_STORE__KEY": FIRST}
        async with program("serve", home=tmp_path, env=env) as server:
            await verified(server)
            if harm == "damaged":
                token_file(tmp_path).write_bytes(b"{")
            rows, err = await rows_of_status(
                tmp_path, env | ({"SLPROXY_STORE__KEY": SECOND} if harm == "another key" else {}), code=1
            )
    assert said in err
    assert "ready" in rows["proxy"]
    assert rows["budget"].startswith("599 of 600 left, resets in ")
    assert rows["token"].startswith("valid for ")


BUDGET = {
    "mode": "pace",
    "limit": 600,
    "ours": 600,
    "remaining": 8,
    "resets_in": 41.2,
    "window": "minute",
    "shared": None,
    "alone": False,
    "queue": {"interactive": 0, "bulk": 0},
    "waiting": {},
    "this_minute": {"by_client": {}, "by_endpoint": {}, "by_others": 0},
    "last_minutes": [],
}


@pytest.mark.parametrize(
    ("change", "row", "told"),
    [
        ({}, "budget", "8 of 600 left, resets in 42 s"),
        ({"ours": 60}, "budget", "8 of 60 left (the team has 600), resets in 42 s"),
        ({"told": True}, "budget", "8 of 600 left, resets in 42 s"),
        ({"told": False}, "budget", "8 of an assumed 600 left, resets in 42 s"),
        (
            {"queue": {"interactive": 1, "bulk": 0}, "waiting": {"a": 1}},
            "budget",
            "8 of 600 left, resets in 42 s; 1 request waiting: a 1",
        ),
        (
            {"this_minute": {"by_client": {"a": 3, "b": 0}, "by_endpoint": {}, "by_others": 30}},
            "clients",
            "a 3; 30 by others",
        ),
        (
            {"this_minute": {"by_client": {}, "by_endpoint": {f"e{n}": 9 for n in range(7)}, "by_others": 0}},
            "endpoints",
            "e0 9, e1 9, e2 9, e3 9, e4 9 and 2 more",
        ),
        (
            {
                "last_minutes": [
                    {"at": "2026-11-28T10:01:00Z", "spent": 40},
                    {"at": "2026-11-28T10:02:00Z", "spent": 0},
                ]
            },
            "history",
            "10:01Z 40",
        ),
    ],
    ids=["all", "a part", "told", "assumed", "one waits", "others", "many", "minutes"],
)
async def test_status_words_the_budget_as_it_is(tmp_path: Path, change: dict[str, object], row: str, told: str) -> None:
    page = json.dumps({"version": slproxy.__version__, "profile": "default", "budget": BUDGET | change}).encode()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(reply("200 OK", page))

    async with ScriptedUpstream(script) as proxy:
        env = {"SLPROXY_LISTEN__PORT": str(port_of(proxy.url)), "SALESLOFT_API_KEY": "ak_x"}
        rows, _ = await rows_of_status(tmp_path, env, code=0)
    assert rows[row] == told


def test_what_a_proxy_lets_through_is_told_whether_it_is_narrowed_or_not() -> None:
    opened = {"read_only": False, "accept_paths": ["/v2/"], "reject_paths": []}
    assert rules_rows({"policy": opened}) == [("policy", "all of /v2/")]
    assert rules_rows({"policy": opened | {"read_only": True}}) == [("policy", "read only")]
    assert rules_rows({"policy": opened | {"accept_paths": ["/v2/", "/v3/"]}}) == [("policy", "only /v2/, /v3/")]
    assert rules_rows({"policy": opened, "clients": {"report": opened}})[1:] == [
        ("client", "report: all that the policy lets through")
    ]
    assert not any(text for _, text in rules_rows({})), "of a proxy that does not tell it"
