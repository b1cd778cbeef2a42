"""``slproxy login``: whose login it is, and what it may replace."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import resource
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slproxy.sandbox import Sandbox
from slproxy.store import FileStore, Record
from tests.support.commands import (
    SECRET,
    Interactive,
    allowed,
    log_in,
    log_in_here,
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
)
from tests.support.programs import environment
from tests.support.raw_http import Message, get, raw, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("chosen_keyring")]


@asynccontextmanager
async def logging_in(
    home: Path, env: Mapping[str, str], *arguments: str, stdin: int = asyncio.subprocess.PIPE, shell: str = ""
) -> AsyncIterator[Interactive]:
    """Run ``login --no-browser``, its input where one likes, in what a line of a shell has made of the process."""
    within = ("sh", "-c", f'{shell}; exec "$@"', "sh") if shell else ()
    process = await asyncio.create_subprocess_exec(
        *(*within, sys.executable, "-m", "slproxy", "login", "--no-browser", *arguments),
        cwd=home,
        env=environment(home, **env),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield Interactive(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def login_ends(
    home: Path, env: Mapping[str, str], *arguments: str, code: int, then: str = "", shell: str = ""
) -> tuple[str, str]:
    """Log in and allow it, without a terminal, with more to read after it; return what was said."""
    if shell:
        async with logging_in(home, env, *arguments, shell=shell) as login:
            got = await login.end(await allowed(await login.url()) + "\n" + then)
        out, err = login.out, login.err
    else:
        got, out, err = await log_in_here(*arguments, home=home, env=env, then=then)
    assert got == code, (out, err)
    assert "Traceback" not in err
    assert SECRET not in out + err
    return out, err


async def works(sandbox: Sandbox, record: Record | None) -> bool:
    """Tell whether SalesLoft takes a login's token; at the sandbox its refresh token lives and dies with it."""
    assert record is not None
    asked = get("/v2/people.json", f"Authorization: Bearer {record.token.access_token}")
    return (await raw(sandbox.url, asked)).head.status == 200


def of_somebody_else(sandbox: Sandbox) -> Record:
    return replace(of_somebody(sandbox), user_id=99)


async def test_a_login_keeps_who_it_is_and_the_same_person_again_is_not_asked(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env, path = oauth(sandbox), token_file(tmp_path)
        await log_in(tmp_path, env)
        first = await kept_in(FileStore(path))
        assert first is not None
        asked = get("/v2/me.json", f"Authorization: Bearer {first.token.access_token}")
        me = json.loads((await raw(sandbox.url, asked)).body)["data"]
        assert (first.user_id, first.team_id) == (me["id"], me["team"]["id"])
        # A login that is later than this machine's clock is still one before the next.
        await put(FileStore(path), ahead := replace(first, login=first.login + 10**9, generation=8))
        out, err = await login_ends(tmp_path, env, code=0)
        assert out == "Authenticated as: Jane Smith (jane@company.com)\n"
        assert "Replace" not in err
        second = await kept_in(FileStore(path))
        assert second is not None
        assert second.token.access_token != first.token.access_token
        assert ahead.is_older_than(second)
        assert second.generation == 1
        assert await works(sandbox, second)


async def test_a_login_as_somebody_else_without_a_terminal_is_refused_and_what_it_got_is_revoked(
    tmp_path: Path,
) -> None:
    async with sandboxed() as sandbox:
        env, path = oauth(sandbox), token_file(tmp_path)
        await put(FileStore(path), record := of_somebody_else(sandbox))
        kept = path.read_bytes()
        # What a script sends is nobody's answer to a question.
        out, err = await login_ends(tmp_path, env, code=1, then="y\n")
        assert out == ""
        assert "another user" in err
        assert "--replace" in err
        assert path.read_bytes() == kept
        assert sandbox.alive() == 1
        assert await works(sandbox, record)


async def test_a_login_as_somebody_else_replaces_when_told_to(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := of_somebody_else(sandbox))
        _, err = await login_ends(tmp_path, oauth(sandbox), "--replace", code=0)
        kept = await kept_in(FileStore(path))
        assert kept is not None
        assert (kept.user_id, record.is_older_than(kept)) == (1, True)
        assert await works(sandbox, kept)
        # Nobody has the other one any more.
        assert "Revoked the replaced login of user 99 of team 3." in err
        assert not await works(sandbox, record)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"user_id": 1}, id="of the same user, which may be one grant to SalesLoft"),
        pytest.param({"user_id": None}, id="of nobody knows whom"),
        pytest.param({"user_id": 99, "client_id": "another"}, id="of another client"),
        pytest.param({"user_id": 99, "accounts_url": "https://accounts.example"}, id="of another host"),
    ],
)
async def test_a_login_that_is_replaced_is_not_revoked_where_that_could_harm(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := replace(of_somebody(sandbox), **changes))  # type: ignore[arg-type]
        _, err = await login_ends(tmp_path, oauth(sandbox), "--replace", code=0)
        assert "evoked" not in err
        assert await works(sandbox, record)
        assert await works(sandbox, await kept_in(FileStore(path)))


