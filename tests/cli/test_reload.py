"""SIGHUP and mounted secrets: other settings come into force, no request is dropped, and a mistake changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import ssl
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from slproxy.config import LimitSettings, ListenSettings, RetrySettings, Secret
from slproxy.config.schema import PolicySettings, UpstreamSettings
from slproxy.errors import ConfigError, StoreError
from slproxy.store import FileStore
from tests.support.programs import Program, environment, program
from tests.support.proxies import proxy, settings_for
from tests.support.raw_http import Message, get, raw, reply
from tests.support.sandboxes import login_at, running_sandbox, sandbox_auth
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.heavy

# A process of a session of its own, as a terminal's shell starts it: the kernel sends it SIGHUP when that is closed.
ON_ITS_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests by nohup has it ignored
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "slproxy", "serve"])
"""
FIRST, SECOND = "ak_" + "1a" * 32, "ak_" + "2b" * 32


def hosts(upstream: ScriptedUpstream, **more: str) -> dict[str, str]:
    return {
        "SLPROXY_UPSTREAM__API_URL": upstream.url,
        "SLPROXY_UPSTREAM__ACCOUNTS_URL": upstream.url,
        "SLPROXY_LISTEN__PORT": "0",
        **more,
    }


async def said(running: Program, text: str) -> None:
    await until(lambda: any(text in line for line in running.errors))


async def hang_up(running: Program, text: str) -> None:
    """Send SIGHUP and wait for what the log says to it."""
    running.process.send_signal(signal.SIGHUP)
    await said(running, text)


def bearers(upstream: ScriptedUpstream) -> list[str | None]:
    return [message.head.get("Authorization") for message in upstream.seen_of_clients]


async def test_sighup_puts_a_changed_file_in_force(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        program("serve", home=tmp_path, env=hosts(upstream, SALESLOFT_API_KEY=FIRST)) as running,
    ):
        post = get("/v2/people.json", method="POST", body=b"{}")
        assert (await raw(running.url, post)).head.status == 200
        (tmp_path / "slproxy.toml").write_text("[policy]\nread_only = true\n")
        await hang_up(running, "policy.read_only")
        assert (await raw(running.url, post)).head.status == 405
        (tmp_path / ".env").write_text("SALESLOFT_CLIENTID=0a1b2c\n")
        await hang_up(running, "did you mean SALESLOFT_CLIENT_ID?")
        (tmp_path / "slproxy.toml").unlink()
        await hang_up(running, "settings reloaded; changed: policy.read_only")
        await until(lambda: sum("policy.read_only" in line for line in running.errors) == 2)
        assert (await raw(running.url, post)).head.status == 200


@pytest.mark.parametrize(
    "toml",
    ["[policy]\nread_only = 'perhaps'\n", "[policy\n", "[nothing]\nx = 1\n", "[listen]\nhost = '0.0.0.0'\n"],
    ids=["a wrong type", "no TOML", "an unknown section", "a clash"],
)
async def test_sighup_with_a_mistake_changes_nothing_and_says_so(tmp_path: Path, toml: str) -> None:
    async with (
        ScriptedUpstream() as upstream,
        program("serve", home=tmp_path, env=hosts(upstream, SALESLOFT_API_KEY=FIRST)) as running,
    ):
        (tmp_path / "slproxy.toml").write_text(f"[log]\nlevel = 'debug'\n{toml}")
        await hang_up(running, "reload failed, settings unchanged: ")
        failed = next(line for line in running.errors if "reload failed" in line)
        assert re.search(r"; (fix or remove it|quote strings|did you mean|config.example.toml|set listen.key)", failed)
        assert (await raw(running.url, get("/v2/me.json"))).head.status == 200
        assert not any("Traceback" in line for line in running.errors)


async def test_what_is_made_at_the_start_is_named_and_stays(tmp_path: Path) -> None:
    env = {**hosts(upstream := ScriptedUpstream()), "SALESLOFT_API_KEY": FIRST}
    async with upstream:
        env |= hosts(upstream)
        del env["SLPROXY_LISTEN__PORT"]
        (tmp_path / "slproxy.toml").write_text("[listen]\nport = 0\n")
        async with program("serve", home=tmp_path, env=env) as running:
            (tmp_path / "slproxy.toml").write_text("[listen]\nport = 9\n")
            await hang_up(running, "restart the proxy to apply: listen.port")
            assert (await raw(running.url, get("/v2/me.json"))).head.status == 200


