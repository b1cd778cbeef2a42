"""``slproxy logout``: revoked first, deleted then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import keyring
import pytest

from slproxy.store import FileStore
from slproxy.store.keyring import KeyringStore
from tests.support.commands import (
    oauth,
    sandboxed,
    system_keyring,
    token_file,
)
from tests.support.logins import (
    KEYRING,
    command,
    of_somebody,
    put,
)
from tests.support.raw_http import Message, reply
from tests.support.sandboxes import login_at
from tests.support.scripted import ScriptedUpstream

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("chosen_keyring")]


@pytest.mark.parametrize("answer", ["200 OK", "503 Service Unavailable"])
async def test_logout_revokes_refresh_and_access_token_and_only_then_forgets(tmp_path: Path, answer: str) -> None:
    path, there = token_file(tmp_path), []

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.append(path.exists())
        writer.write(reply(answer))

    async with sandboxed() as sandbox, ScriptedUpstream(script) as upstream:
        record = replace(of_somebody(sandbox), accounts_url=upstream.url)
        await put(FileStore(path), record)
        env = {**oauth(sandbox), "SLPROXY_UPSTREAM__ACCOUNTS_URL": upstream.url}
        out, err = await command("logout", home=tmp_path, env=env, code=0, hidden=(record,))
    assert [message.head.target for message in upstream.seen] == ["/oauth/revoke"] * 2
    sent = [dict(part.split("=", 1) for part in message.body.decode().split("&")) for message in upstream.seen]
    assert [each["token"] for each in sent] == [record.token.refresh_token, record.token.access_token]
    assert {each["client_id"] for each in sent} == {record.client_id}
    assert there == [True, True]
    assert not path.exists()
    assert ("not revoked" in out + err) == (answer != "200 OK")


async def test_logout_of_all_goes_on_after_one_that_fails_and_says_how_each_went(tmp_path: Path) -> None:
    (tmp_path / "slproxy.toml").write_text("[profile.bad.retry]\nattempts = 'x'\n[profile.none.listen]\nport = 9001\n")
    async with sandboxed() as sandbox:
        records = [replace(login_at(sandbox), profile=name) for name in ("default", "locked", "side", "work")]
        for record in records:
            await put(FileStore(token_file(tmp_path, record.profile)), record)
        token_file(tmp_path, "locked").chmod(0o644)
        env = oauth(sandbox)
        out, err = await command("logout", "--all", home=tmp_path, env=env, code=2, hidden=tuple(records))
        how = dict(line.split(": ", 1) for line in out.splitlines())
        assert {name: " ".join(told.split()[:2]) for name, told in how.items()} == {
            "bad": "not logged",
            "default": "Logged out:",
            "locked": "not logged",
            "none": "Not logged",
            "side": "Logged out:",
            "work": "Logged out:",
        }
        assert "chmod 600" in err
        assert "retry.attempts" in err
        assert [path.name for path in token_file(tmp_path).parent.glob("*.json")] == ["locked.json"]
        assert sandbox.alive() == 1
        token_file(tmp_path, "locked").chmod(0o600)
        (tmp_path / "slproxy.toml").unlink()
        out, err = await command("logout", "--all", home=tmp_path, env=env, code=0)
        assert "locked: Logged out:" in out
        assert err == ""
        assert sandbox.alive() == 0


async def test_logout_of_all_includes_the_chosen_profile_wherever_its_login_is_kept(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        keyring.set_keyring(system_keyring(tmp_path))
        store = KeyringStore("work", lock_path=tmp_path / "unused.lock")
        await put(store, replace(login_at(sandbox), profile="work"))
        env = {**oauth(sandbox), **KEYRING, "SLPROXY_STORE__KIND": "keyring"}
        out, _ = await command("logout", "--all", "--profile", "work", home=tmp_path, env=env, code=0)
        assert "work: Logged out:" in out
        assert sandbox.alive() == 0
        assert await store.read() is None
