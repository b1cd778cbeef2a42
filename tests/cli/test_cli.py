"""What a person is told, and what a signal does to a command."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from slproxy.sandbox import Options, Sandbox
from slproxy.store import FileStore
from tests.support.commands import run_here
from tests.support.programs import program, run, spawn, verified
from tests.support.proxies import API_KEY
from tests.support.raw_http import get, port_of, raw
from tests.support.sandboxes import login_at
from tests.support.waiting import PATIENCE, until


def pointed_at(sandbox: Sandbox) -> dict[str, str]:
    return {
        "SLPROXY_UPSTREAM__API_URL": sandbox.url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": sandbox.url,
        "SALESLOFT_CLIENT_ID": sandbox.options.client_id,
        "SALESLOFT_CLIENT_SECRET": sandbox.options.client_secret,
    }


WHO = "Authenticated as: Jane Smith (jane@company.com)\n"


def token_file(home: Path) -> Path:
    return home / "state" / "slproxy" / "default.json"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_command_that_is_ended_in_a_renewal_keeps_the_rotated_token(
    sandbox: Sandbox, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    record = login_at(sandbox, lifetime=-1.0)
    await FileStore(token_file(tmp_path)).write(record)
    sandbox.fault("slow=0.5", on="token")  # the new pair is there before the answer is
    process = await spawn(["token"], tmp_path, pointed_at(sandbox), stdin=asyncio.subprocess.DEVNULL)
    await until(lambda: len(sandbox.token_requests) == 1)
    for _ in range(times):
        process.send_signal(number)
        await asyncio.sleep(0.1)
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    kept = json.loads(token_file(tmp_path).read_text())
    assert kept["generation"] == record.generation + 1
    assert kept["access_token"] != record.token.access_token
    assert (process.returncode, out) == (128 + number, b"")
    assert b"Traceback" not in err


async def test_a_command_that_is_ended_at_rest_ends_at_once(tmp_path: Path) -> None:
    async with program("sandbox", "--port", "0", home=tmp_path) as running:
        assert await running.stop() == 0


@pytest.mark.parametrize(
    ("place", "said"),
    [("missing/s", "No such file"), ("x" * 200, "too long"), ("file/s", "Not a directory")],
    ids=["no folder", "too long", "a file for a folder"],
)
async def test_a_socket_that_cannot_be_made_is_told_and_no_traceback(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = await run(
        "serve", "--uds", str(tmp_path / place), home=tmp_path, env={"SALESLOFT_API_KEY": API_KEY}
    )
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


async def test_the_socket_file_is_gone_when_the_proxy_is(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with program("serve", "--uds", str(path), home=tmp_path, env={"SALESLOFT_API_KEY": API_KEY}) as running:
        assert path.is_socket()
        assert await running.stop() == 0
    assert not path.exists()


async def test_the_sandbox_serves_whatever_profile_is_chosen(tmp_path: Path) -> None:
    async with program("serve", "--sandbox", "--port", "0", "--profile", "work", home=tmp_path) as running:
        assert "Authenticated as: Jane Smith (jane@company.com)" in await verified(running)
        assert (await raw(running.url, get("/v2/me.json"))).head.status == 200


async def test_a_login_at_the_built_in_sandbox_that_dies_is_followed_by_another(tmp_path: Path) -> None:
    async with program("serve", "--sandbox", "--port", "0", home=tmp_path) as running:
        # In a header that fault strikes once for each target.
        for target in ("/v2/me.json", "/v2/people.json"):
            dead = await raw(running.url, get(target, "X-Sandbox-Fault: revoke-token"))
            assert (dead.head.status, json.loads(dead.body)["type"]) == (503, "login-required")
            assert (await raw(running.url, get("/v2/me.json"))).head.status == 200


async def test_a_profile_that_nothing_is_known_of_is_a_warning_that_names_the_known(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    await FileStore(token_file(tmp_path).with_stem("kept")).write(login_at(sandbox))
    (tmp_path / "slproxy.toml").write_text("[profile.work.retry]\nattempts = 2\n")
    env = pointed_at(sandbox) | {"SALESLOFT_API_KEY": sandbox.options.api_key}
    for profile in ("default", "kept", "work"):
        assert await run_here("whoami", "--profile", profile, home=tmp_path, env=env) == (0, WHO, "")
    warning = "slproxy: warning: the profile wrok has neither settings nor a login; known are: default, kept, work\n"
    assert await run_here("whoami", "--profile", "wrok", home=tmp_path, env=env) == (0, WHO, warning)
    # A login makes it known; and what a Redis or a file by another name holds is not looked into.
    _, _, err = await run_here("login", "--no-browser", "--profile", "wrok", home=tmp_path, env=env)
    assert "warning" not in err
    env["SLPROXY_STORE__PATH"] = str(tmp_path / "another.json")
    assert await run_here("whoami", "--profile", "wrok", home=tmp_path, env=env) == (0, WHO, "")


async def test_two_profiles_do_not_share_a_token(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "shared.json"
    await FileStore(path).write(login_at(sandbox))
    env = {**pointed_at(sandbox), "SLPROXY_STORE__PATH": str(path), "SLPROXY_AUTH__GRANT": "authorization_code"}
    code, out, _ = await run_here("token", home=tmp_path, env=env)
    assert (code, out != "") == (0, True)
    code, out, err = await run_here("token", "--profile", "other", home=tmp_path, env=env)
    assert (code, out) == (3, ""), err


async def test_the_help_of_the_sandbox_tells_its_defaults_and_where_its_pages_are(tmp_path: Path) -> None:
    _, out, _ = await run_here("sandbox", "--help", home=tmp_path, env={"COLUMNS": "200"})
    options = Options()
    told = " ".join(out.partition("options:")[2].split())
    for flag, default in {
        "--client-id": options.client_id,
        "--redirect-uri": options.redirect_uris[0],
        "--token-lifetime": f"{options.token_lifetime:g}",
        "--rotation": options.rotation,
        "--budget": str(options.budget),
    }.items():
        assert told.partition(flag)[2].partition("(default: ")[2].startswith(f"{default})"), flag
    assert "/_sandbox/" in told


async def test_the_help_says_what_exit_codes_mean(tmp_path: Path) -> None:
    _, out, _ = await run_here("--help", home=tmp_path)
    assert "0 done, 1 failed, 2 bad usage or configuration, 3 login needed" in out
    _, out, _ = await run_here("store", "--help", home=tmp_path)
    assert "Move the login to another store, or change its encryption key." in out


@pytest.mark.parametrize("before", [True, False], ids=["before the command", "after it"])
async def test_status_and_doctor_ask_the_proxy_that_a_flag_names(
    sandbox: Sandbox, tmp_path: Path, before: bool
) -> None:
    env = pointed_at(sandbox) | {"SALESLOFT_API_KEY": sandbox.options.api_key}
    async with (
        program("serve", "--port", "0", home=tmp_path, env=env) as by_port,
        program("serve", "--uds", "s", home=tmp_path, env=env),
    ):
        port = str(port_of(by_port.url))
        for where, up_at in ((["--port", port], f"127.0.0.1:{port}"), (["--uds", "s"], f"unix:{tmp_path / 's'}")):
            for command in ("status", "doctor"):
                arguments = [*where, command] if before else [command, *where]
                code, out, err = await run_here(*arguments, home=tmp_path, env=env)
                assert (code, err) == (0, ""), out
                assert f"up at {up_at}" in out, out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sandbox", "whoami"],
        ["--sandbox", "status"],
        ["--read-only", "token"],
        ["--port", "8700", "login"],
        ["--uds", "s", "sandbox"],
        ["--host", "localhost", "store", "rekey"],
    ],
    ids=" ".join,
)
async def test_a_flag_that_a_command_does_not_take_is_refused_before_it_as_after_it(
    sandbox: Sandbox, tmp_path: Path, arguments: list[str]
) -> None:
    env = pointed_at(sandbox) | {"SALESLOFT_API_KEY": sandbox.options.api_key}
    code, out, err = await run_here(*arguments, home=tmp_path, env=env)
    assert (code, out) == (2, "")
    assert f"{arguments[0]} is a flag of serve" in err
    assert sandbox.requests == []


async def test_the_sandbox_takes_its_address_before_the_command_too(tmp_path: Path) -> None:
    async with program("--port", "0", "sandbox", home=tmp_path) as running:
        assert port_of(running.url) != 8643


async def test_a_login_that_may_not_ask_who_it_is_is_a_login(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault("status=403;times=9", path="/v2/me.json")
    env = pointed_at(sandbox)
    process = await spawn(["login", "--no-browser"], tmp_path, env, stdin=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        url = ""
        while "/oauth/authorize" not in url:
            url = (await process.stderr.readline()).decode().strip()
        asked = get(url.removeprefix(sandbox.url) + "&sandbox_consent=allow")
        location = (await raw(sandbox.url, asked)).head.get("Location")
        assert location is not None
        out, _ = await process.communicate(location.encode() + b"\n")
    assert process.returncode == 0
    assert out.startswith(b"Logged in.")
    assert token_file(tmp_path).exists()
