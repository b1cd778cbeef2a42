"""``whoami``, ``status``, ``token`` and ``logout``, as a person uses them one after the other."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from tests.support.commands import (
    KEY,
    SECRET,
    free_port,
    logged_in,
    no_secret_in,
    oauth,
    pointed_at,
    run_here,
    sandboxed,
    token_file,
)
from tests.support.programs import program, run, verified
from tests.support.raw_http import get, raw
from tests.support.waiting import SOON, until

CALLBACK = "http://localhost:3999/callback"


async def test_whoami_status_and_token_tell_what_they_are_for(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        kept = json.loads(token_file(tmp_path).read_text())
        secrets = (SECRET, kept["access_token"], kept["refresh_token"])
        commands = (["whoami"], ["whoami", "--json"], ["status"], ["status", "--json"], ["token"], ["token", "--json"])
        results = await asyncio.gather(*(run_here(*command, home=tmp_path, env=env) for command in commands))
        assert [code for code, _, _ in results] == [0] * 6
        assert results[0][1] == "Authenticated as: Jane Smith (jane@company.com)\n"
        assert json.loads(results[1][1])["data"]["email"] == "jane@company.com"
        assert results[1][1].startswith('{\n  "data": {\n    "')
        assert json.loads(results[3][1])["token"]["grant"] == "authorization_code"
        assert str(token_file(tmp_path)) in results[2][1]
        assert results[4][1] == kept["access_token"] + "\n"
        for _, out, err in results[:4]:
            no_secret_in(out, err, secrets=secrets)
        for _, out, err in results:
            no_secret_in(out, err, secrets=(SECRET, kept["refresh_token"]))
            assert err == ""


async def test_token_renews_an_expired_one_and_keeps_what_it_got(tmp_path: Path) -> None:
    async with sandboxed(token_lifetime=1.0) as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        before = json.loads(token_file(tmp_path).read_text())
        await until(lambda: time.time() > before["expires_at"], timeout=SOON)
        code, out, _ = await run_here("token", home=tmp_path, env=env)
        after = json.loads(token_file(tmp_path).read_text())
    assert (code, out) == (0, after["access_token"] + "\n")
    assert after["refresh_token"] != before["refresh_token"]


async def test_four_processes_that_find_the_token_expired_renew_it_once(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        path = token_file(tmp_path)
        document = json.loads(path.read_text())
        document["expires_at"] = time.time() - 1
        path.write_text(json.dumps(document))
        results = await asyncio.gather(*(run("token", home=tmp_path, env=env) for _ in range(4)))
        assert {code for code, _, _ in results} == {0}, results
        assert len({out for _, out, _ in results}) == 1
        assert len(sandbox.token_requests) == 1


async def test_status_finds_a_running_proxy_and_its_budget(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        port = free_port()
        env = pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY) | {"SLPROXY_LISTEN__PORT": str(port)}
        async with program("serve", home=tmp_path, env=env) as server:
            await verified(server)
            await raw(server.url, get("/v2/me.json"))
            code, out, _ = await run_here("status", "--json", home=tmp_path, env=env)
            proxy = json.loads(out)["proxy"]
            assert (code, proxy["ready"]) == (0, True)
            assert proxy["budget"]["remaining"] == 598, "less the proxy's own request and the client's"
            await server.stop()
        code, out, _ = await run_here("status", "--json", home=tmp_path, env=env)
        assert (code, json.loads(out)["proxy"]) == (0, None)


async def test_logout_revokes_and_forgets_and_offline_it_says_what_it_could_not_do(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        assert sandbox.alive() == 1
        code, out, err = await run_here("logout", home=tmp_path, env=env)
        assert code == 0
        assert sandbox.alive() == 0
        assert not token_file(tmp_path).exists()
        no_secret_in(out, err)
        assert (await run_here("whoami", home=tmp_path, env=env))[0] == 3
        await logged_in(tmp_path, sandbox)
        kept = json.loads(token_file(tmp_path).read_text())
    code, out, err = await run_here("logout", home=tmp_path, env=env)
    assert "not revoked" in out + err
    assert not token_file(tmp_path).exists()
    no_secret_in(out, err, secrets=(SECRET, kept["access_token"], kept["refresh_token"]))
