"""A token that SalesLoft rejects: what ``serve`` says at its start, and what readiness and status know of it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.support.commands import KEY, free_port, logged_in, oauth, pointed_at, run_here, sandboxed
from tests.support.programs import program, verified
from tests.support.raw_http import Message, get, raw, reply
from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import SOON, until

pytestmark = pytest.mark.heavy

ME = b'{"data":{"id":1,"team":{"id":3},"name":"Jane Smith","email":"jane@company.com"}}'


async def ready(url: str) -> tuple[int, dict[str, str]]:
    answer = await raw(url, get("/_slproxy/readyz"))
    return answer.head.status, json.loads(answer.body)


async def test_serve_says_whom_requests_act_as_without_a_client_s_request(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:
        await logged_in(tmp_path, sandbox)
        async with program("serve", home=tmp_path, env=oauth(sandbox)) as server:
            assert "Authenticated as: Jane Smith (jane@company.com)" in await verified(server)
            assert (await ready(server.url))[0] == 200
        assert [request.target for request in sandbox.requests] == ["/v2/me.json"]


async def test_a_wrong_api_key_is_told_at_the_start_by_readyz_and_by_status_and_no_login_is_proposed(
    tmp_path: Path,
) -> None:
    async with sandboxed() as sandbox:
        env = pointed_at(sandbox.url, SALESLOFT_API_KEY=KEY[:-1]) | {"SLPROXY_LISTEN__PORT": str(free_port())}
        async with program("serve", home=tmp_path, env=env) as server:
            said = await verified(server)
            status, problem = await ready(server.url)
            code, out, _ = await run_here("status", home=tmp_path, env=env)
            facts = json.loads((await run_here("status", "--json", home=tmp_path, env=env)).out)
    assert (status, problem["type"]) == (503, "credentials-refused")
    assert "not ready: SalesLoft rejects the API key (401)." in out
    assert "\ntoken     API key, rejected by SalesLoft (401)\n" in out
    assert (code, facts["proxy"]["ready"], facts["proxy"]["token"]["rejected"]) == (0, False, True)
    for told in (said, problem["hint"], out):
        assert "SALESLOFT_API_KEY" in told
        assert "slproxy login" not in told


async def test_a_token_that_is_rejected_later_is_told_until_a_request_is_accepted_again(tmp_path: Path) -> None:
    rejects = False

    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        odd = message.head.target == "/v2/odd"
        writer.write(
            reply("401 Unauthorized", b'{"error":"Invalid Bearer token"}') if rejects or odd else reply(body=ME)
        )

    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as server:
            await verified(server)
            rejects = True
            assert (await raw(server.url, get("/v2/people"))).head.status == 401
            assert (await ready(server.url))[0] == 503
            rejects = False
            assert (await raw(server.url, get("/v2/people"))).head.status == 200
            assert (await ready(server.url))[0] == 200
            # From now on a client of one bad path turns nothing off.
            for _ in range(3):
                assert (await raw(server.url, get("/v2/odd"))).head.status == 401
                assert (await ready(server.url))[0] == 200


async def test_a_rejected_token_is_checked_where_there_is_no_traffic(tmp_path: Path) -> None:
    async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        odd = message.head.target == "/v2/odd"
        writer.write(reply("401 Unauthorized") if odd else reply(body=ME))

    async with ScriptedUpstream(script) as upstream:
        env = pointed_at(upstream.url, SALESLOFT_API_KEY=KEY)
        async with program("serve", home=tmp_path, env=env) as server:
            await verified(server)
            await raw(server.url, get("/v2/odd"))
            assert (await ready(server.url))[0] == 503
            async with asyncio.timeout(SOON):
                while (await ready(server.url))[0] == 503:
                    await asyncio.sleep(0.05)
            await until(lambda: "accepts the token again" in server.output)


async def test_offline_at_the_start_is_said_and_disturbs_nobody(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        down = upstream.url
    env = pointed_at(down, SALESLOFT_API_KEY=KEY, SLPROXY_RETRY__ATTEMPTS="1")
    async with program("serve", home=tmp_path, env=env) as server:
        assert "not verified whom requests act as" in await verified(server)
        assert (await ready(server.url))[0] == 200, "nothing is known against the key"


async def test_renewals_that_do_not_cure_are_told(tmp_path: Path) -> None:
    async with sandboxed() as sandbox:

        async def script(message: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(reply("401 Unauthorized"))

        async with ScriptedUpstream(script) as upstream:
            await logged_in(tmp_path, sandbox, api_url=upstream.url)
            env = oauth(sandbox, SLPROXY_UPSTREAM__API_URL=upstream.url)
            async with program("serve", home=tmp_path, env=env) as server:
                said = await verified(server)
                status, problem = await ready(server.url)
    assert (status, problem["type"]) == (503, "credentials-refused")
    assert "renewing it did not help" in problem["detail"]
    assert "slproxy login" in said
    assert len(sandbox.token_requests) == 1, "once, and no more"


async def test_another_key_is_not_known_to_be_rejected(tmp_path: Path) -> None:
    mounted = tmp_path / "key"
    mounted.write_text(KEY[:-1])
    async with sandboxed() as sandbox:
        env = pointed_at(sandbox.url, SALESLOFT_API_KEY_FILE=str(mounted))
        async with program("serve", home=tmp_path, env=env) as server:
            await verified(server)
            assert (await ready(server.url))[0] == 503
            mounted.write_text(KEY)
            server.process.send_signal(signal.SIGHUP)
            await until(lambda: "settings reloaded" in server.output)
            assert (await ready(server.url))[0] == 200
            assert (await raw(server.url, get("/v2/me.json"))).head.status == 200
            await until(lambda: "Authenticated as: Jane Smith" in server.output)
            mounted.write_text(KEY.upper())
            server.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(SOON):  # nobody sends anything
                while (await ready(server.url))[0] == 200:
                    await asyncio.sleep(0.05)
