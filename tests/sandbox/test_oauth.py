"""The sandbox's accounts host: consent, codes, tokens, rotation, revocation."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from html import unescape
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from aiohttp import ClientSession

from slproxy.sandbox import Options, Sandbox, running
from slproxy.sandbox.oauth.endpoints import registered
from tests.support.sandboxes import bearer

NOW = 1_750_000_020.0
CALLBACK = "http://localhost:3000/callback"
CLIENT = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
ASKED = {"client_id": "sandbox-client", "redirect_uri": CALLBACK, "response_type": "code"}
INVALID_GRANT = (
    "The provided authorization grant is invalid, expired, revoked, does not match the redirection URI used in the "
    "authorization request, or was issued to another client."
)


@dataclass
class Accounts:
    """Speak to a sandbox's accounts host."""

    session: ClientSession
    sandbox: Sandbox

    async def authorize(self, **params: str) -> tuple[str, dict[str, str]]:
        """Return where the user is sent back to, and with what."""
        query = urlencode({**ASKED, "sandbox_consent": "allow", **params})
        url = f"{self.sandbox.url}/oauth/authorize?{query}"
        async with self.session.get(url, allow_redirects=False) as response:
            assert response.status == 302, await response.text()
            parts = urlsplit(response.headers["Location"])
            return parts._replace(query="").geturl(), dict(parse_qsl(parts.query, keep_blank_values=True))

    async def token(self, **form: str) -> tuple[int, dict[str, object]]:
        """Return what the token endpoint answers to a form with the client's id and secret."""
        return await self.post("/oauth/token", data={**CLIENT, **form})

    async def post(self, target: str, **options: object) -> tuple[int, dict[str, object]]:
        """Return the status and JSON body of a POST."""
        async with self.session.post(self.sandbox.url + target, **options) as response:  # type: ignore[arg-type]
            assert response.headers["Cache-Control"] == "no-store"
            return response.status, await response.json()

    async def redeem(self, code: str, **form: str) -> tuple[int, dict[str, object]]:
        """Exchange a code."""
        return await self.token(**{"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, **form})

    async def refresh(self, token: object) -> tuple[int, dict[str, object]]:
        """Exchange a refresh token."""
        return await self.token(grant_type="refresh_token", refresh_token=str(token))

    async def works(self, token: object) -> bool:
        """Tell whether an access token is good."""
        headers = bearer(self.sandbox, str(token))
        async with self.session.get(self.sandbox.url + "/v2/me", headers=headers) as response:
            assert response.status in (200, 401)
            return response.status == 200


async def serving(options: Options) -> AsyncIterator[Accounts]:
    async with running(options, clock=lambda: NOW) as sandbox, ClientSession() as session:
        yield Accounts(session, sandbox)


@pytest.fixture
async def accounts() -> AsyncIterator[Accounts]:
    async for accounts in serving(Options()):
        yield accounts


@pytest.fixture
async def lenient() -> AsyncIterator[Accounts]:
    async for accounts in serving(Options(rotation="on-use")):
        yield accounts


# Authorize


async def test_a_person_is_asked_and_the_form_sends_the_answer(accounts: Accounts) -> None:
    url = f"{accounts.sandbox.url}/oauth/authorize?{urlencode({**ASKED, 'state': '<&>', 'scope': 'people:read'})}"
    async with accounts.session.get(url) as response:
        page = await response.text()
    assert "Jane Smith" in page
    assert "people:read" in page
    assert "<&>" not in page
    fields = {unescape(n): unescape(v) for n, v in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', page)}
    for consent, expected in (("allow", "code"), ("deny", "error")):
        form = {**fields, "sandbox_consent": consent}
        async with accounts.session.post(
            accounts.sandbox.url + "/oauth/authorize", data=form, allow_redirects=False
        ) as response:
            sent = dict(parse_qsl(urlsplit(response.headers["Location"]).query))
            assert expected in sent
            assert sent["state"] == "<&>"


async def test_the_callback_gets_code_context_scope_and_state(accounts: Accounts) -> None:
    uri, params = await accounts.authorize(state="s", scope="people:read")
    assert uri == CALLBACK
    assert list(params) == ["code", "context", "scope", "state"]
    assert (params["scope"], params["state"]) == ("people:read", "s")
    assert "state" not in (await accounts.authorize())[1]


async def test_a_denied_login_goes_back_with_access_denied(accounts: Accounts) -> None:
    _, params = await accounts.authorize(sandbox_consent="deny", state="s")
    assert list(params) == ["error", "error_description", "state"]
    assert params["error"] == "access_denied"


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": "x", "code_challenge_method": "S512"}, "invalid_request"),
    ],
)
async def test_a_bad_request_goes_back_with_its_error(
    params: Mapping[str, str], error: str, accounts: Accounts
) -> None:
    assert (await accounts.authorize(**params))[1]["error"] == error


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"client_id": "other"}, 401),
        ({"redirect_uri": "https://evil.example/callback"}, 400),
        ({"redirect_uri": CALLBACK + "/"}, 400),
    ],
)
async def test_a_stranger_is_never_redirected(params: Mapping[str, str], status: int, accounts: Accounts) -> None:
    query = urlencode({**ASKED, **params, "sandbox_consent": "allow"})
    url = f"{accounts.sandbox.url}/oauth/authorize?{query}"
    async with accounts.session.get(url, allow_redirects=False) as response:
        assert response.status == status
        assert response.content_type == "text/html"
        assert "Location" not in response.headers


