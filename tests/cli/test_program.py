"""The program held to docs/contract.md as a process: commands, exit codes, settings, signals, logins, files, logs."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from slproxy.cli.parser import COMMANDS, Command
from tests.support import ROOT
from tests.support.commands import (
    KEY,
    SECRET,
    Result,
    allowed,
    free_port,
    interactive,
    log_in,
    log_in_here,
    logged_in,
    no_secret_in,
    oauth,
    pointed_at,
    run_here,
    sandboxed,
    state_of,
    token_file,
)
from tests.support.rig import (
    Message,
    ScriptedUpstream,
    environment,
    get,
    port_of,
    program,
    raw,
    reply,
    run,
    until,
)

# Longer than a command takes, on a machine that is busy.
SOON = 10.0
CALLBACK = "http://localhost:3999/callback"


# The commands.


async def test_the_three_spellings_are_one_program(tmp_path: Path) -> None:
    spellings = [
        [sys.executable, "-m", "slproxy"],
        [sys.executable, str(ROOT / "proxy.py")],
    ]

    async def told_by(*words: str) -> tuple[int | None, bytes, bytes]:
        pipe = asyncio.subprocess.PIPE
        env = environment(tmp_path)
        process = await asyncio.create_subprocess_exec(*words, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        return process.returncode, out, err

    lines = (["--version"], ["config", "--json"], ["--no-such-flag"])
    told = await asyncio.gather(*(told_by(*spelling, *line) for spelling in spellings for line in lines))
    assert told[:3] == told[3:]
    assert [code for code, _, _ in told[:3]] == [0, 0, 2]


# What each command is called with as a process, and what it then ends with.
PROCESSES = {
    "serve": (["--uds", "missing/socket"], 2),
    "login": (["--no-browser"], 1),
    "logout": ([], 0),
    "whoami": ([], 0),
    "status": ([], 0),
    "token": ([], 0),
    "doctor": ([], 0),
    "config": ([], 0),
    "profiles": ([], 0),
    "store move": (["--to", "file"], 2),
    "store rekey": ([], 1),
    "sandbox": (["--host", "192.0.2.1"], 2),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
async def test_every_command_works_as_a_process(tmp_path: Path, command: Command) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        arguments, wanted = PROCESSES[command.name]
        env = oauth(sandbox, SLPROXY_LISTEN__PORT=str(free_port()))
        code, out, err = await run(*command.name.split(), *arguments, home=tmp_path, env=env)
    assert code == wanted, (out, err)
    assert bool(out if code == 0 else err)
    assert "Traceback" not in out + err


async def test_without_a_command_it_serves(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program(home=tmp_path, env=env) as server:
            assert (await raw(server.url, get("/v2/a"))).head.status == 200
            assert await server.stop() == 0
    assert upstream.seen[0].head.get("Authorization") == f"Bearer {KEY}"


async def test_every_command_of_the_contract_is_there_and_takes_config_and_profile(tmp_path: Path) -> None:
    code, told, _ = await run_here("--help", home=tmp_path)
    assert code == 0
    for name in ("serve", "login", "logout", "whoami", "status", "token", "config", "sandbox"):
        assert f"    {name} " in told
    names = ("serve", "login", "status")
    results = await asyncio.gather(*(run_here(name, "--help", home=tmp_path) for name in names))
    for name, (code, out, _) in zip(names, results, strict=True):
        assert code == 0, name
        assert "--config" in out, name
        assert "--profile" in out, name
    assert "--json" in results[-1][1]


async def test_usage_and_settings_that_are_wrong_are_exit_2_naming_key_and_place(tmp_path: Path) -> None:
    def folder(name: str, toml: str = "", dotenv: str = "") -> Path:
        home = tmp_path / name
        home.mkdir()
        if toml:
            (home / "slproxy.toml").write_text(toml)
        if dotenv:
            (home / ".env").write_text(dotenv)
        return home

    cases: list[tuple[Path, list[str], dict[str, str], list[str]]] = [
        (folder("flag"), ["serve", "--nonsense"], {}, ["--nonsense"]),
        (folder("key", "[listen]\n\nprot = 1\n"), ["serve"], {}, ["listen.prot", "slproxy.toml:3", "port"]),
        (folder("envname"), ["config"], {"SLPROXY_LISTEN__PROT": "1"}, ["SLPROXY_LISTEN__PROT"]),
        (folder("dotenv", dotenv="A=1\nSLPROXY_RETRY__ATTEMPTS=no\n"), ["config"], {}, ["retry.attempts", ".env:2"]),
        (folder("open"), ["serve", "--host", "0.0.0.0", "--port", "0"], {}, ["listen.key"]),
        (folder("mounted"), ["config"], {"SALESLOFT_API_KEY_FILE": "/nowhere/key"}, ["/nowhere/key"]),
        (folder("both"), ["config"], {"SALESLOFT_API_KEY": KEY, "SALESLOFT_API_KEY_FILE": "/x"}, ["SALESLOFT_API_KEY"]),
        (folder("login"), ["login", "--no-browser"], {}, ["SALESLOFT_CLIENT_ID"]),
    ]
    results = await asyncio.gather(*(run_here(*arguments, home=home, env=env) for home, arguments, env, _ in cases))
    for (home, _, _, wanted), (code, out, err) in zip(cases, results, strict=True):
        assert code == 2, (home.name, out, err)
        for word in wanted:
            assert word in err, (home.name, err)
        assert "Traceback" not in err
        no_secret_in(out, err)


@pytest.mark.parametrize("grant", ["api_key", "client_credentials"])
async def test_a_grant_without_its_credentials_is_told_and_never_a_defect(tmp_path: Path, grant: str) -> None:
    async with sandboxed() as sandbox:
        env = pointed_at(sandbox.url, SLPROXY_AUTH__GRANT=grant)
        code, out, err = await run_here("whoami", home=tmp_path, env=env)
    assert code in (2, 3) or (code == 1 and grant == "client_credentials"), (code, err)
    assert "Traceback" not in out + err
    assert "defect" not in out + err


async def test_precedence_is_flag_environment_dotenv_toml_default(tmp_path: Path) -> None:
    async def port(env: Mapping[str, str] | None = None) -> tuple[int, str]:
        code, out, err = await run_here("config", "--json", home=tmp_path, env=env)
        assert code == 0, err
        row = json.loads(out)["listen.port"]
        return row["value"], row["origin"]

    assert await port() == (8642, "default")
    (tmp_path / "slproxy.toml").write_text("[listen]\nport = 1001\n[profile.work.listen]\nport = 1010\n")
    value, origin = await port()
    assert (value, "slproxy.toml" in origin) == (1001, True)
    assert (await port({"SLPROXY_PROFILE": "work"}))[0] == 1010
    (tmp_path / ".env").write_text("SLPROXY_LISTEN__PORT=1002\n")
    value, origin = await port()
    assert (value, ".env" in origin) == (1002, True)
    value, origin = await port({"SLPROXY_LISTEN__PORT": "1003"})
    assert (value, "SLPROXY_LISTEN__PORT" in origin) == (1003, True)
    wanted = free_port()
    env = {"SLPROXY_LISTEN__PORT": "1003", "SALESLOFT_API_KEY": KEY}
    async with program("serve", "--port", str(wanted), home=tmp_path, env=env) as server:
        assert port_of(server.url) == wanted


async def test_config_masks_secrets_and_names_where_each_came_from(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    env = {
        "SALESLOFT_CLIENT_ID": "cid",
        "SALESLOFT_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
        "SALESLOFT_API_KEY": KEY,
        "SLPROXY_LISTEN__KEY": "marker-local-key",
    }
    for arguments in (["config"], ["config", "--json"]):
        code, out, err = await run_here(*arguments, home=tmp_path, env=env)
        assert code == 0
        no_secret_in(out, err, secrets=(SECRET, KEY, "marker-local-key"))
        assert "SALESLOFT_CLIENT_SECRET_FILE" in out
    values = {key: row["value"] for key, row in json.loads(out).items()}
    wanted: dict[str, object] = {
        "auth.client_secret": "***",
        "auth.client_id": "cid",
        "auth.scope": None,
        "listen.accept_hosts": [],
        "listen.uds_mode": "0600",
        "policy.read_only": False,
        "retry.attempts": 4,
        "retry.budget": 0.2,
        "upstream.connect_timeout": 5,
    }
    for key, value in wanted.items():
        assert (values[key], type(values[key])) == (value, type(value)), key


async def test_a_busy_port_is_exit_2_with_a_clear_message(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = await run("serve", "--port", str(port), home=tmp_path, env={"SALESLOFT_API_KEY": KEY})
    assert code == 2
    assert out == ""
    assert str(port) in err
    assert "in use" in err
    assert "--port" in err
    assert "Traceback" not in err


async def test_exit_codes_tell_done_failed_and_login_needed(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        dead = upstream.url
    client = {"SALESLOFT_CLIENT_ID": "cid", "SALESLOFT_CLIENT_SECRET": SECRET, "SALESLOFT_REDIRECT_URI": CALLBACK}
    cases = [
        (["whoami"], pointed_at(dead, SALESLOFT_API_KEY=KEY), 1),
        (["whoami"], pointed_at(dead), 3),
        (["whoami"], pointed_at(dead, **client), 3),
        (["token"], pointed_at(dead, **client), 3),
        (["status", "--json"], pointed_at(dead, **client), 3),
        (["status"], pointed_at(dead, SALESLOFT_API_KEY=KEY), 0),
        (["logout"], pointed_at(dead, **client), 0),
    ]
    results = await asyncio.gather(*(run_here(*arguments, home=tmp_path, env=env) for arguments, env, _ in cases))
    for (arguments, env, wanted), (code, out, err) in zip(cases, results, strict=True):
        assert code == wanted, (arguments, env, out, err)
        assert "Traceback" not in err
        no_secret_in(out, err)
        if wanted == 3 and "--json" not in arguments:
            assert "slproxy login" in out + err, (arguments, out, err)


# Serving.


async def test_sigterm_lets_requests_in_flight_finish_and_takes_no_new_ones(tmp_path: Path) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.0)
        writer.write(reply(body=b"whole"))

    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as server:
            calls = [asyncio.create_task(raw(server.url, get(f"/v2/{number}"))) for number in range(20)]
            await until(lambda: len(upstream.seen) == 20, timeout=SOON)
            started = time.monotonic()
            server.process.send_signal(15)
            await asyncio.sleep(0.3)
            with pytest.raises(ConnectionError):
                await raw(server.url, get("/v2/new"))
            responses = await asyncio.gather(*calls)
            async with asyncio.timeout(SOON):
                assert await server.process.wait() == 0
            assert time.monotonic() - started < 2.0
    assert [(each.head.status, each.body) for each in responses] == [(200, b"whole")] * 20
    assert "Traceback" not in server.output


@pytest.mark.parametrize("number", [2, 15])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: int) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(SOON)

    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as server:
            call = asyncio.create_task(raw(server.url, get("/v2/a")))
            await until(lambda: len(upstream.seen) == 1, timeout=SOON)
            server.process.send_signal(number)
            await asyncio.sleep(0.2)
            assert server.process.returncode is None
            started = time.monotonic()
            await server.stop(number)
            assert time.monotonic() - started < 1.0
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await call
    assert "Traceback" not in server.output
    assert "never awaited" not in server.output


async def test_ctrl_c_ends_it_cleanly_with_an_idle_connection_open(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server.url))
            writer.write(get("/v2/a"))
            await reader.readuntil(b"{}")
            started = time.monotonic()
            assert await server.stop(2) == 0
            assert time.monotonic() - started < 1.5
            writer.close()
    assert "Traceback" not in server.output


async def test_sigterm_lets_a_renewal_under_way_finish_and_be_written(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        before = json.loads(token_file(tmp_path).read_text())
        async with program("serve", home=tmp_path, env=env) as server:
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            sandbox.fault("slow=1", on="token")
            sandbox.expire(before["access_token"])
            asked = len(sandbox.token_requests)
            call = asyncio.create_task(raw(server.url, get("/v2/me.json")))
            await until(lambda: len(sandbox.token_requests) > asked, timeout=SOON)
            assert await server.stop() == 0
            await asyncio.gather(call, return_exceptions=True)
        after = json.loads(token_file(tmp_path).read_text())
        assert after["refresh_token"] != before["refresh_token"]
        code, out, _ = await run_here("whoami", home=tmp_path, env=env)
    assert (code, out) == (0, "Authenticated as: Jane Smith (jane@company.com)\n")


async def test_the_pages_tell_that_it_is_alive_and_ready_and_nothing_secret(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY, SLPROXY_LISTEN__KEY="marker-local-key")
        async with program("serve", home=tmp_path, env=env) as server:
            for page in ("healthz", "readyz"):
                response = await raw(server.url, get(f"/_slproxy/{page}", host="anything"))
                assert response.head.status == 200
            assert (await raw(server.url, get("/_slproxy/status.json"))).head.status == 401
            response = await raw(server.url, get("/_slproxy/status.json", "X-Slproxy-Key: marker-local-key"))
            document = json.loads(response.body)
            assert document["ready"] is True
            assert document["token"]["grant"] == "api_key"
            no_secret_in(response.body.decode(), server.output, secrets=(KEY, "marker-local-key"))
            assert sandbox.requests == []
            await server.stop()
    no_secret_in(server.output, secrets=(KEY, "marker-local-key"))


async def test_the_access_log_is_one_json_line_a_request_without_query_or_secret(tmp_path: Path) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target.startswith("/v2/garbage"):
            writer.write(b"garbage\r\n\r\n")
            await writer.drain()
            writer.close()
        elif message.head.target.startswith("/v2/gone"):
            writer.close()
        elif message.head.target.startswith("/v2/half"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            await writer.drain()
            writer.close()
        else:
            writer.write(reply("201 Created"))

    headers = ("Authorization: Bearer marker-theirs", "Cookie: c=marker-cookie", "X-Slproxy-Key: marker-wrong")
    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY, SLPROXY_LOG__LEVEL="debug")
        async with program("serve", home=tmp_path, env=env) as server:
            for path in ("/v2/people", "/v2/garbage", "/v2/gone", "/nothing", "/v2/a%00", "/v2/half"):
                request = get(f"{path}?email=marker-query", *headers, method="POST", body=b"marker-body")
                try:
                    await raw(server.url, request)
                except (ConnectionError, asyncio.IncompleteReadError):
                    assert path == "/v2/half"
            await raw(server.url, get("/v2/x?marker-query", "Bad Header: marker-junk"))
            await server.stop()
    lines = [json.loads(line) for line in server.errors if line.startswith("{")]
    assert len(lines) > 5
    requests = {line["path"]: line for line in lines if "method" in line}
    assert {"method", "path", "status", "attempts", "ms"} <= set(requests["/v2/people"])
    assert (requests["/v2/people"]["method"], requests["/v2/people"]["status"]) == ("POST", 201)
    assert requests["/v2/people"]["attempts"] == 1
    assert requests["/v2/garbage"]["status"] == 502
    assert requests["/nothing"]["status"] == 404
    assert requests["/nothing"]["attempts"] == 0
    leaked = [line for line in [*server.lines, *server.errors] if "marker" in line or KEY in line]
    assert leaked == []
    assert all(line.startswith("{") for line in server.errors if '"' in line)


async def test_wrong_credentials_let_it_start_and_readyz_and_the_first_request_tell(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        del env["SALESLOFT_REDIRECT_URI"]
        cases = [
            ({**env, "SALESLOFT_CLIENT_SECRET": "wrong-marker"}, "credentials-refused", "SALESLOFT_CLIENT_SECRET"),
            (pointed_at(sandbox.url, SALESLOFT_CLIENT_ID="cid"), "login-required", "slproxy login"),
            (pointed_at(sandbox.url), "login-required", "slproxy login"),
            ({**env, "SLPROXY_UPSTREAM__ACCOUNTS_URL": "http://127.0.0.1:9"}, "token-endpoint-down", "accounts_url"),
        ]
        for number, (variables, kind, hint) in enumerate(cases):
            home = tmp_path / str(number)
            home.mkdir()
            async with program("serve", home=home, env=variables) as server:
                response = await raw(server.url, get("/v2/me.json"))
                document = json.loads(response.body)
                assert (response.head.status, document["type"]) == (503, kind)
                assert hint in document["hint"]
                ready = await raw(server.url, get("/_slproxy/readyz"))
                assert (ready.head.status, json.loads(ready.body)["type"]) == (503, kind)
                assert (await raw(server.url, get("/_slproxy/healthz"))).head.status == 200
                state = await state_of(server)
                assert state["ready"] is False
                await server.stop()
            no_secret_in(server.output, json.dumps(state), secrets=(SECRET, "wrong-marker"))


async def test_an_api_key_is_served_whatever_became_of_an_old_token_file(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        path = token_file(tmp_path)
        path.parent.mkdir(parents=True, mode=0o700)
        path.write_text("not a token file")
        path.chmod(0o644)
        code, out, err = await run_here("whoami", home=tmp_path, env=pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY))
    assert (code, out) == (0, "Authenticated as: Jane Smith (jane@company.com)\n"), err


@pytest.mark.parametrize(
    ("more", "stored", "grant"),
    [
        ({"SALESLOFT_API_KEY": KEY}, True, "api_key"),
        ({}, True, "authorization_code"),
        ({}, False, "authorization_code"),
        ({"SALESLOFT_REDIRECT_URI": ""}, False, "client_credentials"),
        ({"SALESLOFT_REDIRECT_URI": ""}, True, "authorization_code"),
        ({"SLPROXY_AUTH__GRANT": "client_credentials"}, True, "client_credentials"),
    ],
)
async def test_auto_takes_an_api_key_then_a_stored_login_then_client_credentials_and_status_says_why(
    tmp_path: Path, more: dict[str, str], stored: bool, grant: str
) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        if stored:
            await logged_in(tmp_path, sandbox)
        code, out, err = await run_here("status", "--json", home=tmp_path, env={**env, **more})
        document = json.loads(out)
        assert document["token"]["grant"] == grant
        assert document["token"]["why"]
        assert code == (3 if grant == "authorization_code" and not stored else 0)
        no_secret_in(out, err)


# Logging in.


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
        others = [each for each in path.parent.iterdir() if each != path and each.suffix != ".lock"]
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

url = sys.argv[1]
query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
callback, state = query["redirect_uri"][0], query["state"][0]

def fetch(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
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
    assert time.monotonic() - started < 4.0


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
        started = time.monotonic()
        try:
            async with asyncio.timeout(3):
                await login.process.wait()
        except TimeoutError:
            pytest.fail("Ctrl-C did not end the login within 3 s")
        assert time.monotonic() - started < 3
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
            async with asyncio.timeout(5):
                _, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
            pytest.fail("a login with standard input closed did not end within 5 s")
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


# The token file.


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
async def test_a_token_file_is_sealed_with_the_key_of_the_settings_and_opens_with_no_other(
    tmp_path: Path, key: str
) -> None:
    async with sandboxed() as sandbox:
        env = oauth(sandbox)
        await logged_in(tmp_path, sandbox)
        secrets = tuple(
            json.loads(token_file(tmp_path).read_text())[name] for name in ("access_token", "refresh_token")
        )
        sandbox.expire(secrets[0])
        sealed = {**env, "SLPROXY_STORE__KEY": key}
        assert (await run_here("whoami", home=tmp_path, env=sealed))[0] == 0
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
        assert (await run_here("whoami", home=tmp_path, env=sealed))[0] == 0


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


# The other commands.


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
            await raw(server.url, get("/v2/me.json"))
            code, out, _ = await run_here("status", "--json", home=tmp_path, env=env)
            proxy = json.loads(out)["proxy"]
            assert (code, proxy["ready"]) == (0, True)
            assert proxy["budget"]["remaining"] == 599
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


async def test_serving_the_sandbox_needs_nothing_and_leaves_the_real_store_alone(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        kept = token_file(tmp_path).read_bytes()
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path) as server:
        response = await raw(server.url, get("/v2/me.json"))
        assert json.loads(response.body)["data"]["name"] == "Jane Smith"
        response = await raw(server.url, get("/v2/people.json", "X-Sandbox-Fault: expire-token"))
        assert response.head.status == 200
        assert await server.stop() == 0
    assert "Authenticated as: Jane Smith (jane@company.com)" in server.output
    assert "SANDBOX" in server.output.upper()
    assert token_file(tmp_path).read_bytes() == kept


async def test_a_unix_socket_is_served_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with ScriptedUpstream() as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        del env["SLPROXY_LISTEN__PORT"]
        async with program("serve", "--uds", str(path), home=tmp_path, env=env) as server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(get("/v2/a"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
            code, out, _ = await run_here(
                "status", "--json", home=tmp_path, env={**env, "SLPROXY_LISTEN__UDS": str(path)}
            )
            assert json.loads(out)["proxy"]["ready"] is True
            assert await server.stop() == 0
    assert code == 0
