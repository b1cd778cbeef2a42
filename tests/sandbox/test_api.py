"""The sandbox's API over HTTP: authentication, and what the socket adds."""

from __future__ import annotations

import gzip

import pytest
from aiohttp import ClientSession

from slproxy.sandbox import Options, Sandbox, running
from tests.support.sandboxes import bearer


async def test_a_record_is_json_over_http(sandbox: Sandbox, session: ClientSession) -> None:
    async with session.get(sandbox.url + "/v2/me.json", headers=bearer(sandbox)) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert (await response.json())["data"]["name"] == "Jane Smith"


async def test_a_deletion_has_no_body_over_http(sandbox: Sandbox, session: ClientSession) -> None:
    async with session.delete(sandbox.url + "/v2/people/1", headers=bearer(sandbox)) as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_a_form_is_read_over_http(sandbox: Sandbox, session: ClientSession) -> None:
    url = sandbox.url + "/v2/person_stages"
    async with session.post(url, data={"name": "Cold"}, headers=bearer(sandbox)) as response:
        assert (await response.json())["data"]["name"] == "Cold"


async def test_a_compressed_json_body_is_read_and_recorded_as_it_came(sandbox: Sandbox, session: ClientSession) -> None:
    body = gzip.compress(b'{"name": "Cold"}')
    headers = bearer(sandbox) | {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with session.post(sandbox.url + "/v2/person_stages", data=body, headers=headers) as response:
        assert (await response.json())["data"]["name"] == "Cold"
    assert sandbox.requests[-1].body == body


async def test_head_answers_as_get_without_a_body(sandbox: Sandbox, session: ClientSession) -> None:
    async with session.head(sandbox.url + "/v2/me", headers=bearer(sandbox)) as response:
        assert (response.status, await response.read()) == (200, b"")
        assert int(response.headers["Content-Length"]) > 0


async def test_a_recording_is_a_redirect_to_another_host(sandbox: Sandbox, session: ClientSession) -> None:
    url = sandbox.url + "/v2/conversations/5/recording"
    async with session.get(url, headers=bearer(sandbox), allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"].startswith("https://recordings.example.com/5.mp3?")


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (None, "No Bearer Token attached to request, please see documentation at developers.salesloft.com"),
        ("Basic YTpi", "No Bearer Token attached to request, please see documentation at developers.salesloft.com"),
        ("Bearer nonsense", "Invalid Bearer token"),
        ("Bearer", "Invalid Bearer token"),
    ],
)
@pytest.mark.parametrize("target", ["/v2/me", "/v2/nothing/there"])
async def test_authentication_comes_before_routing(
    target: str, authorization: str | None, error: str, sandbox: Sandbox, session: ClientSession
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    async with session.get(sandbox.url + target, headers=headers) as response:
        assert response.status == 401
        assert await response.json() == {"error": error}
        assert "WWW-Authenticate" not in response.headers
    assert sandbox.remaining() == 600


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_v2_api_key_is_a_bearer_token_in_any_case(scheme: str) -> None:
    key = "v2_ak_3_" + "0f" * 32
    async with running(Options(api_key=key)) as sandbox, ClientSession() as session:
        target, headers = sandbox.url + "/v2/me", {"Authorization": f"{scheme} {key}"}
        response = await session.get(target, headers=headers)
        assert response.status == 200
