"""The command line: usage, settings and exit codes, as the contract has them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from slproxy.cli.parser import COMMANDS, Command
from tests.support import ROOT
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
)
from tests.support.programs import environment, program, run, spawn
from tests.support.raw_http import get, port_of, raw
from tests.support.scripted import ScriptedUpstream

CALLBACK = "http://localhost:3999/callback"


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
    "run": (["--", "echo", "said"], 0),
    "login": (["--no-browser"], 1),
    "logout": ([], 0),
    "whoami": ([], 0),
    "status": ([], 0),
    "token": ([], 0),
    "doctor": ([], 0),
    "healthcheck": ([], 1),
    "config": ([], 0),
    "key": ([], 0),
    "skill": ([], 0),
    "profiles": ([], 0),
    "completion": (["bash"], 0),
    "store move": (["--to", "file"], 2),
    "store rekey": ([], 1),
    "inspect": (["--no-browser"], 1),
    "sandbox": (["--host", "192.0.2.1"], 2),
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
async def test_every_command_works_as_a_process(tmp_path: Path, command: Command) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        arguments, wanted = PROCESSES[command.name]
        env = oauth(sandbox, SLPROXY_LISTEN__PORT=str(free_port()))
        words, nothing = [*command.name.split(), *arguments], asyncio.subprocess.DEVNULL
        process = await spawn(words, tmp_path, env, stdin=nothing, fresh=True)
        out, err = await process.communicate()
    assert process.returncode == wanted, (out, err)
    assert bool(out if wanted == 0 else err)
    assert b"Traceback" not in out + err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("statsu", "there is no command statsu: did you mean status? It is one of serve, run, login, "),
        ("marker-typed", "there is no such command. It is one of serve, run, login, "),
        ("store mvoe", "there is no command mvoe: did you mean move? It is one of move, rekey"),
        ("store move --to marker-typed", "argument --to: It is one of file, keyring, redis"),
        ("serve --port marker-typed", "argument -p/--port: expected a number"),
        ("sandbox --token-lifetime marker-typed", "argument --token-lifetime: expected a number"),
        ("serve --read-only=marker-typed", "argument --read-only: takes no value"),
        ("serve --nonsense=marker-typed", "slproxy serve: error: unknown flag --nonsense: --help shows what there is"),
        ("serve --raed-only marker-typed", "unknown flag --raed-only: did you mean --read-only? --help"),
        ("serve --Marker-typed", "unknown flag: --help shows what there is"),
        ("serve -zmarker-typed", "unknown flag -z: --help shows what there is"),
        ("--password marker-typed", "unknown flag --password: --help shows what there is"),
        ("--password statsu", "unknown flag --password: --help shows what there is"),
        ("--read-only statsu", "there is no command statsu: did you mean status?"),
        ("--json status", "slproxy status: error: --json comes after the command"),
        ("--json=marker-typed status", "error: --json comes after the command"),
        ("--watch -v status", "error: --watch comes after the command"),
        ("--ready healthcheck", "error: --ready comes after the command"),
        ("--names profiles", "error: --names comes after the command"),
        ("--to marker-typed store move", "error: --to comes after the command"),
        ("--budget 5 run -- true", "error: --budget comes after the command"),
        ("--json", "error: --json comes after the command"),
        ("--json serve", "unknown flag --json: --help shows what there is"),
        ("--jsno status", "unknown flag --jsno: did you mean --json? --help"),
        ("status -- --json", "there is a word too many, which is no flag"),
        ("serve marker-typed", "there is a word too many, which is no flag"),
        ("store rekey --new-key-file nofile", "slproxy: nofile: the file does not exist"),
    ],
)
async def test_wrong_usage_is_told_without_what_was_typed(line: str, told: str, tmp_path: Path) -> None:
    code, _, err = await run_here(*line.split(), home=tmp_path)
    assert code == 2
    assert told in err
    assert "marker-typed" not in err


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


async def test_what_does_not_listen_does_not_mind_where_the_proxy_would(tmp_path: Path) -> None:
    """As in a container, whose image sets the host for all commands."""
    env = {"SALESLOFT_API_KEY": KEY, "SLPROXY_LISTEN__HOST": "0.0.0.0", "SLPROXY_LISTEN__PORT": "1"}
    for command in ("token", "status", "config", "profiles", "logout"):
        code, out, err = await run_here(command, home=tmp_path, env=env)
        assert code == 0, (command, out, err)
    code, _, err = await run_here("serve", home=tmp_path, env=env)
    assert code == 2
    assert "listen.key" in err


async def test_a_credential_that_nobody_filled_in_stops_each_command_but_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SALESLOFT_API_KEY=your-api-key\n")
    for command in ("serve", "login", "whoami", "token"):
        code, out, err = await run_here(command, home=tmp_path)
        assert (code, out) == (2, ""), (command, err)
        assert "auth.api_key (.env:1): is a placeholder" in err, command
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path) as running:
        assert (await raw(running.url, get("/v2/me.json"))).head.status == 200


async def test_a_doubt_about_the_settings_is_told_beside_the_result(tmp_path: Path) -> None:
    env = {"SALESLOFT_API_KEY": "0a1b2c3d", "SALESLOFT_CLIENTID": "x"}
    code, out, err = await run_here("token", home=tmp_path, env=env)
    assert (code, out) == (0, "0a1b2c3d\n")
    assert "slproxy: warning: auth.api_key (env SALESLOFT_API_KEY) looks like none of SalesLoft's" in err
    assert "slproxy: warning: SALESLOFT_CLIENTID is no setting" in err
    assert "did you mean SALESLOFT_CLIENT_ID?" in err


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


@pytest.mark.parametrize("end", ["rmdir ../there", "chmod 0 ."])
async def test_a_folder_that_cannot_be_used_is_told(end: str, tmp_path: Path) -> None:
    """It was removed, or belongs to who ran `sudo -u`."""
    if os.geteuid() == 0 and "chmod" in end:
        pytest.skip("root may look into every folder")
    there = ["sh", "-c", f'mkdir there && cd there && {end} && exec "$@"', "sh"]
    process = await spawn(["config"], tmp_path, {}, stdin=asyncio.subprocess.DEVNULL, before=there)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"slproxy: The folder that this was started in cannot be used: ")
