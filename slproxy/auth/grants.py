"""Grant selection: which of the ways to authenticate is used."""

from __future__ import annotations

from dataclasses import dataclass

from slproxy.config import AuthSettings, Grant


@dataclass(frozen=True, slots=True)
class GrantSelection:
    """The grant that is used, and why; ``None`` where nothing is set."""

    grant: Grant | None
    why: str
    # What to do where it needs a login, and there is none.
    login_hint: str = "Run: slproxy login"

    def is_backed_by(self, auth: AuthSettings) -> bool:
        """Tell whether the settings hold what the grant needs; a login is stored elsewhere."""
        match self.grant:
            case "api_key":
                return auth.api_key is not None
            case "client_credentials":
                return bool(auth.client_id) and auth.client_secret is not None
        return self.grant is not None


def needs_no_login(auth: AuthSettings) -> bool:
    """Tell whether the settings name the grant, and it needs no login."""
    if auth.grant == "auto":
        return auth.api_key is not None
    return auth.grant != "authorization_code"


def select_grant(
    auth: AuthSettings,
    *,
    login_stored: bool,
    had_login: bool,
    redirect_uri_is_set: bool,
    api_key_from: str = "",
) -> GrantSelection:
    """Return the grant to use; ``auto`` tries them in the order of docs/contract.md, Settings.

    A profile that ``had_login`` asks for another login: whom requests act as never changes by itself.
    """
    if auth.grant != "auto":
        return GrantSelection(auth.grant, "set by auth.grant")
    if auth.api_key is not None:
        return GrantSelection("api_key", "an API key is set" + (f": {api_key_from}" if api_key_from else ""))
    if login_stored:
        return GrantSelection("authorization_code", "a stored login was found")
    if auth.client_id and auth.client_secret is not None and had_login:
        return GrantSelection(
            "authorization_code",
            "this profile has had a login; to act without one, set auth.grant = client_credentials",
            "Run: slproxy login. To act as the application itself instead: SLPROXY_AUTH__GRANT=client_credentials",
        )
    if auth.client_id and auth.client_secret is not None and not redirect_uri_is_set:
        return GrantSelection("client_credentials", "only a client id and secret are set, and no login was found")
    if auth.client_id:
        return GrantSelection("authorization_code", "a client id is set, and no stored login was found")
    return GrantSelection(None, "no API key, client id or login was found")
