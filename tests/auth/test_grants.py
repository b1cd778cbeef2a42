"""Grant selection."""

from __future__ import annotations

import pytest

from slproxy.auth.grants import select_grant
from slproxy.config import AuthSettings, Secret

KEY, SECRET = Secret("ak_0"), Secret("s")


def chosen(auth: AuthSettings, *, login: bool = False, had: bool = False, redirect: bool = False) -> str | None:
    return select_grant(auth, login_stored=login, had_login=had or login, redirect_uri_is_set=redirect).grant


@pytest.mark.parametrize(
    ("auth", "grant"),
    [
        pytest.param(
            AuthSettings(client_id="c", client_secret=SECRET), "authorization_code", id="a login is asked for"
        ),
        pytest.param(
            AuthSettings(grant="client_credentials", client_id="c", client_secret=SECRET),
            "client_credentials",
            id="unless somebody sets another grant",
        ),
        pytest.param(AuthSettings(api_key=KEY, client_id="c"), "api_key", id="or an API key"),
        pytest.param(AuthSettings(), None, id="without a client no login could be used"),
    ],
)
def test_a_profile_that_has_had_a_login_is_given_no_other_grant_by_itself(
    auth: AuthSettings, grant: str | None
) -> None:
    assert chosen(auth, had=True) == grant


GRANTS = [
    ("an API key comes first", AuthSettings(api_key=KEY, client_id="c", client_secret=SECRET), True, False, "api_key"),
    ("then a stored login", AuthSettings(client_id="c", client_secret=SECRET), True, False, "authorization_code"),
    ("then client credentials", AuthSettings(client_id="c", client_secret=SECRET), False, False, "client_credentials"),
    (
        "who names a redirect URI means to log in",
        AuthSettings(client_id="c", client_secret=SECRET),
        False,
        True,
        "authorization_code",
    ),
    ("without a secret there is only a login", AuthSettings(client_id="c"), False, False, "authorization_code"),
    ("a secret alone is nothing", AuthSettings(client_secret=SECRET), False, False, None),
    ("nothing is nothing", AuthSettings(), False, False, None),
    (
        "a named grant is used whatever is set",
        AuthSettings(grant="client_credentials", api_key=KEY),
        True,
        False,
        "client_credentials",
    ),
]


@pytest.mark.parametrize(
    ("auth", "login", "redirect", "grant"), [row[1:] for row in GRANTS], ids=[row[0] for row in GRANTS]
)
def test_auto_selects_in_the_order_of_the_contract(
    auth: AuthSettings, login: bool, redirect: bool, grant: str | None
) -> None:
    assert chosen(auth, login=login, redirect=redirect) == grant
