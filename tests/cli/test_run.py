"""``slproxy run``: a program behind a proxy of its own, as docs/contract.md, Run, says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from slproxy.sandbox import Sandbox
from slproxy.store import FileStore
from tests.support.commands import KEY, SECRET, logged_in, no_secret_in, oauth, pointed_at, sandboxed, token_file
from tests.support.programs import environment, run, spawn
from tests.support.raw_http import get, raw
from tests.support.waiting import PATIENCE, until

# What the program was told, and whom it is by that, as JSON.
TOLD = (
    "import json, os, urllib.request as u\n"
    "got = u.urlopen(u.Request(os.environ['SALESLOFT_BASE_URL'] + '/v2/me.json',"
    " headers={'Authorization': 'Bearer ' + os.environ['SALESLOFT_API_KEY']}))\n"
    "print(json.dumps({'environ': dict(os.environ), 'me': json.load(got)['data']['email']}))\n"
)
# Waits until it is killed, once it has said who it is and where its proxy is.
WAITS = "echo $$ $SLPROXY_URL; exec sleep 60"


async def ran(home: Path, sandbox: Sandbox, *arguments: str, stdin: str = "", **more: str) -> tuple[int, str, str]:
    return await run(*arguments, home=home, env=pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY, **more), stdin=stdin)


async def test_a_program_gets_an_address_and_a_key_and_no_secret(tmp_path: Path) -> None:
    mounted = tmp_path / "secret"
    mounted.write_text(SECRET)
    async with sandboxed() as sandbox:
        code, out, err = await ran(
            tmp_path,
            sandbox,
            "run",
            "--",
            sys.executable,
            "-c",
            TOLD,
            SALESLOFT_CLIENT_ID=sandbox.options.client_id,
            SALESLOFT_CLIENT_SECRET_FILE=str(mounted),
            SLPROXY_STORE__KEY="store-" + SECRET,
            SALESLOFT_OLD_TOKEN="whatever",
            MY_COPY=f"x{KEY}y",
            SLPROXY_LISTEN__KEY="local-key-of-another-proxy",
            SLPROXY_CLIENT__AGENT__KEY="key-of-another-client",
            MY_PROXY="http://:local-key-of-another-proxy@localhost:8642",
            MY_AGENT="key-of-another-client",
            SALESLOFT_TEAM="mine",
            http_proxy="http://proxy.test:3128",
        )
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["me"] == "jane@company.com"
    no_secret_in(out)
    environ = told["environ"]
    key, url = environ["SLPROXY_KEY"], environ["SLPROXY_URL"]
    ours = {name: value for name, value in environ.items() if name.startswith(("SALESLOFT", "SLPROXY", "MY_"))}
    assert ours == {
        "SALESLOFT_BASE_URL": url,
        "SLPROXY_URL": url,
        "SALESLOFT_API_KEY": key,
        "SLPROXY_KEY": key,
        "SALESLOFT_TEAM": "mine",
    }
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert environ["no_proxy"] == environ["NO_PROXY"] == "127.0.0.1,localhost"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 77, 128, 255])
async def test_its_exit_code_is_that_of_the_program(tmp_path: Path, code: int) -> None:
    async with sandboxed() as sandbox:
        assert (await ran(tmp_path, sandbox, "run", "--", "sh", "-c", f"exit {code}"))[0] == code


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["no-such-program-7f3a"], 127, "There is no no-such-program-7f3a to run."),
        ([""], 127, "There is no '' to run."),
        (["/"], 126, "/ cannot be run: Permission denied."),
        (["sh", "-c", "kill -KILL $$"], 137, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
    ],
)
async def test_what_cannot_be_run_and_what_is_killed_end_as_for_env(
    tmp_path: Path, argv: list[str], code: int, says: str
) -> None:
    async with sandboxed() as sandbox:
        done = await ran(tmp_path, sandbox, "run", "--", *argv)
    assert (done[0], done[1]) == (code, "")
    assert says in done[2]
    assert "Traceback" not in done[2]


async def test_rules_hold_for_the_program(tmp_path: Path) -> None:
    ask = 'curl -s -o /dev/null -w "%{http_code} " -H "X-Slproxy-Key: $SLPROXY_KEY"'
    script = f"{ask} $SLPROXY_URL/v2/people; {ask} -X POST -d '' $SLPROXY_URL/v2/people; {ask} $SLPROXY_URL/v2/me"
    async with sandboxed() as sandbox:
        rules = ["--read-only", "--accept-path", "/v2/people", "--reject-path", "/v2/people/7", "--name", "report"]
        assert (await ran(tmp_path, sandbox, "run", *rules, "--", "sh", "-c", script))[1] == "200 405 404 "
        script = f"{ask} -H 'Prefer: wait=0' $SLPROXY_URL/v2/me; " * 2
        assert (await ran(tmp_path, sandbox, "run", "--budget", "1", "--", "sh", "-c", script))[1] == "200 429 "
        (tmp_path / "slproxy.toml").write_text("[client.report]\nkey = 'x'\nread_only = true\n")
        script = f"{ask} -X POST -d '' $SLPROXY_URL/v2/people; {ask} -H 'X-Slproxy-Key: x' $SLPROXY_URL/v2/me"
        assert (await ran(tmp_path, sandbox, "run", "--name", "report", "--", "sh", "-c", script))[1] == "405 200 "


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "what is to be run? slproxy run -- CMD ARGS"),
        (["run", "--"], "what is to be run? slproxy run -- CMD ARGS"),
        (["--read-only", "run", "--", "true"], "--read-only is a flag of serve"),
        (["run", "--accept-path", "people", "--", "true"], "does not begin with '/'"),
        (["run", "--reject-path", "/v2", "--", "true"], "closes all that /v2/ in client.run.accept_paths opens"),
        (["run", "--reject-path", "/users", "--", "true"], "is below nothing in client.run.accept_paths"),
        (["run", "--name", "Report!", "--", "true"], "expected a name of 1 to 32 small letters"),
        (["run", "--budget", "0", "--", "true"], "expected an integer of at least 1"),
    ],
)
async def test_a_mistake_is_told_and_nothing_is_run(tmp_path: Path, arguments: list[str], says: str) -> None:
    async with sandboxed() as sandbox:
        code, out, err = await ran(tmp_path, sandbox, *arguments)
    assert (code, out) == (2, "")
    assert says in err


async def test_its_streams_are_those_of_the_program_byte_for_byte(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 64
    async with sandboxed() as sandbox:
        env = pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY)
        process = await spawn(["run", "--", "cat"], tmp_path, env, stdin=asyncio.subprocess.PIPE)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate(data)
    assert (hashlib.sha256(out).digest(), err) == (hashlib.sha256(data).digest(), b"")


@contextlib.asynccontextmanager
async def waiting(home: Path, env: Mapping[str, str], script: str = WAITS):  # type: ignore[no-untyped-def]
    """Run a script that says its number and its address; yield the process, these two, and what reads the rest."""
    process = await spawn(["run", "--", "bash", "-c", script], home, env, stdin=asyncio.subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            pid, url = (await process.stdout.readline()).decode().split()
            yield process, int(pid), url, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def answers(url: str) -> bool:
    try:
        await raw(url, get("/_slproxy/healthz"))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"])
async def test_a_signal_is_passed_on(tmp_path: Path, name: str) -> None:
    if name in ("HUP", "QUIT") and signal.getsignal(getattr(signal, f"SIG{name}")) is signal.SIG_IGN:
        pytest.skip("ignored from the start, as nohup(1) and a shell's & have it: no shell can trap it then")
    script = f"trap 'echo {name}; exit 9' {name}; echo $$ $SLPROXY_URL; while :; do sleep 0.02; done"
    async with (
        sandboxed() as sandbox,
        waiting(tmp_path, pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY), script) as (process, _, url, out),
    ):
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert (await out.read()).decode() == f"{name}\n"
        assert await process.wait() == 9
        assert not await answers(url)


@pytest.mark.parametrize("victim", ["slproxy", "program"])
async def test_whichever_is_killed_the_other_is_gone_and_the_address_answers_nobody(
    tmp_path: Path, victim: str
) -> None:
    async with (
        sandboxed() as sandbox,
        waiting(tmp_path, pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY)) as (process, pid, url, _),
    ):
        assert await answers(url)
        if victim == "slproxy":
            process.kill()
        else:
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(1.0):
            assert await process.wait() == (-9 if victim == "slproxy" else 137)
            await until(lambda: not is_alive(pid))
        assert not await answers(url)


async def test_within_run_salesloft_is_never_shown_the_key_of_the_proxy_outside(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        inner = [sys.executable, "-m", "slproxy", "run", "--", "echo", "never"]
        code, out, err = await ran(tmp_path, sandbox, "run", "--", *inner)
        assert (code, out) == (2, "")
        assert "is SLPROXY_KEY, the key of the proxy of the `slproxy run` that this runs in" in err
        assert "send requests to SLPROXY_URL" in err
    assert not sandbox.requests


async def test_what_the_program_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        script = "sleep 60 > /dev/null 2>&1 & echo $!"
        code, out, _ = await ran(tmp_path, sandbox, "run", "--", "sh", "-c", script)
    assert code == 0
    os.kill(int(out), signal.SIGKILL)


async def test_ctrl_c_ends_both_and_reaches_the_program_once(tmp_path: Path) -> None:
    # The loop says what it caught: bash loses a signal that comes while it runs the trap of the one before.
    script = """trap 'n=x$n' INT; echo ready
        while sleep 0.02; [ "$n" != xx ]; do [ "$n" = "$m" ] || { m=$n; echo caught; }; done; exit 8"""
    async with sandboxed() as sandbox:
        env = environment(tmp_path, **pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY))
        pid, keys = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            os.execvpe(sys.executable, [sys.executable, "-m", "slproxy", "run", "--", "bash", "-c", script], env)
        os.set_blocking(keys, False)
        shown = b""

        def said(text: bytes) -> int:
            nonlocal shown
            with contextlib.suppress(BlockingIOError, OSError):
                shown += os.read(keys, 4096)
            return shown.count(text)

        try:
            async with asyncio.timeout(PATIENCE):
                for number in (0, 1):
                    await until(lambda number=number: said(b"caught") == number and said(b"ready") == 1)  # type: ignore[misc]
                    os.write(keys, b"\x03")
                status = await asyncio.to_thread(os.waitpid, pid, 0)
        finally:
            os.close(keys)
    assert os.waitstatus_to_exitcode(status[1]) == 8


async def test_twenty_at_once_renew_one_login_once(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        record = await FileStore(token_file(tmp_path)).read()
        assert record is not None
        sandbox.expire(record.token.access_token)
        ask = 'curl -s -o /dev/null -w "%{http_code}" -H "X-Slproxy-Key: $SLPROXY_KEY" $SLPROXY_URL/v2/me'
        env = {**oauth(sandbox), "SLPROXY_AUTH__GRANT": "authorization_code"}
        done = await asyncio.gather(*(run("run", "--", "sh", "-c", ask, home=tmp_path, env=env) for _ in range(20)))
    assert {(code, out) for code, out, _ in done} == {(0, "200")}
    assert [each.status for each in sandbox.token_requests] == [200]


async def test_it_works_against_the_built_in_sandbox(tmp_path: Path) -> None:
    ask = 'curl -s -H "X-Slproxy-Key: $SLPROXY_KEY" $SLPROXY_URL/v2/me'
    code, out, _ = await run("run", "--sandbox", "--", "sh", "-c", ask, home=tmp_path)
    assert (code, json.loads(out)["data"]["name"]) == (0, "Jane Smith")


async def test_that_a_login_is_needed_is_said_before_the_program_wonders(tmp_path: Path) -> None:
    code, out, err = await run("run", "--", "echo", "here", home=tmp_path)
    assert (code, out) == (0, "here\n")
    assert err.startswith("slproxy: warning: not ready: No credentials are set. Set SALESLOFT_API_KEY")


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
async def test_node_needs_the_base_url_and_the_key_alone(tmp_path: Path) -> None:
    script = (
        "const headers = {Authorization: `Bearer ${process.env.SALESLOFT_API_KEY}`};"
        "fetch(process.env.SALESLOFT_BASE_URL + '/v2/me', {headers})"
        ".then((reply) => reply.json()).then((me) => console.log(me.data.email))"
    )
    async with sandboxed() as sandbox:
        assert (await ran(tmp_path, sandbox, "run", "--", "node", "-e", script))[1] == "jane@company.com\n"
