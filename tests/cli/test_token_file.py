"""The token file, as commands and a running proxy use it: private, whole, and of one client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.commands import (
    SECRET,
    log_in_here,
    logged_in,
    no_secret_in,
    oauth,
    pointed_at,
    run_here,
    sandboxed,
    token_file,
)
from tests.support.programs import program, run
from tests.support.raw_http import Message, get, raw, reply
from tests.support.scripted import ScriptedUpstream

CALLBACK = "http://localhost:3999/callback"


async def test_a_rotated_refresh_token_is_on_disk_before_its_access_token_is_used(tmp_path: Path) -> None:
    refreshes = 0
    on_disk: dict[str, object] = {}

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refreshes, on_disk
        shown = message.head.get("Authorization")
        if message.head.target == "/oauth/token":
            refreshes += 1
            tokens = {"access_token": f"access-{refreshes}", "refresh_token": f"refresh-{refreshes}"}
            writer.write(reply(body=json.dumps({**tokens, "token_type": "bearer", "expires_in": 7200}).encode()))
        elif shown == "Bearer access-1" and message.head.target != "/v2/me.json":
            writer.write(reply("401 Unauthorized"))
        else:
            if shown == "Bearer access-2" and not on_disk:
                on_disk = json.loads(token_file(tmp_path).read_text())
            writer.write(reply(body=b'{"data":{"name":"J","email":"e"}}'))

    async with ScriptedUpstream(script) as upstream:
        client = {"SALESLOFT_CLIENT_ID": "cid", "SALESLOFT_CLIENT_SECRET": SECRET, "SALESLOFT_REDIRECT_URI": CALLBACK}
        env = pointed_at(upstream.url, **client)

        async def paste(url: str) -> str:
            return f"{CALLBACK}?code=c&state={parse_qs(urlsplit(url).query)['state'][0]}"

        assert (await log_in_here(home=tmp_path, env=env, paste=paste)).code == 0
        async with program("serve", home=tmp_path, env=env) as server:
            responses = await asyncio.gather(*(raw(server.url, get(f"/v2/{number}")) for number in range(50)))
            await server.stop()
    assert [each.head.status for each in responses] == [200] * 50
    assert refreshes == 2
    assert (on_disk["access_token"], on_disk["refresh_token"]) == ("access-2", "refresh-2")


@pytest.mark.parametrize("harm", ["0644", "symlink", "folder"])
async def test_a_token_file_that_cannot_be_trusted_is_refused_with_what_repairs_it(tmp_path: Path, harm: str) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        path = token_file(tmp_path)
        kept = json.loads(path.read_text())
        asked = len(sandbox.requests)
        if harm.startswith("0"):
            path.chmod(int(harm, 8))
        elif harm == "symlink":
            path.rename(tmp_path / "elsewhere.json")
            path.symlink_to(tmp_path / "elsewhere.json")
        else:
            path.parent.chmod(0o777)
        results = await asyncio.gather(*(run(command, home=tmp_path, env=env) for command in ("token", "serve")))
        for code, out, err in results:
            assert code != 0
            assert str(path if harm != "folder" else path.parent) in err, err
            assert "Traceback" not in err
            if harm.startswith("0"):
                assert f"chmod 600 {path}" in err
            if harm == "folder":
                assert "chmod" in err
            no_secret_in(out, err, secrets=(SECRET, kept["access_token"], kept["refresh_token"]))
        assert len(sandbox.requests) == asked


async def test_a_damaged_token_file_is_set_aside_and_told_and_a_login_is_wanted_from_then_on(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        path = token_file(tmp_path)
        damaged = path.read_bytes()[:-40]
        path.write_bytes(damaged)
        code, out, err = await run_here("token", home=tmp_path, env=env)
        assert code == 1
        assert str(path) in err
        (aside,) = path.parent.glob("default.json.aside-*")
        assert str(aside) in err
        assert aside.read_bytes() == damaged
        no_secret_in(out, err, secrets=(SECRET,))
        code, _, err = await run_here("token", home=tmp_path, env=env)
        assert code == 3
        assert "slproxy login" in err


@pytest.mark.parametrize("key", ["a-phrase-of-words", "x"])
async def test_a_token_file_is_encrypted_with_store_key_and_no_other_key_decrypts_it(tmp_path: Path, key: str) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        secrets = tuple(
            json.loads(token_file(tmp_path).read_text())[name] for name in ("access_token", "refresh_token")
        )
        sandbox.expire(secrets[0])
        keyed = {**env, "SLPROXY_STORE__KEY": key}
        assert (await run_here("whoami", home=tmp_path, env=keyed))[0] == 0
        kept = token_file(tmp_path).read_text()
        assert "slproxy-sealed-1" in kept
        no_secret_in(kept, secrets=(SECRET, *secrets))
        code, out, err = await run_here("whoami", home=tmp_path, env={**env, "SLPROXY_STORE__KEY": "another"})
        assert (code, out) == (1, "")
        assert "cannot be decrypted with the key" in err
        code, _, err = await run_here("whoami", home=tmp_path, env=env)
        assert code == 1
        assert "store.key is not set" in err
        assert token_file(tmp_path).read_text() == kept
        assert (await run_here("whoami", home=tmp_path, env=keyed))[0] == 0


async def test_a_token_is_never_used_for_another_client_profile_or_host(tmp_path: Path) -> None:
    async with sandboxed() as sandbox, ScriptedUpstream() as other:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        kept = token_file(tmp_path).read_bytes()
        tokens = tuple(json.loads(kept)[name] for name in ("access_token", "refresh_token"))
        elsewhere = {**env, "SLPROXY_UPSTREAM__API_URL": other.url, "SLPROXY_UPSTREAM__ACCOUNTS_URL": other.url}
        others = [{**env, "SALESLOFT_CLIENT_ID": "other"}, {**env, "SLPROXY_PROFILE": "other"}, elsewhere]
        commands = [(command, variables) for command in ("whoami", "status") for variables in others]
        results = await asyncio.gather(
            *(run_here(command, home=tmp_path, env=variables) for command, variables in commands)
        )
        for code, out, err in results:
            assert code == 3, (out, err)
            no_secret_in(out, err, secrets=tokens)
        assert other.seen == []
        assert token_file(tmp_path).read_bytes() == kept


async def test_a_token_is_not_sent_to_another_accounts_host_by_logout(tmp_path: Path) -> None:
    async with sandboxed() as sandbox, ScriptedUpstream() as other:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        kept = json.loads(token_file(tmp_path).read_text())
        elsewhere = {**env, "SLPROXY_UPSTREAM__API_URL": other.url, "SLPROXY_UPSTREAM__ACCOUNTS_URL": other.url}
        await run_here("logout", home=tmp_path, env=elsewhere)
    sent = b"".join(message.head.raw + message.body for message in other.seen).decode()
    no_secret_in(sent, secrets=(kept["access_token"], kept["refresh_token"]))
