"""``slproxy login``, step by step: PKCE, the pasted URL, the browser, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import textwrap
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.commands import (
    SECRET,
    Result,
    allowed,
    interactive,
    log_in,
    log_in_here,
    logged_in,
    no_secret_in,
    oauth,
    sandboxed,
    token_file,
)
from tests.support.programs import environment, program, run
from tests.support.raw_http import get, raw
from tests.support.waiting import PATIENCE, SOON, until

CALLBACK = "http://localhost:3999/callback"


async def test_a_login_without_a_browser_is_stored_and_survives_a_restart(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        async with interactive("login", "--no-browser", home=tmp_path, env=env) as login:
            url = await login.url()
            query = parse_qs(urlsplit(url).query)
            assert query["code_challenge_method"] == ["S256"]
            assert len(query["code_challenge"][0]) == 43
            assert len(query["state"][0]) >= 22
            assert query["redirect_uri"] == [env["SALESLOFT_REDIRECT_URI"]]
            assert await login.end(await allowed(url) + "\n") == 0
            assert "Authenticated as: Jane Smith (jane@company.com)" in login.out
        form = sandbox.token_requests[0].form
        assert form["client_secret"] == SECRET
        assert form["code_verifier"]
        path = token_file(tmp_path)
        kept = json.loads(path.read_text())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        others = [each for each in path.parent.iterdir() if each != path and each.suffix not in (".lock", ".login")]
        assert others == []
        no_secret_in(
            login.out, login.err, secrets=(SECRET, kept["access_token"], kept["refresh_token"], form["code_verifier"])
        )
        async with program("serve", home=tmp_path, env=env) as server:
            response = await raw(server.url, get("/v2/me.json"))
            assert json.loads(response.body)["data"]["email"] == "jane@company.com"
            assert await server.stop() == 0
        assert len(sandbox.token_requests) == 1


async def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with sandboxed() as sandbox:
            await log_in(tmp_path, oauth(sandbox))
    finally:
        os.umask(before)
    path = token_file(tmp_path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each


async def test_a_pasted_address_with_a_wrong_state_or_a_denial_stores_nothing(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)

        async def pasted(number: int) -> tuple[Result, bool]:
            home = tmp_path / str(number)
            home.mkdir()

            async def paste(url: str) -> str:
                location = await allowed(url, "deny" if number == 4 else "allow")
                state = parse_qs(urlsplit(url).query)["state"][0]
                return {
                    0: location.replace(state, "wrong"),
                    1: location.replace("state=", "other="),
                    2: urlsplit(location).query.replace(state, "é"),
                    3: "",
                    4: location,
                    5: f"{env['SALESLOFT_REDIRECT_URI']}?state={state}",
                }[number]

            return await log_in_here(home=home, env=env, paste=paste), token_file(home).exists()

        results = [await pasted(number) for number in range(6)]
        assert sandbox.token_requests == []
    for login, stored in results:
        assert login.code == 1, login.err
        assert not stored
        assert "Traceback" not in login.err
    assert "state" in results[0][0].err
    assert "denied" in results[4][0].err


# A browser that follows the address as one does, with what it shall do first given as Python.
BROWSER = """\
import sys, urllib.request, urllib.error, urllib.parse

class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None

try:
    urllib.request.build_opener(Stay).open(sys.argv[1], timeout=60)
except urllib.error.HTTPError as redirect:
    url = redirect.headers["Location"]
query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
callback, state = query["redirect_uri"][0], query["state"][0]

