"""``slproxy serve``: signals, its own pages, the access log and credentials that are wrong."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from pathlib import Path

import pytest

from tests.support.commands import (
    KEY,
    SECRET,
    logged_in,
    no_secret_in,
    oauth,
    pointed_at,
    run_here,
    sandboxed,
    state_of,
    token_file,
)
from tests.support.programs import program, run
from tests.support.raw_http import Message, get, port_of, raw, read_message, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import SLACK, SOON, until

CALLBACK = "http://localhost:3999/callback"


async def test_sigterm_lets_requests_in_flight_finish_and_takes_no_new_ones(tmp_path: Path) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.0)
        writer.write(reply(body=b"whole"))

    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as server:
            calls = [asyncio.create_task(raw(server.url, get(f"/v2/{number}"))) for number in range(20)]
            await until(lambda: len(upstream.seen_of_clients) == 20, timeout=SOON)
            started = time.monotonic()
            server.process.send_signal(15)
            await asyncio.sleep(0.3)
            with pytest.raises(ConnectionError):
                await raw(server.url, get("/v2/new"))
            responses = await asyncio.gather(*calls)
            async with asyncio.timeout(SOON):
                assert await server.process.wait() == 0
            assert time.monotonic() - started < SLACK
    assert [(each.head.status, each.body) for each in responses] == [(200, b"whole")] * 20
    assert "Traceback" not in server.output


@pytest.mark.parametrize("number", [2, 15])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: int) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as server:
            call = asyncio.create_task(raw(server.url, get("/v2/a")))
            await until(lambda: len(upstream.seen_of_clients) == 1, timeout=SOON)
            server.process.send_signal(number)
            await until(lambda: any("shutting down" in line for line in server.errors))
            assert server.process.returncode is None
            started = time.monotonic()
            await server.stop(number)
            assert time.monotonic() - started < SLACK
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
            assert time.monotonic() - started < SLACK
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
            assert [request.target for request in sandbox.requests] in ([], ["/v2/me.json"]), "its own, at the start"
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


async def test_its_lines_are_in_the_order_of_events(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        program("serve", home=tmp_path, env=pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)) as server,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server.url))
        for number in range(50):
            writer.write(get("/v2/a", f"X-Request-Id: mine-{number}"))
            await read_message(reader)
        await server.stop()
        writer.close()
    lines = [json.loads(line) for line in server.errors if line.startswith("{")]
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    told = [line.get("id") for line in lines]
    down = next(at for at, line in enumerate(lines) if str(line.get("message")).startswith("shutting down: no request"))
    assert [each for each in told[:down] if each and each.startswith("mine")] == [f"mine-{each}" for each in range(50)]


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


async def test_the_start_says_where_the_audit_is_written(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    env = pointed_at("http://127.0.0.1:9", SALESLOFT_API_KEY=KEY, SLPROXY_LOG__AUDIT=str(audit))
    async with program("serve", home=tmp_path, env=env) as server:
        assert f"  Audit: {audit}" in server.errors
        assert await server.stop() == 0


async def test_the_start_says_where_metrics_and_probes_are_and_a_second_start_whose_the_port_is(tmp_path: Path) -> None:
    env = pointed_at("http://127.0.0.1:9", SALESLOFT_API_KEY=KEY, SLPROXY_METRICS__PORT="0")
    async with program("serve", home=tmp_path, env=env) as server:
        note = next(line for line in server.errors if "Metrics and probes" in line)
        url = note.split()[-1].removesuffix("/metrics")
        assert (await raw(url, get("/healthz", host="10.1.2.3"))).head.status == 200
        same = {"SLPROXY_LISTEN__PORT": str(port_of(server.url)), "SLPROXY_METRICS__PORT": str(port_of(url))}
        code, _, said = await run("serve", home=tmp_path, env=env | same)
        assert (code, "slproxy is already running at" in said) == (2, True), said
        assert await server.stop() == 0
    assert "Traceback" not in server.output
