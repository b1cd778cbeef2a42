"""Login attempt: the secrets that tie what comes back from the browser to who asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class LoginAttempt:
    """One login under way. ``state`` and ``verifier`` are its secrets."""

    url: str = field(repr=False)
    redirect_uri: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)
