"""Whom requests act as: it never changes by itself, and is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.sandbox import Sandbox
from slproxy.store import FileStore
from tests.support.commands import KEY, log_in_here, oauth, pointed_at, run_here, sandboxed, token_file
from tests.support.logins import FIRST, SECOND, command, given, put
from tests.support.programs import program
from tests.support.raw_http import get, raw
from tests.support.sandboxes import login_at
from tests.support.waiting import until

pytestmark = pytest.mark.heavy


def app_of(sandbox: Sandbox, **more: str) -> dict[str, str]:
    """Return an environment with a client id and secret alone: without a login, they are the application's own."""
    env = oauth(sandbox, **more)
    del env["SALESLOFT_REDIRECT_URI"]
    return env


def _damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _open(path: Path) -> None:
    path.chmod(0o644)


@pytest.mark.parametrize(
    ("end", "codes"),
    [
        pytest.param(_damage, (1, 3, 3), id="cut short"),
        pytest.param(_empty, (1, 3, 3), id="emptied"),
        pytest.param(Path.unlink, (3, 3, 3), id="removed"),
        pytest.param(_open, (1, 1, 1), id="open to others"),
    ],
)
async def test_a_login_that_came_to_grief_is_not_replaced_by_client_credentials(
    tmp_path: Path, end: Callable[[Path], object], codes: tuple[int, ...]
) -> None:
    async with sandboxed() as sandbox:
        env, path = app_of(sandbox), token_file(tmp_path)
        await put(FileStore(path), login_at(sandbox))
        await command("whoami", home=tmp_path, env=env, code=0)
        end(path)
        for code in codes:
            await command("whoami", home=tmp_path, env=env, code=code)
        assert not sandbox.token_requests
        if codes[-1] == 3:
            async with program("serve", home=tmp_path, env=env) as server:
                assert "auth.grant = client_credentials" in server.output
                answer = await raw(server.url, get("/v2/me.json"))
                assert json.loads(answer.body)["type"] == "login-required"
            # Somebody who says so acts as the application; somebody who logs in, as themselves.
            await command("whoami", home=tmp_path, env={**env, "SLPROXY_AUTH__GRANT": "client_credentials"}, code=0)
            out, _ = await command("whoami", home=tmp_path, env=env, code=3)
            assert out == ""


async def test_a_login_that_cannot_be_read_now_is_not_replaced_by_client_credentials(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env, path = app_of(sandbox), token_file(tmp_path)
        await put(FileStore(path, given(FIRST)), login_at(sandbox))
        unreachable = {"SLPROXY_STORE__KIND": "redis", "SLPROXY_STORE__REDIS_URL": "redis://127.0.0.1:9/0"}
        for more in ({}, {"SLPROXY_STORE__KEY": SECOND}, unreachable):
            await command("whoami", home=tmp_path, env={**env, **more}, code=1)
        assert not sandbox.token_requests
        await command("whoami", home=tmp_path, env={**env, "SLPROXY_STORE__KEY": FIRST}, code=0)


async def test_after_a_logout_nobody_acts_until_somebody_logs_in_or_sets_another_grant(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = app_of(sandbox)
        await put(FileStore(token_file(tmp_path)), login_at(sandbox))
        await command("logout", home=tmp_path, env=env, code=0)
        _, err = await command("whoami", home=tmp_path, env=env, code=3)
        assert "slproxy login" in err
        assert "SLPROXY_AUTH__GRANT=client_credentials" in err
        assert [form.grant_type for form in sandbox.token_requests] == []
        out, _ = await command("whoami", "--json", home=tmp_path, env={**env, "SALESLOFT_API_KEY": KEY}, code=0)
        assert json.loads(out)["grant"] == "api_key"


async def test_a_profile_that_never_had_a_login_acts_as_the_application_and_whoami_says_so(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        out, _ = await command("whoami", "--json", home=tmp_path, env=app_of(sandbox), code=0)
        assert json.loads(out)["grant"] == "client_credentials"
        assert json.loads(out)["data"]["email"] == "jane@company.com"


async def test_a_login_of_another_api_is_neither_used_nor_deleted_and_that_is_said(tmp_path: Path) -> None:
    async with sandboxed() as sandbox, sandboxed() as elsewhere:
        path, env = token_file(tmp_path), app_of(sandbox)
        record = replace(login_at(sandbox), api_url="https://api.salesloft.com")
        await put(FileStore(path), record)
        kept = path.read_bytes()
        env = {**env, "SLPROXY_UPSTREAM__API_URL": elsewhere.url}
        for name, code in (("whoami", 3), ("token", 3), ("logout", 0)):
            told = "".join(await command(name, home=tmp_path, env=env, code=code, hidden=(record,)))
            assert f"of the api_url https://api.salesloft.com, not {elsewhere.url}" in told
        assert not elsewhere.requests, "the token never went there"
        refused = await log_in_here(
            home=tmp_path, env={**env, "SALESLOFT_REDIRECT_URI": "http://localhost:3999/callback"}
        )
        assert refused.code == 1
        assert "another login, of the api_url" in refused.err
        assert path.read_bytes() == kept


async def test_an_api_key_that_hides_a_login_is_said_aloud_with_where_it_comes_from(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        key_file = tmp_path / "key"
        key_file.write_text(KEY)
        env = oauth(sandbox, SALESLOFT_API_KEY_FILE=str(key_file))
        done = await log_in_here(home=tmp_path, env=env)
        assert done.code == 0
        where = f"env SALESLOFT_API_KEY_FILE ({key_file})"
        assert f"an API key is set ({where})" in done.err
        async with program("serve", home=tmp_path, env=env) as server:
            assert f"Auth: api_key (an API key is set: {where})" in server.output
            await until(lambda: "the API key goes before the login that is stored in" in server.output)
        key_file.write_text(KEY.upper())
        async with program("serve", home=tmp_path, env=env) as server:
            for arguments in (("whoami",), ("doctor",), ("status",)):
                told = await run_here(*arguments, home=tmp_path, env=env)
                assert "log in again" not in (told.out + told.err).lower(), told


async def test_without_what_the_grant_needs_the_hint_names_that_and_no_login(tmp_path: Path) -> None:
    for grant, wanted in (("api_key", "SALESLOFT_API_KEY"), ("client_credentials", "SALESLOFT_CLIENT_SECRET")):
        env = pointed_at("http://127.0.0.1:9", SLPROXY_AUTH__GRANT=grant)
        _, err = await command("whoami", home=tmp_path, env=env, code=3)
        assert wanted in err
        assert "slproxy login" not in err
