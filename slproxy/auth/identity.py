"""Identity: the user that a token acts as."""

from __future__ import annotations

from dataclasses import dataclass

from slproxy.auth.unavailable import rejection_hint
from slproxy.config import Grant
from slproxy.errors import SlproxyError
from slproxy.untrusted import parse_json, printable


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a token belongs to, as ``/v2/me`` tells."""

    user_id: int | None
    team_id: int | None
    name: str
    email: str

    def __str__(self) -> str:
        return printable(f"{self.name} ({self.email})")


def parse_identity(status: int, body: bytes, *, grant: Grant | None = None) -> Identity:
    """Return whose the token is, by the API's reply to ``/v2/me.json``. Raises SlproxyError when it does not say."""
    try:
        document = parse_json(body)
        me = document["data"]  # type: ignore[index]  # whatever it is: TypeError is caught
        team = me.get("team") or {}
        user_id, team_id = (each if type(each) is int else None for each in (me.get("id"), team.get("id")))
        return Identity(user_id=user_id, team_id=team_id, name=me["name"], email=me["email"])
    except (ValueError, KeyError, TypeError, AttributeError):
        if status == 401:
            error = SlproxyError("SalesLoft rejected the token (401 from /v2/me.json).", hint=rejection_hint(grant))
        elif status == 403:
            error = SlproxyError(
                "SalesLoft does not let the token ask whose it is (403 from /v2/me.json).",
                hint="Check the scope of the app, and the user's rights, in SalesLoft's settings.",
            )
        else:
            error = SlproxyError(
                f"SalesLoft does not say whose the token is ({status} from /v2/me.json).",
                hint="Try again later, and check upstream.api_url.",
            )
        raise error from None
