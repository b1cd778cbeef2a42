"""Reply of the token endpoint: what it means."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest

from slproxy.auth import Form, TokenEndpointReply
from slproxy.auth.oauth import (
    OAuthClient,
    refresh_grant,
)
from slproxy.auth.token_reply import DEFAULT_LIFETIME, parse_token_reply
from slproxy.errors import CredentialsRefused, LoginRequired, TokenEndpointDown, TokenUnavailable
from slproxy.store import Token

NOW = 1_795_000_000.0
OLD = Token(access_token="old-access", refresh_token="old-refresh", obtained_at=1.0, expires_at=2.0, scope="old scope")
# As SalesLoft documents it, with the fields that some apps also get.
GOOD: dict[str, object] = {
    "access_token": "new-access",
    "token_type": "bearer",
    "expires_in": 7200,
    "refresh_token": "new-refresh",
    "scope": "a b",
    "created_at": 1_795_000_000,
    "tenant_id": 7,
    "integration_id": "x",
    "secret": "hidden-secret",
}


def answer(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> TokenEndpointReply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return TokenEndpointReply(status=status, headers=headers or {}, body=body)


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in GOOD.items() if name not in names}


@pytest.mark.parametrize("renews", [None, OLD])
def test_a_good_answer_is_a_token_and_unknown_fields_are_ignored(renews: Token | None) -> None:
    assert parse_token_reply(answer(GOOD), now=NOW, renews=renews) == Token(
        access_token="new-access", refresh_token="new-refresh", obtained_at=NOW, expires_at=NOW + 7200, scope="a b"
    )


@pytest.mark.parametrize("token_type", ["bearer", "Bearer", "BEARER", "bEaReR"])
def test_token_type_compares_case_insensitively(token_type: str) -> None:
    assert parse_token_reply(answer(GOOD | {"token_type": token_type}), now=NOW).access_token == "new-access"


@pytest.mark.parametrize("status", [200, 201, 299])
def test_any_success_will_do(status: int) -> None:
    assert parse_token_reply(answer(GOOD, status), now=NOW).access_token == "new-access"


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (7200, 7200.0),
        (1, 1.0),
        (0.5, 0.5),
        (7200.9, 7200.9),
        ("3600", 3600.0),
        ("3600.0", 3600.0),
        (0, DEFAULT_LIFETIME),
        (-1, DEFAULT_LIFETIME),
        ("-3600", DEFAULT_LIFETIME),
        ("", DEFAULT_LIFETIME),
        ("soon", DEFAULT_LIFETIME),
        (None, DEFAULT_LIFETIME),
        (True, DEFAULT_LIFETIME),
        ([], DEFAULT_LIFETIME),
        ({"seconds": 1}, DEFAULT_LIFETIME),
        (math.inf, DEFAULT_LIFETIME),
        (-math.inf, DEFAULT_LIFETIME),
        (math.nan, DEFAULT_LIFETIME),
        ("nan", DEFAULT_LIFETIME),
        ("inf", DEFAULT_LIFETIME),
        ("1e999", DEFAULT_LIFETIME),
        (10**400, DEFAULT_LIFETIME),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_lifetime_that_makes_no_sense_is_the_documented_one(expires_in: object, lifetime: float) -> None:
    # A3: missing, a string, negative.
    token = parse_token_reply(answer(GOOD | {"expires_in": expires_in}), now=NOW)
    assert token.expires_at == NOW + lifetime
    assert token.lifetime == pytest.approx(lifetime)


@pytest.mark.parametrize("number", [b"9" * 5000, b"NaN", b"-1e999"])
def test_a_token_is_not_lost_for_a_lifetime_that_nobody_can_read(number: bytes) -> None:
    token = parse_token_reply(answer(b'{"access_token": "t", "expires_in": ' + number + b"}"), now=NOW)
    assert (token.access_token, token.lifetime) == ("t", DEFAULT_LIFETIME)


@pytest.mark.parametrize(
    ("document", "renews", "refresh_token", "scope"),
    [
        # A3: a field that is left out keeps the value of the token that is renewed.
        (without("refresh_token", "scope"), OLD, "old-refresh", "old scope"),
        (without("refresh_token", "scope"), None, None, ""),
        (without("refresh_token"), OLD, "old-refresh", "a b"),
        (without("scope"), OLD, "new-refresh", "old scope"),
        (GOOD | {"refresh_token": None, "scope": None}, OLD, "old-refresh", "old scope"),
        (GOOD | {"refresh_token": ""}, OLD, "old-refresh", "a b"),
        (GOOD | {"refresh_token": 7, "scope": ["a"]}, OLD, "old-refresh", "old scope"),
        (GOOD | {"refresh_token": 7, "scope": ["a"]}, None, None, ""),
        (GOOD | {"scope": ""}, OLD, "new-refresh", ""),
        (without("token_type", "expires_in"), OLD, "new-refresh", "a b"),
        (without("created_at", "tenant_id", "integration_id", "secret"), OLD, "new-refresh", "a b"),
    ],
)
def test_what_an_answer_leaves_out_is_kept(
    document: dict[str, object], renews: Token | None, refresh_token: str | None, scope: str
) -> None:
    token = parse_token_reply(answer(document), now=NOW, renews=renews)
    assert token == Token(
        access_token="new-access", refresh_token=refresh_token, obtained_at=NOW, expires_at=NOW + 7200, scope=scope
    )


HTML = b"<!DOCTYPE html><html>hidden-secret</html>"


@pytest.mark.parametrize(
    "refused",
    [
        # A3: HTML with 200, 302 to elsewhere, `token_type: mac`, and other answers that are no token.
        answer(HTML),
        answer(HTML, 302, {"Location": "https://evil.test/hidden-secret"}),
        answer(GOOD, 302, {"Location": "https://evil.test/hidden-secret"}),
        answer(GOOD, 304),
        answer(GOOD, 500),
        answer(GOOD, 199),
        answer(HTML, 502),
        answer(b"", 200),
        answer(b"", 503),
        answer(b"null"),
        answer(b"[]"),
        answer([GOOD]),
        answer(b'"hidden-secret"'),
        answer(b"7"),
        answer(b"{"),
        answer(b'{"access_token": "hidden-secret"'),
        answer(b"\xff\xfe\x00hidden-secret"),
        answer(b'{"access_token": "hidden\xff"}'),
        answer(b"[" * 100_000),
        answer(b'{"a":' * 100_000),
        answer({}),
        answer(without("access_token")),
        answer(GOOD | {"access_token": None}),
        answer(GOOD | {"access_token": ""}),
        answer(GOOD | {"access_token": 7}),
        answer(GOOD | {"access_token": ["hidden-secret"]}),
        # It goes into a header.
        answer(GOOD | {"access_token": "hidden secret"}),
        answer(GOOD | {"access_token": " hidden-secret"}),
        answer(GOOD | {"access_token": "hidden-secret\r\nX-Evil: 1"}),
        answer(GOOD | {"access_token": "hidden-secret\n"}),
        answer(GOOD | {"access_token": "hidden-secret\x00"}),
        answer(GOOD | {"access_token": "hidden-secret-é"}),
        answer(GOOD | {"access_token": "\ud800"}),
        answer(GOOD | {"token_type": "mac"}),
        answer(GOOD | {"token_type": "bearer "}),
        answer(GOOD | {"token_type": ""}),
        answer(GOOD | {"token_type": None}),
        answer(GOOD | {"token_type": 7}),
        # Errors that say nothing of the login or of the credentials.
        answer({"error": "server_error"}, 500),
        answer({"error": "temporarily_unavailable"}, 503),
        answer({"error": "invalid_request"}, 400),
        answer({"error": "hidden secret text"}, 400),
        answer({"error": "hidden_secret" * 10}, 400),
        answer({"error": "INVALID_GRANT"}, 400),
        answer({"error": "invalid_grant\n"}, 400),
        answer({"error": ["invalid_grant"]}, 400),
        answer({"error": None}, 400),
        answer({"errors": {"x": ["y"]}}, 422),
        answer([], 400),
        answer({"error": "API rate limit exceeded"}, 429),
    ],
)
def test_an_answer_that_is_no_token_is_an_error_that_may_pass_and_repeats_nothing_of_it(
    refused: TokenEndpointReply,
) -> None:
    for renews in (None, OLD):
        with pytest.raises(TokenEndpointDown) as caught:
            parse_token_reply(refused, now=NOW, renews=renews)
        assert caught.value.hint
        assert "hidden" not in f"{caught.value} {caught.value.hint} {caught.value.headers}"


@pytest.mark.parametrize(
    ("code", "status", "error", "hint"),
    [
        ("invalid_grant", 400, LoginRequired, "slproxy login"),
        ("invalid_grant", 401, LoginRequired, "slproxy login"),
        ("invalid_client", 401, CredentialsRefused, "SALESLOFT_CLIENT_ID"),
        ("invalid_client", 400, CredentialsRefused, "SALESLOFT_CLIENT_SECRET"),
        ("unauthorized_client", 400, CredentialsRefused, "auth.grant"),
        ("invalid_scope", 400, CredentialsRefused, "SALESLOFT_SCOPE"),
        ("unsupported_grant_type", 400, CredentialsRefused, "auth.grant"),
    ],
)
def test_a_refusal_says_who_must_act(code: str, status: int, error: type[TokenUnavailable], hint: str) -> None:
    refused = answer({"error": code, "error_description": "hidden text of theirs"}, status)
    with pytest.raises(error) as caught:
        parse_token_reply(refused, now=NOW, renews=OLD)
    assert code in str(caught.value)
    assert hint in caught.value.hint
    assert "hidden" not in f"{caught.value} {caught.value.hint}"


def test_a_token_that_was_granted_is_taken_whatever_else_is_said() -> None:
    assert parse_token_reply(answer(GOOD | {"error": "invalid_grant"}), now=NOW).access_token == "new-access"


def test_a_refresh_token_that_no_form_can_carry_does_not_crash_the_renewal() -> None:
    token = parse_token_reply(answer(b'{"access_token": "t", "refresh_token": "\\ud800"}'), now=NOW, renews=OLD)
    assert refresh_grant(OAuthClient(id="c"), refresh_token=token.refresh_token or "").encode()


def test_a_token_without_an_expiry_lives_for_ever() -> None:
    assert Token(access_token="t", obtained_at=NOW).lifetime == math.inf
    assert Token(access_token="t", obtained_at=NOW, expires_at=NOW + 60).lifetime == 60.0


@pytest.mark.parametrize(
    "holder",
    [
        Token(access_token="hidden", refresh_token="hidden", obtained_at=NOW),
        OAuthClient(id="id", secret="hidden"),
        Form("/oauth/token", [("client_secret", "hidden")]),
        answer({"access_token": "hidden"}, headers={"Set-Cookie": "hidden"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_a_secret_never_shows_it(holder: object) -> None:
    assert "hidden" not in f"{holder} {holder!r} {[holder]}"
