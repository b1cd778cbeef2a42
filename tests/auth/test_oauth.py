"""OAuth requests: what is sent to the accounts host."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from slproxy.auth import Form
from slproxy.auth.oauth import (
    OAuthClient,
    authorize_url,
    client_credentials_grant,
    code_grant,
    pkce_challenge,
    refresh_grant,
    revocation,
)

CLIENT = OAuthClient(id="id&1", secret="s3cr=t+ü/ &")
PUBLIC = OAuthClient(id="public")


def fields(form: Form) -> list[tuple[str, str]]:
    """Return the fields as a server reads them off the wire."""
    return parse_qsl(form.encode().decode("ascii"), keep_blank_values=True, strict_parsing=True)


@pytest.mark.parametrize(
    ("form", "path", "expected"),
    [
        (
            code_grant(CLIENT, code="c+d/e", redirect_uri="http://localhost:3000/callback", verifier="v~1"),
            "/oauth/token",
            {
                "grant_type": "authorization_code",
                "client_id": CLIENT.id,
                "client_secret": CLIENT.secret,
                "code": "c+d/e",
                "redirect_uri": "http://localhost:3000/callback",
                "code_verifier": "v~1",
            },
        ),
        (
            refresh_grant(CLIENT, refresh_token="r&f"),
            "/oauth/token",
            {
                "grant_type": "refresh_token",
                "client_id": CLIENT.id,
                "client_secret": CLIENT.secret,
                "refresh_token": "r&f",
            },
        ),
        (
            refresh_grant(PUBLIC, refresh_token="r"),
            "/oauth/token",
            {"grant_type": "refresh_token", "client_id": "public", "refresh_token": "r"},
        ),
        (
            client_credentials_grant(CLIENT, scope=""),
            "/oauth/token",
            {"grant_type": "client_credentials", "client_id": CLIENT.id, "client_secret": CLIENT.secret},
        ),
        (
            client_credentials_grant(CLIENT, scope="a b"),
            "/oauth/token",
            {
                "grant_type": "client_credentials",
                "client_id": CLIENT.id,
                "client_secret": CLIENT.secret,
                "scope": "a b",
            },
        ),
        (
            revocation(CLIENT, token="t"),
            "/oauth/revoke",
            {"client_id": CLIENT.id, "client_secret": CLIENT.secret, "token": "t"},
        ),
        (revocation(PUBLIC, token="t"), "/oauth/revoke", {"client_id": "public", "token": "t"}),
    ],
)
def test_a_form_has_these_fields_once_each_and_the_secret_in_its_body_alone(
    form: Form, path: str, expected: dict[str, str]
) -> None:
    assert form.path == path
    assert dict(fields(form)) == expected
    assert len(fields(form)) == len(expected)


def test_the_authorize_url_has_the_fields_of_the_code_grant_with_pkce_and_never_the_secret() -> None:
    url = authorize_url(
        "https://accounts.salesloft.com",
        CLIENT,
        redirect_uri="http://localhost:3000/callback?a=b",
        scope="a b",
        state="s+t",
        challenge="ch-_",
    )
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.path, parts.fragment) == (
        "https",
        "accounts.salesloft.com",
        "/oauth/authorize",
        "",
    )
    assert dict(parse_qsl(parts.query, strict_parsing=True)) == {
        "client_id": CLIENT.id,
        "redirect_uri": "http://localhost:3000/callback?a=b",
        "response_type": "code",
        "scope": "a b",
        "state": "s+t",
        "code_challenge": "ch-_",
        "code_challenge_method": "S256",
    }
    assert "s3cr" not in url


def test_the_authorize_url_names_no_scope_where_none_is_set() -> None:
    url = authorize_url("http://127.0.0.1:1", PUBLIC, redirect_uri="u", scope="", state="s", challenge="c")
    assert url.startswith("http://127.0.0.1:1/oauth/authorize?")
    assert "scope" not in dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


@pytest.mark.parametrize(
    ("verifier", "challenge"),
    [
        # RFC 7636, Appendix B.
        ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        # SHA-256 of nothing (FIPS 180-4 test vector), which takes `-` and `_` of the URL-safe alphabet.
        ("", "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"),
    ],
)
def test_the_challenge_is_s256_without_padding(verifier: str, challenge: str) -> None:
    assert pkce_challenge(verifier) == challenge