async def test_a_replaced_login_that_could_not_be_revoked_is_told_and_the_new_one_counts(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:

        async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if message.head.target == "/oauth/revoke":
                writer.write(reply("503 Service Unavailable"))
                return
            form = "Content-Type: application/x-www-form-urlencoded"
            granted = await raw(sandbox.url, get(message.head.target, form, method="POST", body=message.body))
            writer.write(reply(body=granted.body))

        async with ScriptedUpstream(script) as accounts:
            path = token_file(tmp_path)
            await put(FileStore(path), record := replace(of_somebody_else(sandbox), accounts_url=accounts.url))
            login = await log_in_here(
                "--replace",
                home=tmp_path,
                env={**oauth(sandbox), "SLPROXY_UPSTREAM__ACCOUNTS_URL": accounts.url},
                paste=lambda url: allowed(url.replace(accounts.url, sandbox.url)),
            )
        assert login.code == 0, login.err
        assert "Not revoked: the replaced login of user 99 of team 3" in login.err
        assert await works(sandbox, record)
        assert await works(sandbox, await kept_in(FileStore(path)))


@pytest.mark.parametrize(("typed", "replaced"), [("y\n", True), ("n\n", False), ("\x04", False)])
async def test_a_login_as_somebody_else_on_a_terminal_asks(tmp_path: Path, typed: str, replaced: bool) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), of_somebody_else(sandbox))
        kept = path.read_bytes()
        master, slave = pty.openpty()
        try:
            async with logging_in(tmp_path, oauth(sandbox), stdin=slave) as login:
                os.write(master, (await allowed(await login.url())).encode() + b"\n")
                assert login.process.stderr is not None
                while "Replace it? [y/N]" not in login.err:
                    line = (await login.process.stderr.readline()).decode()
                    assert line, f"it ended without a question: {login.err}"
                    login.err += line
                assert path.read_bytes() == kept, "nothing happens before it is answered"
                os.write(master, typed.encode())
                code = await login.end()
        finally:
            os.close(master)
            os.close(slave)
        assert code == (0 if replaced else 1), login.err
        assert (path.read_bytes() != kept) == replaced
        # The other one is revoked: the replaced one after a yes, the new one after a no.
        assert sandbox.alive() == 1


@pytest.mark.parametrize(
    ("known", "arguments", "code"),
    [(True, [], 1), (True, ["--replace"], 0), (False, [], 0)],
    ids=["over a known login", "over a known login, told to", "over a login of nobody knows whom"],
)
async def test_a_login_of_which_it_could_not_be_asked_whose_it_is(
    tmp_path: Path, known: bool, arguments: list[str], code: int
) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        before = of_somebody(sandbox) if known else replace(of_somebody(sandbox), user_id=None, team_id=None)
        await put(FileStore(path), before)
        kept = path.read_bytes()
        sandbox.fault("status=403;times=9", path="/v2/me.json")
        out, err = await login_ends(tmp_path, oauth(sandbox), *arguments, code=code)
        after = await kept_in(FileStore(path))
        assert after is not None
        if code:
            assert "--replace" in err
            assert path.read_bytes() == kept
            assert sandbox.alive() == 1
        else:
            assert "could not be looked up" in out
            assert (after.user_id, after.team_id) == (None, None)
            assert before.is_older_than(after)
        assert await works(sandbox, after)


async def test_a_login_over_one_that_does_not_open_is_refused_before_the_browser_and_sets_it_aside_when_told_to(
    tmp_path: Path,
) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path, given(FIRST)), record := of_somebody(sandbox))
        encrypted = path.read_bytes()
        env = {**oauth(sandbox), "SLPROXY_STORE__KEY": SECOND}
        _, err = await command("login", "--no-browser", home=tmp_path, env=env, code=1)
        assert "/oauth/authorize" not in err
        assert "--replace" in err
        assert path.read_bytes() == encrypted
        await login_ends(tmp_path, env, "--replace", code=0)
        (aside,) = path.parent.glob("default.json.aside-*")
        assert aside.read_bytes() == encrypted
        assert aside.stat().st_mode & 0o777 == 0o600
        assert await kept_in(FileStore(aside, given(FIRST))) == record
        assert await works(sandbox, await kept_in(FileStore(path, given(SECOND))))


async def test_a_damaged_login_is_set_aside_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), of_somebody(sandbox))
        damaged = path.read_bytes()[:-40]
        path.write_bytes(damaged)
        _, err = await login_ends(tmp_path, oauth(sandbox), code=0)
        (aside,) = path.parent.glob("default.json.aside-*")
        assert aside.read_bytes() == damaged
        assert await works(sandbox, await kept_in(FileStore(path)))
        assert "damaged" in err
        assert str(aside) in err, "where it is now"


async def test_a_login_never_takes_the_place_of_another_profiles(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := replace(of_somebody(sandbox), profile="work"))
        env = {**oauth(sandbox), "SLPROXY_STORE__PATH": str(path)}
        for arguments in ([], ["--replace"]):
            _, err = await login_ends(tmp_path, env, *arguments, code=1)
            assert "the profile work" in err
            assert await kept_in(FileStore(path)) == record
            assert sandbox.alive() == 1
        assert await works(sandbox, record)


async def test_a_login_that_cannot_be_kept_is_revoked_and_the_one_before_stays(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        await put(FileStore(path), record := of_somebody_else(sandbox))
        kept = path.read_bytes()
        # Rights would not keep root from writing; here no file may grow, as on a disk that is full.
        async with logging_in(tmp_path, oauth(sandbox), "--replace", shell="ulimit -f 0") as login:
            assert await login.end() == 1
            assert f"Cannot write {path}" in login.err
            assert "/oauth/authorize" not in login.err, "nobody is sent to the browser for nothing"
        if not hasattr(resource, "prlimit"):
            pytest.skip("only Linux sets the limits of a process that runs (prlimit(2))")
        async with logging_in(tmp_path, oauth(sandbox), "--replace", shell="true") as login:
            url = await login.url()
            resource.prlimit(login.process.pid, resource.RLIMIT_FSIZE, (0, 0))
            assert await login.end(await allowed(url) + "\n") == 1
            assert f"Cannot write {path}" in login.err
        assert path.read_bytes() == kept
        assert sandbox.alive() == 1
        assert await works(sandbox, record)
        assert [each.name for each in path.parent.iterdir() if ".lo" not in each.name] == ["default.json"]
