"""A login's decisions: what a callback or a paste brings, and what is asked of the browser."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from slproxy.auth.callback import parse_callback
from slproxy.auth.callback_server import callback_server
from slproxy.auth.login import begin_login, exchange_code
from slproxy.auth.login_attempt import LoginAttempt
from slproxy.auth.oauth import Form, pkce_challenge
from slproxy.auth.token_reply import TokenEndpointReply
from slproxy.config import AuthSettings, Secret, Settings, StoreSettings
from slproxy.errors import ConfigError, ForeignCallbackError, LoginError
from slproxy.store.record_format import parse_record, serialize_record

ATTEMPT = LoginAttempt(url="https://u", redirect_uri="http://localhost:3000/callback", state="S", verifier="v" * 43)


def settings(auth: AuthSettings) -> Settings:
    return Settings(auth=auth, store=StoreSettings(path=Path("unused")))


def test_the_browser_is_asked_with_state_and_a_challenge_of_a_verifier_that_stays_here() -> None:
    attempt = begin_login(settings(AuthSettings(client_id="c", client_secret=Secret("hidden"), scope="people:read")))
    query = {name: values[0] for name, values in parse_qs(urlsplit(attempt.url).query).items()}
    assert query == {
        "client_id": "c",
        "redirect_uri": "http://localhost:3000/callback",
        "response_type": "code",
        "scope": "people:read",
        "state": attempt.state,
        "code_challenge": pkce_challenge(attempt.verifier),
        "code_challenge_method": "S256",
    }
    assert "hidden" not in attempt.url
    assert attempt.verifier not in attempt.url


def test_no_two_attempts_share_a_secret() -> None:
    first, second = (begin_login(settings(AuthSettings(client_id="c"))) for _ in range(2))
    assert len({first.state, second.state, first.verifier, second.verifier}) == 4


def test_an_attempt_does_not_show_its_secrets() -> None:
    attempt = begin_login(settings(AuthSettings(client_id="c")))
    assert attempt.state not in repr(attempt)
    assert attempt.verifier not in repr(attempt)


def test_a_login_without_a_client_id_says_what_to_set() -> None:
    with pytest.raises(ConfigError) as caught:
        begin_login(settings(AuthSettings()))
    assert "SALESLOFT_CLIENT_ID" in caught.value.hint


async def test_a_login_can_be_read_again_whatever_the_issuer_s_clock_says() -> None:
    async def granting(form: Form) -> TokenEndpointReply:
        headers = {"date": "Mon, 01 Jan 1900 00:00:00 GMT"}
        return TokenEndpointReply(status=200, headers=headers, body=b'{"access_token":"a","refresh_token":"r"}')

    given = settings(AuthSettings(client_id="c", client_secret=Secret("hidden")))
    record = await exchange_code(given, ATTEMPT, "C", post_form=granting, now=lambda: 1_795_000_000.0)
    assert parse_record(serialize_record(record)) == record


FOREIGN = [
    "",
    "code=C",
    "code=C&state=",
    "code=C&state=s",
    "code=C&state=S2",
    "error=access_denied",
    "code=C&state=%C3%A9",
]


@pytest.mark.parametrize("query", FOREIGN)
def test_a_callback_without_our_state_is_foreign(query: str) -> None:
    with pytest.raises(ForeignCallbackError):
        parse_callback(ATTEMPT, query)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=S&error=access_denied&error_description=secret-text", "denied"),
        ("state=S&error=server_error", "error"),
        ("state=S", "no code"),
        ("state=S&code=", "no code"),
    ],
)
def test_a_callback_of_ours_that_brings_no_code_ends_the_login(query: str, said: str) -> None:
    with pytest.raises(LoginError) as caught:
        parse_callback(ATTEMPT, query)
    assert not isinstance(caught.value, ForeignCallbackError)
    assert said in caught.value.detail
    assert "secret-text" not in caught.value.detail


async def test_a_redirect_uri_of_another_machine_needs_a_paste() -> None:
    attempt = LoginAttempt(url="https://u", redirect_uri="https://app.example/callback", state="S", verifier="v" * 43)
    with pytest.raises(ConfigError) as caught:
        async with callback_server(attempt):
            pass
    assert "--no-browser" in caught.value.hint
