"""Identify: whom requests act as, with the credentials of these settings or those of the proxy that is up."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field

from slproxy.app import App
from slproxy.auth import Identity, parse_identity
from slproxy.cli import own_request, running_proxy
from slproxy.config import Settings
from slproxy.errors import LoginRequired, SlproxyError
from slproxy.untrusted import parse_json, printable

# How long the proxy on this machine may take to ask SalesLoft, in seconds.
UPSTREAM_TIMEOUT = 30.0


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
    who, body = await _identity_by(settings, proxy)
    token = proxy.get("token")
    grant, why = (printable(str(token.get(name))) for name in ("grant", "why")) if isinstance(token, dict) else ("", "")
    return Identified(who=who, grant=grant, why=why, reply=_object(body), proxy=own_request.address(settings.reach))


async def _identity_by(settings: Settings, proxy: Mapping[str, object]) -> tuple[Identity, bytes]:
    """Ask SalesLoft, through the proxy that is up, whom its token belongs to; return the reply as well.

    Raises SlproxyError.
    """
    where, token = own_request.address(settings.reach), proxy.get("token")
    try:
        status, body = await running_proxy.ask(settings.reach, "/v2/me.json", within=UPSTREAM_TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        raise SlproxyError(f"The proxy at {where} did not answer.", hint="Run: slproxy status") from error
    if status != 401 and isinstance(reason := proxy.get("reason"), dict):
        detail, hint = printable(str(reason.get("detail"))), printable(str(reason.get("hint")))
        kind = LoginRequired if reason.get("type") == LoginRequired.type else SlproxyError
        raise kind(f"The proxy at {where} is not ready: {detail}", hint=hint)
    if status != 401 and (problem := _problem(body)) is not None:
        raise SlproxyError(f"The proxy at {where} could not ask SalesLoft: {problem[0]}", hint=problem[1])
    grant = token.get("grant") if isinstance(token, dict) else None
    return parse_identity(status, body, grant=grant), body


def _problem(body: bytes) -> tuple[str, str] | None:
    """Return detail and hint of an error of the proxy's own; SalesLoft's have neither."""
    try:
        document = _object(body)
    except ValueError:
        return None
    told = [each for name in ("detail", "hint") if isinstance(each := document.get(name), str)]
    return (printable(told[0]), printable(told[1])) if len(told) == 2 else None


def _object(body: bytes) -> dict[str, object]:
    document = parse_json(body)
    return document if isinstance(document, dict) else {}
