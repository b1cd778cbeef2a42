"""Identify: whom requests act as, with the credentials of these settings or those of the proxy that is up."""

from __future__ import annotations

from dataclasses import dataclass, field

from slproxy.app import App
from slproxy.auth import Identity, parse_identity
from slproxy.cli import running_proxy
from slproxy.config import Settings
from slproxy.errors import LoginRequired
from slproxy.untrusted import parse_json, printable


@dataclass(frozen=True, kw_only=True)
class Identified:
    """Who it is, by which grant, and SalesLoft's reply; ``proxy`` is where the proxy is that was asked, if one was."""

    who: Identity
    grant: str
    why: str
    reply: dict[str, object] = field(repr=False)
    proxy: str = ""


async def identify(settings: Settings) -> Identified:
    """Ask SalesLoft whom the token belongs to. Raises SlproxyError."""
    try:
        async with App(settings) as app:
            selection = app.credentials.selection
            status, body = await app.ask("/v2/me.json")
            who = parse_identity(status, body, grant=selection.grant)
            return Identified(who=who, grant=str(selection.grant), why=selection.why, reply=_object(body))
    except LoginRequired:
        proxy = await running_proxy.serving(settings)
        if proxy is None:
            raise
    who, body = await running_proxy.identity_by(settings, proxy)
    token = proxy.get("token")
    grant, why = (printable(str(token.get(name))) for name in ("grant", "why")) if isinstance(token, dict) else ("", "")
    return Identified(who=who, grant=grant, why=why, reply=_object(body), proxy=running_proxy.address(settings.listen))


def _object(body: bytes) -> dict[str, object]:
    document = parse_json(body)
    return document if isinstance(document, dict) else {}