@pytest.mark.parametrize(
    ("uri", "allowed", "expected"),
    [
        pytest.param("http://localhost:3000/callback", CALLBACK, True, id="equal"),
        pytest.param("http://localhost:3001/callback", CALLBACK, False, id="another port"),
        pytest.param("http://127.0.0.1:3000/callback", CALLBACK, False, id="another name of loopback"),
        pytest.param("http://localhost:4711/callback", "http://localhost:0/callback", True, id="port 0 is any port"),
        pytest.param("http://[::1]:4711/callback", "http://[::1]:0/callback", True, id="port 0 on IPv6"),
        pytest.param("http://localhost:4711/other", "http://localhost:0/callback", False, id="another path"),
        pytest.param("http://localhost:4711/callback?x=1", "http://localhost:0/callback", False, id="a query"),
        pytest.param("http://localhost/callback", "http://localhost:0/callback", False, id="no port"),
        pytest.param("http://a@localhost:1/callback", "http://a@localhost:0/callback", False, id="user info"),
        pytest.param("http://evil.example:1/callback", "http://evil.example:0/callback", False, id="not loopback"),
        pytest.param("http://localhost:99999/callback", "http://localhost:0/callback", False, id="no such port"),
        pytest.param("", CALLBACK, False, id="nothing"),
    ],
)
def test_a_redirect_uri_equals_a_registered_one(uri: str, allowed: str, expected: bool) -> None:
    assert registered(uri, (allowed,)) is expected


# Codes


async def test_a_code_gives_the_documented_token_reply(accounts: Accounts) -> None:
    _, params = await accounts.authorize(scope="people:read")
    status, reply = await accounts.redeem(params["code"])
    assert status == 200
    assert list(reply) == ["access_token", "token_type", "expires_in", "refresh_token", "scope", "created_at"]
    assert {name: reply[name] for name in ("token_type", "expires_in", "scope", "created_at")} == {
        "token_type": "bearer",
        "expires_in": 7200,
        "scope": "people:read",
        "created_at": int(NOW),
    }
    assert await accounts.works(reply["access_token"])


async def test_a_code_used_twice_is_refused_and_its_tokens_die(accounts: Accounts) -> None:
    _, params = await accounts.authorize()
    _, first = await accounts.redeem(params["code"])
    _, renewed = await accounts.refresh(first["refresh_token"])
    other = accounts.sandbox.issue()
    assert await accounts.redeem(params["code"]) == (
        400,
        {"error": "invalid_grant", "error_description": INVALID_GRANT},
    )
    assert not await accounts.works(renewed["access_token"])
    assert (await accounts.refresh(renewed["refresh_token"]))[0] == 400
    assert await accounts.works(other.access_token)


