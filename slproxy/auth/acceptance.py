"""Acceptance: whether SalesLoft is known to reject the token in use, as the last request with it has shown.

A 401 means the token, whatever was asked for: SalesLoft authenticates before it routes (docs/salesloft.md, API). Should
one endpoint err all the same, its clients must not turn the proxy's readiness off and on: once a token that was
rejected has been accepted, for a while only the proxy's own check is believed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

# How long a client's 401 is only a reason to check, in seconds: longer than two checks are apart.
TRUST = 90.0


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is known of one token. Times are monotonic, in seconds."""

    token: str = field(default="", repr=False)
    rejected: bool = False
    # A client's request was rejected, and nobody has checked since.
    doubted: bool = False
    trusted_until: float = -math.inf

    def after_rejection(self, token: str, *, is_check: bool, now: float) -> Acceptance:
        """Return what is known once a request with this token was answered 401, and no renewal has cured that."""
        if is_check or now >= self.trusted_until:
            return replace(self, token=token, rejected=True, doubted=False)
        # Trust outlives the token: each pause, a bad endpoint has a login renewed once more.
        return replace(self, token=token, doubted=True)

    def after_acceptance(self, token: str, *, now: float) -> Acceptance:
        """Return what is known once a request with this token was accepted."""
        if token != self.token or not self.needs_check(token):
            return self
        return Acceptance(token, trusted_until=now + TRUST)

    def rejects(self, token: str) -> bool:
        """Tell whether this token is known to be rejected."""
        return self.rejected and token == self.token

    def needs_check(self, token: str) -> bool:
        """Tell whether a check would tell more of this token."""
        return (self.rejected or self.doubted) and token == self.token