@pytest.mark.parametrize("way", ["write", "rename", "symlink"])
async def test_an_api_key_in_a_mounted_file_is_read_again_when_it_changes(tmp_path: Path, way: str) -> None:
    mounted = tmp_path / "key"
    # As Kubernetes mounts a Secret: a link to a folder of the moment, which is exchanged at once.
    data = tmp_path / "data"
    (data / "1").mkdir(parents=True)
    (data / "1" / "key").write_text(FIRST + "\n")
    (tmp_path / "now").symlink_to(data / "1")
    if way == "symlink":
        mounted.symlink_to(tmp_path / "now" / "key")
    else:
        mounted.write_text(FIRST + "\n")
    async with (
        ScriptedUpstream() as upstream,
        program("serve", home=tmp_path, env=hosts(upstream, SALESLOFT_API_KEY_FILE=str(mounted))) as running,
    ):
        await raw(running.url, get("/v2/me.json"))
        match way:
            case "write":
                mounted.write_text(SECOND)
            case "rename":
                (tmp_path / "new").write_text(SECOND)
                (tmp_path / "new").replace(mounted)
            case "symlink":
                (data / "2").mkdir()
                (data / "2" / "key").write_text(SECOND)
                (tmp_path / "next").symlink_to(data / "2")
                (tmp_path / "next").replace(tmp_path / "now")
        await said(running, "settings reloaded; changed: auth.api_key")
        await raw(running.url, get("/v2/me.json"))
        assert bearers(upstream) == [f"Bearer {FIRST}", f"Bearer {SECOND}"]
        # What cannot be read leaves the last one in force.
        mounted.unlink()
        await said(running, "reload failed, settings unchanged: ")
        await raw(running.url, get("/v2/me.json"))
        assert bearers(upstream)[-1] == f"Bearer {SECOND}"
        assert not any(secret in running.output for secret in (FIRST, SECOND))


async def test_a_local_key_in_a_mounted_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    mounted = tmp_path / "local"
    mounted.write_text("local-key-1")
    env = {"SALESLOFT_API_KEY": FIRST, "SLPROXY_LISTEN__KEY_FILE": str(mounted)}
    async with (
        ScriptedUpstream() as upstream,
        program("serve", home=tmp_path, env=hosts(upstream, **env)) as running,
    ):
        old, new = (get("/v2/me.json", f"X-Slproxy-Key: local-key-{number}") for number in (1, 2))
        assert (await raw(running.url, old)).head.status == 200
        mounted.write_text("local-key-2")
        await said(running, "changed: listen.key")
        assert [(await raw(running.url, key)).head.status for key in (old, new)] == [401, 200]


async def test_no_request_is_dropped_however_often_the_settings_change(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        program("serve", home=tmp_path, env=hosts(upstream, SALESLOFT_API_KEY=FIRST)) as running,
    ):
        ended = False
        statuses: list[int] = []

        async def client() -> None:
            while not ended:
                statuses.append((await raw(running.url, get("/v2/me.json"))).head.status)

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for number in range(1, 9):
            (tmp_path / "slproxy.toml").write_text(f"[upstream]\nresponse_timeout = {50 + number}\n")
            running.process.send_signal(signal.SIGHUP)
            await until(
                lambda number=number: (
                    sum("changed: upstream.response_timeout" in line for line in running.errors)  # type: ignore[misc]
                    == number
                )
            )
        ended = True
        await asyncio.gather(*clients)
    assert set(statuses) == {200}
    assert len(statuses) > 8


# In this process, where it can be seen what is held.