@pytest.mark.parametrize(
    ("changed", "late", "error"),
    [
        pytest.param({}, 600.0, "invalid_grant", id="after 600 s"),
        pytest.param({"redirect_uri": "http://localhost:3000/other"}, 0.0, "invalid_grant", id="another redirect URI"),
        pytest.param({"code": "other"}, 0.0, "invalid_grant", id="an unknown code"),
        pytest.param({"code": ""}, 0.0, "invalid_request", id="no code"),
        pytest.param({"redirect_uri": ""}, 0.0, "invalid_request", id="no redirect URI"),
    ],
)
async def test_a_code_is_bound_and_short_lived(
    changed: Mapping[str, str], late: float, error: str, accounts: Accounts
) -> None:
    _, params = await accounts.authorize()
    accounts.sandbox.advance(late)
    status, reply = await accounts.redeem(**{"code": params["code"], **changed})
    assert (status, reply["error"]) == (400, error)


@pytest.mark.parametrize("method", ["plain", "S256"])
async def test_a_challenge_is_checked_against_its_verifier(method: str, accounts: Accounts) -> None:
    verifier = "a-verifier-that-is-long-enough-for-rfc-7636"
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    challenge = {"code_challenge": verifier if method == "plain" else digest, "code_challenge_method": method}
    for sent, status in ((verifier, 200), ("another", 400), ("", 400)):
        _, params = await accounts.authorize(**challenge)
        assert (await accounts.redeem(params["code"], code_verifier=sent))[0] == status


# Tokens


@pytest.mark.parametrize("way", ["form", "json", "query", "basic"])
async def test_the_token_endpoint_takes_a_form_json_or_a_query_and_basic(way: str, accounts: Accounts) -> None:
    fields = {"grant_type": "client_credentials"}
    if way == "form":
        status, _ = await accounts.post("/oauth/token", data={**fields, **CLIENT})
    elif way == "json":
        status, _ = await accounts.post("/oauth/token", json={**fields, **CLIENT})
    elif way == "query":
        status, _ = await accounts.post("/oauth/token?" + urlencode({**fields, **CLIENT}))
    else:
        credentials = base64.b64encode(b"sandbox-client:sandbox-secret").decode()
        headers = {"Authorization": f"Basic {credentials}"}
        status, _ = await accounts.post("/oauth/token", data=fields, headers=headers)
    assert status == 200
    assert accounts.sandbox.token_requests[-1].grant_type == "client_credentials"
    assert accounts.sandbox.token_requests[-1].status == 200


async def test_client_credentials_get_no_refresh_token(accounts: Accounts) -> None:
    _, reply = await accounts.token(grant_type="client_credentials")
    assert "refresh_token" not in reply
    assert await accounts.works(reply["access_token"])


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant"),
        ({"grant_type": "refresh_token"}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "client_secret": "x"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "é"}, 401, "invalid_client"),
    ],
)
async def test_a_token_error_is_that_of_rfc_6749(
    form: Mapping[str, str], status: int, error: str, accounts: Accounts
) -> None:
    answered, reply = await accounts.token(**form)
    assert (answered, reply["error"]) == (status, error)
    assert list(reply) == ["error", "error_description"]
    assert accounts.sandbox.token_requests[-1].status == status


async def test_json_that_does_not_parse_is_an_invalid_request(accounts: Accounts) -> None:
    status, reply = await accounts.post("/oauth/token", data=b"{", headers={"Content-Type": "application/json"})
    assert (status, reply["error"]) == (400, "invalid_request")


async def test_a_scope_that_was_not_ticked_is_invalid() -> None:
    async for accounts in serving(Options(scope="people:read notes:read")):
        _, reply = await accounts.token(grant_type="client_credentials", scope="people:read")
        assert reply["scope"] == "people:read"
        status, reply = await accounts.token(grant_type="client_credentials", scope="people:write")
        assert (status, reply["error"]) == (400, "invalid_scope")
        assert (await accounts.authorize(scope="people:write"))[1]["error"] == "invalid_scope"
        assert (await accounts.authorize())[1]["scope"] == "people:read notes:read"


