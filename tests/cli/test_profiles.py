"""``slproxy profiles``, and a login and a proxy for each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.store import FileStore
from tests.support.commands import (
    free_port,
    log_in,
    oauth,
    sandboxed,
    token_file,
)
from tests.support.logins import (
    command,
    kept_in,
    put,
)
from tests.support.programs import program, verified
from tests.support.raw_http import get, port_of, raw
from tests.support.sandboxes import login_at

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("chosen_keyring")]


async def test_profiles_lists_those_of_the_file_and_those_with_a_token_and_the_broken_one(tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_text(
        "[profile.work.listen]\nport = 9001\n[profile.bad.retry]\nattempts = 'x'\nmax_wait = 'y'\n"
    )
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path, "side")), replace(login_at(sandbox), profile="side", generation=4))
        await put(FileStore(token_file(tmp_path, "open")), replace(login_at(sandbox), profile="open"))
        token_file(tmp_path, "open").chmod(0o644)
        env = oauth(sandbox)
        arguments = ("profiles", "--profile", "work")
        (out, _), (told, err) = await asyncio.gather(
            command(*arguments, "--json", home=tmp_path, env=env, code=0),
            command(*arguments, home=tmp_path, env=env, code=0),
        )
    assert err == ""
    rows = {row["profile"]: row for row in json.loads(out)}
    assert list(rows) == ["bad", "default", "open", "side", "work"]
    assert {tuple(row) for row in rows.values()} == {("profile", "chosen", "token", "login_needed", "reason", "error")}
    assert [name for name, row in rows.items() if row["chosen"]] == ["work"]
    assert {name: row["login_needed"] for name, row in rows.items()} == {
        "bad": None,
        "default": True,
        "open": None,
        "side": False,
        "work": True,
    }
    side = rows["side"]["token"]
    assert (side["grant"], side["generation"]) == ("authorization_code", 4)
    assert side["store"] == f"file {token_file(tmp_path, 'side')}"
    assert 0 < side["expires_in"] <= 7200
    assert {name: row["error"] and row["error"]["type"] for name, row in rows.items()} == {
        "bad": "config",
        "default": None,
        "open": "store",
        "side": None,
        "work": None,
    }
    assert "retry.attempts" in rows["bad"]["error"]["detail"]
    assert "open to others" in rows["open"]["error"]["detail"]
    assert "renewed 3 times" in told
    assert "memory" not in told
    assert [line for line in told.splitlines() if "login needed" in line] == [
        "  default  login needed: Not logged in.",
        "* work     login needed: Not logged in.",
    ]
    lines = told.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["bad", "default", "open", "side"]
    assert [line.split()[:2] for line in lines if line.startswith("*")] == [["*", "work"]]
    assert len(lines) == 5, "a line each"
    assert "None" not in told


async def test_a_login_whose_client_is_not_set_here_is_not_said_to_be_missing(tmp_path: Path) -> None:
    """As in a second terminal, where nobody exported the client's id."""
    async with sandboxed() as sandbox:
        await put(FileStore(token_file(tmp_path)), login_at(sandbox))
    told, _ = await command("profiles", home=tmp_path, env={}, code=0)
    assert told == "* default  login needed: No credentials are set.\n"


async def test_each_profile_has_a_login_and_a_proxy_of_its_own(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("one", "two")}
    (tmp_path / "slproxy.toml").write_text(
        "".join(f"[profile.{name}.listen]\nport = {port}\n" for name, port in ports.items())
    )
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        del env["SLPROXY_LISTEN__PORT"]
        tokens = {}
        await log_in(tmp_path, env, "--profile", "one")
        await put(FileStore(token_file(tmp_path, "two")), replace(login_at(sandbox), profile="two"))
        for name in ports:
            kept = await kept_in(FileStore(token_file(tmp_path, name)))
            assert kept is not None
            assert kept.profile == name
            tokens[name] = kept.token.access_token
        assert len(set(tokens.values())) == 2
        assert not token_file(tmp_path).exists()
        async with (
            program("serve", "--profile", "one", home=tmp_path, env=env) as first,
            program("serve", "--profile", "two", home=tmp_path, env=env) as second,
        ):
            await asyncio.gather(verified(first), verified(second))
            for name, server in (("one", first), ("two", second)):
                assert port_of(server.url) == ports[name]
                sandbox.requests.clear()
                assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
                assert [request.token for request in sandbox.requests] == [tokens[name]]
            # One of them is logged out, and the other does not notice.
            await command("logout", "--profile", "one", home=tmp_path, env=env, code=0)
            assert (await raw(second.url, get("/v2/me.json"))).head.status == 200
            assert sandbox.alive() == 1