def fetch(address):
    try:
        with urllib.request.urlopen(address, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

def note(*facts):
    with open(HOME + "/browser.txt", "a") as file:
        print(*facts, file=file)

FIRST
status, page = fetch(url + "&sandbox_consent=allow")
note("end", status, page.replace("\\n", " "))
"""


def browser(home: Path, first: str = "", *, leaves: bool = True) -> str:
    """Write a browser and return the BROWSER that starts it; one that ``leaves`` does its work in the background."""
    script = home / "browser.py"
    script.write_text(BROWSER.replace("FIRST", textwrap.dedent(first)).replace("HOME", repr(str(home))))
    start = home / "browser"
    run_it = f'exec {sys.executable} {script} "$1"'
    start.write_text(f"#!/bin/sh\n{run_it.replace('exec ', '') + ' >/dev/null 2>&1 &' if leaves else run_it}\n")
    start.chmod(0o755)
    return str(start)


async def test_a_login_in_the_browser_is_stored_and_the_page_says_so(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox, BROWSER=browser(tmp_path))
        code, out, err = await run("login", home=tmp_path, env=env)
        assert (code, out) == (0, "Authenticated as: Jane Smith (jane@company.com)\n"), err
        await until(lambda: "end" in (tmp_path / "browser.txt").read_text(), timeout=SOON)
        page = (tmp_path / "browser.txt").read_text()
        assert page.startswith("end 200 ")
        assert "Jane Smith" in page
        kept = json.loads(token_file(tmp_path).read_text())
    no_secret_in(out, err, page, secrets=(SECRET, kept["access_token"], kept["refresh_token"]))


async def test_a_login_works_with_a_browser_that_runs_in_the_terminal(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox, BROWSER=browser(tmp_path, leaves=False))
        started = time.monotonic()
        code, out, err = await run("login", home=tmp_path, env=env)
    assert (code, out) == (0, "Authenticated as: Jane Smith (jane@company.com)\n"), err
    assert (tmp_path / "browser.txt").read_text().startswith("end 200 ")
    assert time.monotonic() - started < SOON


async def test_a_callback_that_is_not_ours_is_refused_and_the_login_goes_on(tmp_path: Path) -> None:
    first = """
    for wrong in ("?code=x", "?code=x&state=wrong", "?code=x&state=%C3%A9", "?error=access_denied", "", "x?a=b"):
        note(fetch(callback + wrong)[0])
    """
    async with sandboxed() as sandbox:
        env = oauth(sandbox, BROWSER=browser(tmp_path, first))
        code, _, err = await run("login", home=tmp_path, env=env)
        assert code == 0, err
        await until(lambda: "end" in (tmp_path / "browser.txt").read_text(), timeout=SOON)
        assert len(sandbox.token_requests) == 1
    statuses = (tmp_path / "browser.txt").read_text().split()
    assert statuses[:6] == ["400", "400", "400", "400", "400", "404"]
    assert "Traceback" not in err


async def test_ctrl_c_ends_a_login_that_waits_for_a_paste(tmp_path: Path) -> None:
    async with sandboxed() as sandbox, interactive("login", "--no-browser", home=tmp_path, env=oauth(sandbox)) as login:
        await login.url()
        await asyncio.sleep(0.2)
        login.process.send_signal(2)
        async with asyncio.timeout(SOON):
            await login.process.wait()
        assert login.process.returncode != 0
        assert login.process.stderr is not None
        assert b"Traceback" not in await login.process.stderr.read()


async def test_a_login_without_anybody_to_paste_fails_and_does_not_hang(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        command = f"exec {sys.executable} -m slproxy login --no-browser <&-"
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", command),
            cwd=tmp_path,
            env=environment(tmp_path, **oauth(sandbox)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                _, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
            pytest.fail("a login with standard input closed did not end")
    assert process.returncode == 1
    assert b"Traceback" not in err


async def test_a_login_keeps_the_earlier_one_when_the_code_is_refused(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        before = token_file(tmp_path).read_bytes()
        sandbox.fault("invalid_grant", on="token")
        login = await log_in_here(home=tmp_path, env=env)
        sandbox.fault("html-200", on="token")
        again = await log_in_here(home=tmp_path, env=env)
    assert token_file(tmp_path).read_bytes() == before
    for each in (login, again):
        assert each.code == 1
        assert "Traceback" not in each.err
        no_secret_in(each.out, each.err)


async def test_a_login_beside_a_running_proxy_is_taken_up_by_it(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        async with program("serve", home=tmp_path, env=env) as server:
            assert json.loads((await raw(server.url, get("/v2/me.json"))).body)["type"] == "login-required"
            await log_in(tmp_path, env)
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            sandbox.revoke_all()
            assert json.loads((await raw(server.url, get("/v2/me.json"))).body)["type"] == "login-required"
            await log_in(tmp_path, env)
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            await server.stop()
