"""Callback of a login: the code in what the browser brings."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs

from slproxy.auth.login_attempt import LoginAttempt
from slproxy.errors import ForeignCallbackError, LoginError


def parse_callback(attempt: LoginAttempt, query: str) -> str:
    """Return the code that a callback's query brings.

    Raises:
        LoginError: the state is missing or another attempt's, the person said no, or there is no code.
    """
    fields = {name: values[0] for name, values in parse_qs(query).items()}
    if not hmac.compare_digest(fields.get("state", "").encode(), attempt.state.encode()):
        raise ForeignCallbackError(
            "The callback does not belong to this login: its state is missing or wrong. Nothing was stored.",
            hint="Start again with: slproxy login",
        )
    return code_of(fields)


def code_of(fields: Mapping[str, str]) -> str:
    """Return the code in the fields of this login's callback. Raises LoginError when there is none."""
    if "error" in fields:
        denied = fields["error"] == "access_denied"
        raise LoginError(
            "Access was denied in the browser." if denied else "SalesLoft answered the login with an error.",
            hint="Run slproxy login again, and choose Allow."
            if denied
            else "Check that the redirect URI and the scope are those of the app in SalesLoft's settings.",
        )
    if not fields.get("code"):
        raise LoginError("The callback brought no code.", hint="Start again with: slproxy login")
    return fields["code"]
