"""Options: how the fake SalesLoft behaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Rotation: TypeAlias = Literal["immediate", "on-use"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Describe the one client, API key and team that the sandbox knows; seconds throughout.

    A redirect URI on a loopback host with port 0 matches any port. `rotation` says when a refresh ends the old pair:
    at once, or when the new access token is first used; SalesLoft does one of the two (docs/salesloft.md, OAuth).
    """

    client_id: str = "sandbox-client"
    client_secret: str = field(default="sandbox-secret", repr=False)
    redirect_uris: tuple[str, ...] = ("http://localhost:3000/callback",)
    api_key: str = field(default="ak_" + "5a" * 32, repr=False)
    token_lifetime: float = 7200.0
    rotation: Rotation = "immediate"
    budget: int = 600
    scope: str = ""


DEFAULTS = Options()