@pytest.mark.parametrize(("lifetime", "expires_in"), [(7200.0, 7200), (0.2, 1), (2.4, 2)])
async def test_a_lifetime_is_served_whole_and_kept_to_precisely(lifetime: float, expires_in: int) -> None:
    async for accounts in serving(Options(token_lifetime=lifetime)):
        _, reply = await accounts.token(grant_type="client_credentials")
        assert reply["expires_in"] == expires_in
        accounts.sandbox.advance(lifetime - 0.01)
        assert await accounts.works(reply["access_token"])
        accounts.sandbox.advance(0.02)
        assert not await accounts.works(reply["access_token"])


# Rotation


async def test_an_immediate_rotation_ends_the_old_pair_at_once(accounts: Accounts) -> None:
    old = accounts.sandbox.issue()
    status, new = await accounts.refresh(old.refresh_token)
    assert status == 200
    assert not await accounts.works(old.access_token)
    assert await accounts.refresh(old.refresh_token) == (
        400,
        {"error": "invalid_grant", "error_description": INVALID_GRANT},
    )
    assert await accounts.works(new["access_token"])


async def test_an_on_use_rotation_keeps_the_old_pair_until_the_new_token_is_used(lenient: Accounts) -> None:
    old = lenient.sandbox.issue()
    _, lost = await lenient.refresh(old.refresh_token)
    assert await lenient.works(old.access_token)
    status, new = await lenient.refresh(old.refresh_token)
    assert status == 200
    assert lost["access_token"] != new["access_token"]
    assert await lenient.works(new["access_token"])
    assert not await lenient.works(old.access_token)
    assert (await lenient.refresh(old.refresh_token))[0] == 400


async def test_an_on_use_rotation_ends_every_pair_before_it(lenient: Accounts) -> None:
    first = lenient.sandbox.issue()
    _, second = await lenient.refresh(first.refresh_token)
    _, third = await lenient.refresh(second["refresh_token"])
    assert await lenient.works(third["access_token"])
    assert not await lenient.works(second["access_token"])
    assert not await lenient.works(first.access_token)


async def test_a_refresh_token_outlives_its_access_token(accounts: Accounts) -> None:
    pair = accounts.sandbox.issue(lifetime=5)
    accounts.sandbox.advance(1_000_000)
    assert not await accounts.works(pair.access_token)
    assert (await accounts.refresh(pair.refresh_token))[0] == 200


# Ending tokens


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
async def test_revoking_either_token_ends_both(which: str, accounts: Accounts) -> None:
    pair = accounts.sandbox.issue()
    assert await accounts.post("/oauth/revoke", data={**CLIENT, "token": getattr(pair, which)}) == (200, {})
    assert not await accounts.works(pair.access_token)
    assert (await accounts.refresh(pair.refresh_token))[0] == 400


async def test_revoking_an_unknown_token_is_200_too(accounts: Accounts) -> None:
    assert await accounts.post("/oauth/revoke", data={"token": "unknown"}) == (200, {})
    assert await accounts.post("/oauth/revoke") == (200, {})


async def test_an_expired_token_can_be_refreshed_and_a_revoked_one_cannot(accounts: Accounts) -> None:
    expired, revoked, kept = (accounts.sandbox.issue() for _ in range(3))
    accounts.sandbox.expire(expired.access_token)
    accounts.sandbox.revoke(revoked.access_token)
    assert [await accounts.works(pair.access_token) for pair in (expired, revoked, kept)] == [False, False, True]
    assert (await accounts.refresh(expired.refresh_token))[0] == 200
    assert (await accounts.refresh(revoked.refresh_token))[0] == 400
    accounts.sandbox.revoke_all()
    assert not await accounts.works(kept.access_token)
    assert await accounts.works(accounts.sandbox.options.api_key)


async def test_no_secret_shows_in_a_repr(accounts: Accounts) -> None:
    pair = accounts.sandbox.issue()
    await accounts.refresh(pair.refresh_token)
    await accounts.works(pair.access_token)
    shown = repr([pair, accounts.sandbox.options, accounts.sandbox.requests, accounts.sandbox.token_requests])
    for secret in (pair.access_token, str(pair.refresh_token), "sandbox-secret", accounts.sandbox.options.api_key):
        assert secret not in shown
