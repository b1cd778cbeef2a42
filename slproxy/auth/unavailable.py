"""Errors: why no token is available, with the remedy."""

from __future__ import annotations

from slproxy.errors import LoginRequired


def no_credentials() -> LoginRequired:
    """Return the error where no credentials are set."""
    return LoginRequired(
        "No credentials are set.",
        hint="Set SALESLOFT_API_KEY, or SALESLOFT_CLIENT_ID and SALESLOFT_CLIENT_SECRET and run: slproxy login",
    )


def not_logged_in() -> LoginRequired:
    """Return the error where no login of this client is stored."""
    return LoginRequired("Not logged in.", hint="Run: slproxy login")


def login_refused(reason: str) -> LoginRequired:
    """Return the error for a stored login that SalesLoft has refused before, with its OAuth error code."""
    return LoginRequired(f"SalesLoft no longer accepts the stored login: {reason}.", hint="Run: slproxy login")