async def test_a_request_in_flight_ends_under_the_settings_it_began_with(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            reply(body=b"x" * 10, length=False)[:-10].replace(b"\r\n\r\n", b"\r\nContent-Length: 10\r\n\r\nxxxxx")
        )
        await writer.drain()
        await go_on.wait()
        writer.write(b"xxxxx")

    async with ScriptedUpstream(script) as upstream:
        settings = settings_for(upstream.url)
        async with proxy(settings) as app:
            slow = asyncio.create_task(raw(app.urls[0], get("/v2/me.json")))
            await until(lambda: len(upstream.seen) == 1)
            changed, later = await app.reload(
                replace(
                    settings,
                    upstream=replace(settings.upstream, idle_timeout=30.0),
                    limits=LimitSettings(max_target=100),
                )
            )
            assert (sorted(changed), later) == (["limits.max_target", "upstream.idle_timeout"], [])
            assert (await raw(app.urls[0], get("/v2/" + "x" * 200))).head.status == 414
            assert not slow.done()
            go_on.set()
            assert (await slow).body == b"x" * 10


async def test_what_the_old_settings_held_is_closed_once_nothing_uses_it(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = settings_for(upstream.url)
        async with proxy(settings) as app:
            await raw(app.urls[0], get("/v2/me.json"))
            assert (upstream.connections, upstream.closed) == (1, 0)
            await app.reload(replace(settings, upstream=replace(settings.upstream, idle_timeout=30.0)))
            await until(lambda: upstream.closed == 1)
            await raw(app.urls[0], get("/v2/me.json"))
            assert upstream.connections == 2


async def test_a_reload_that_changes_nothing_keeps_the_connections(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = settings_for(upstream.url)
        async with proxy(settings) as app:
            await raw(app.urls[0], get("/v2/me.json"))
            assert await app.reload(replace(settings)) == ([], [])
            assert await app.reload(replace(settings, policy=PolicySettings(read_only=True))) == (
                ["policy.read_only"],
                [],
            )
            await raw(app.urls[0], get("/v2/me.json"))
            assert upstream.connections == 1


async def test_a_ca_file_is_read_again(tmp_path: Path) -> None:
    """As when a company replaces its authority: what the old one has signed is trusted no more."""
    old, new = trustme.CA(), trustme.CA()
    path = tmp_path / "ca.pem"
    old.cert_pem.write_to_path(path)
    tls = [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2)]
    for context, authority in zip(tls, (old, new), strict=True):
        authority.issue_cert("127.0.0.1").configure_cert(context)
    async with ScriptedUpstream(tls=tls[0]) as upstream:
        settings = settings_for(upstream.url)
        settings = replace(settings, upstream=replace(settings.upstream, ca_file=path), retry=RetrySettings(attempts=1))
        async with proxy(settings) as app:
            statuses = [(await raw(app.urls[0], get("/v2/a"))).head.status]
            new.cert_pem.write_to_path(path)
            assert await app.reload(replace(settings)) == (["upstream.ca_file"], [])
            assert await app.reload(replace(settings)) == ([], [])
            statuses.append((await raw(app.urls[0], get("/v2/a"))).head.status)
            async with ScriptedUpstream(tls=tls[1]) as another:
                upstream_settings = replace(settings.upstream, api_url=another.url, accounts_url=another.url)
                await app.reload(replace(settings, upstream=upstream_settings))
                statuses.append((await raw(app.urls[0], get("/v2/a"))).head.status)
    assert statuses == [200, 502, 200]


async def test_a_ca_file_that_is_none_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = settings_for(upstream.url)
        (tmp_path / "ca.pem").write_text("no certificate")
        broken = UpstreamSettings(
            api_url="https://api.test", accounts_url="https://accounts.test", ca_file=tmp_path / "ca.pem"
        )
        async with proxy(settings) as app:
            with pytest.raises(ConfigError):
                await app.reload(replace(settings, upstream=broken))
            assert app.settings is settings
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200


async def test_a_token_that_is_only_in_memory_is_never_given_up_for_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token.json"
    token = {"access_token": "access-2", "refresh_token": "refresh-2", "expires_in": 7200, "token_type": "bearer"}

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if message.head.target == "/oauth/token":
            # The folder goes while the token is being renewed, as a network drive does.
            path.parent.rename(tmp_path / "away")
            path.parent.write_text("in the way")
            writer.write(reply(body=json.dumps(token).encode()))
        else:
            writer.write(reply(f"{200 if message.head.get('Authorization') == 'Bearer access-2' else 401} x"))

    async with running_sandbox() as sandbox, ScriptedUpstream(script) as upstream:
        record = replace(login_at(sandbox), accounts_url=upstream.url, api_url=upstream.url)
        await FileStore(path).write(record)
        settings = replace(settings_for(upstream.url, path=path), auth=sandbox_auth(sandbox))
        settings = replace(settings, upstream=replace(settings.upstream, warm=900.0))
        async with proxy(settings) as app:
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
            ready = await raw(app.urls[0], get("/_slproxy/readyz"))
            assert ready.head.status == 200
            assert json.loads(ready.body)["warning"].startswith("The newest token is only in memory.")
            await upstream.close()
            both = r"The newest token is only in memory\. .* SalesLoft's host refused the connection\. "
            await until(lambda: re.match(both, app.own_pages.warning or "") is not None)
            await upstream.listen(port=upstream.port)
            with pytest.raises(StoreError, match=r"only in memory|Not a directory"):
                await app.reload(replace(settings, auth=replace(settings.auth, leeway=60.0)))
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
            path.parent.unlink()
            (tmp_path / "away").rename(path.parent)
            await until(lambda: app.credentials.warning is None)
            await app.reload(replace(settings, auth=replace(settings.auth, leeway=60.0)))
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
        kept = await FileStore(path).read()
    assert kept is not None
    assert kept.token.access_token == "access-2"


async def test_a_login_whose_folder_has_gone_is_not_replaced_by_client_credentials_at_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token.json"
    async with running_sandbox() as sandbox:
        await FileStore(path).write(login_at(sandbox))
        settings = replace(settings_for(sandbox.url, path=path), auth=sandbox_auth(sandbox, grant="auto"))
        async with proxy(settings) as app:
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 200
            shutil.rmtree(path.parent)
            # A look at the store that comes first finds the loss: then there is no reload until it is stored again.
            with contextlib.suppress(StoreError):
                await app.reload(replace(settings, auth=replace(settings.auth, leeway=60.0)))
            assert app.credentials.selection.grant == "authorization_code"
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status in (200, 503)
        assert not sandbox.token_requests


async def test_a_socket_that_others_reach_never_loses_its_key(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = replace(
            settings_for(upstream.url), listen=ListenSettings(host="0.0.0.0", port=0, key=Secret("k" * 20))
        )
        async with proxy(settings) as app:
            with pytest.raises(ConfigError):
                await app.reload(replace(settings, listen=ListenSettings(port=0)))
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 401
            # What waits for a new start is named again each time.
            for _ in range(2):
                _, later = await app.reload(replace(settings, listen=replace(settings.listen, port=9)))
                assert later == ["listen.port"]


async def test_the_origins_and_limits_of_the_listening_side_change_as_well(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = settings_for(upstream.url)
        async with proxy(settings) as app:
            page = get("/v2/me.json", "Origin: https://app.test")
            assert (await raw(app.urls[0], page)).head.status == 403
            await app.reload(replace(settings, listen=ListenSettings(port=0, allow_origins=("https://app.test",))))
            answer = await raw(app.urls[0], page)
            assert answer.head.get("Access-Control-Allow-Origin") == "https://app.test"
            await app.reload(replace(settings, listen=ListenSettings(port=0, key=Secret("k" * 20))))
            assert (await raw(app.urls[0], get("/v2/me.json"))).head.status == 401


async def test_a_terminal_that_is_closed_takes_the_proxy_with_it(tmp_path: Path) -> None:
    """The same signal: without a terminal it is a wish for other settings, on one it is its end."""
    async with ScriptedUpstream() as upstream:
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ON_ITS_TERMINAL),
            cwd=tmp_path,
            env=environment(tmp_path, **hosts(upstream, SALESLOFT_API_KEY=FIRST)),
            stdin=slave,
            stdout=asyncio.subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
        )
        try:
            os.close(slave)
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                assert (await process.stdout.readline()).startswith(b"Listening on ")
                os.close(master)
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
