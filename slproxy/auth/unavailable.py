"""Errors: why no token is available, with the remedy."""

from __future__ import annotations

from slproxy.config import Grant
from slproxy.errors import CredentialsRefused, LoginRequired, TokenEndpointDown
from slproxy.store import Record


def no_credentials(grant: Grant) -> LoginRequired:
    """Return the error where the credentials of a grant are not set."""
    if grant == "api_key":
        return LoginRequired("No API key is set, and auth.grant = api_key.", hint="Set SALESLOFT_API_KEY.")
    if grant == "client_credentials":
        return LoginRequired(
            "No client id and secret are set, and auth.grant = client_credentials.",
            hint="Set SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET.",
        )
    return LoginRequired(
        "No credentials are set.",
        hint="Set SALESLOFT_API_KEY, or SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET and run: slproxy login",
    )


def not_logged_in(foreign: str, *, hint: str = "Run: slproxy login") -> LoginRequired:
    """Return the error where no login of these settings is stored; ``foreign`` says whose it is instead."""
    if foreign:
        return LoginRequired(
            f"Not logged in: the stored login is {foreign}.",
            hint="To replace it: slproxy login --replace. To keep both: slproxy login --profile NAME",
        )
    return LoginRequired("Not logged in.", hint=hint)


def no_token_yet(retry_after: tuple[tuple[str, str], ...]) -> TokenEndpointDown:
    """Return the error between two renewals, of which the next may bring a token."""
    return TokenEndpointDown(
        "No token has been granted yet, or it has just expired.",
        hint="Wait for the token endpoint to answer.",
        headers=retry_after,
    )


def refusal_of(record: Record | None) -> LoginRequired | None:
    """Return the error where SalesLoft has refused a stored login for good, which it did with an OAuth error code."""
    if record is None or not record.refused:
        return None
    return LoginRequired(f"SalesLoft no longer accepts the stored login: {record.refused}.", hint="Run: slproxy login")


# What may cure a token that SalesLoft rejects, by the grant that it came from: no login cures an API key.
_CURES = {
    "api_key": "Check SALESLOFT_API_KEY (auth.api_key): it is mistyped, or was revoked.",
    "authorization_code": "Log in again: slproxy login",
    "client_credentials": "Check the client id and secret, and the app in SalesLoft's settings.",
}


def rejection_hint(grant: Grant | None) -> str:
    """Return what to do about a token of this grant that SalesLoft rejects."""
    return _CURES.get(grant or "", "Check SALESLOFT_API_KEY, or log in again: slproxy login")


def token_rejected(grant: Grant | None) -> CredentialsRefused:
    """Return the error for a token that the API answers with 401, and that no renewal has cured."""
    what = "API key" if grant == "api_key" else "token, and renewing it did not help"
    return CredentialsRefused(f"SalesLoft rejects the {what} (401).", hint=rejection_hint(grant))
