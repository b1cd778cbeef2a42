"""Callback of a login: the code in what the browser brings, or in what a person pastes."""

from __future__ import annotations

import hmac
import re
from urllib.parse import parse_qs

from slproxy.auth.login_attempt import LoginAttempt
from slproxy.errors import ForeignCallbackError, LoginError, PasteError

# RFC 6749 appendix A.11: any visible characters, though `=` only pads; a shorter one could be guessed.
_BARE_CODE = re.compile(r"[!-<>-~]{8,}={0,2}")


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


def parse_pasted(attempt: LoginAttempt, pasted: str) -> str:
    """Return the code in what a person pasted: the URL that the browser was redirected to, or the bare code.

    A bare code carries no state; PKCE alone then ties it to this attempt. Raises LoginError, and PasteError for what
    is neither.
    """
    pasted = pasted.strip()
    query = (pasted.partition("?")[2] or pasted).partition("#")[0]
    if not {"code", "error"} & parse_qs(query).keys():
        if _BARE_CODE.fullmatch(pasted) and "://" not in pasted:
            return pasted
        begins = attempt.redirect_uri + ("&" if "?" in attempt.redirect_uri else "?")
        raise PasteError(
            f"That is not the URL you were redirected to; it starts with {begins}code="
            if pasted
            else "Nothing was pasted.",
            hint="Run slproxy login --no-browser again.",
        )
    return parse_callback(attempt, query)
