"""Login attempt: the secrets that tie what the browser brings back to whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class LoginAttempt:
    """One login under way. ``state`` and ``verifier`` are its secrets."""

    url: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)
