"""Verdict: whether a renewal after a 401 has fixed it.

A renewal that was ineffective is not repeated at once: the 401 has another reason, and each renewal ends a token that
other processes may still use. A renewal whose request could not be sent again is unverified, until the next request
with its token tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

# How long a renewal that was ineffective, or is still unverified, is not repeated, in seconds (docs/contract.md, Cure).
INEFFECTIVE_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The token that the last renewal after a 401 brought, and what is known of it.

    ``doubt`` is ``None`` for a token that the API has accepted, or that nobody has told about yet; ``since`` is
    monotonic time in seconds.
    """

    token: str = field(default="", repr=False)
    doubt: Literal["unverified", "ineffective"] | None = None
    since: float = -math.inf

    def forbids_renewal(self, rejected: str, *, now: float) -> bool:
        """Tell whether a rejected token is what a renewal has just brought."""
        return self.doubt is not None and rejected == self.token and now - self.since < INEFFECTIVE_PAUSE

    def unverified(self, token: str, *, now: float) -> Verdict:
        """Return the verdict when the request that asked for this token cannot be sent again."""
        return self._doubted(token, "unverified", now)

    def ineffective(self, token: str, *, now: float) -> Verdict:
        """Return the verdict when the API has rejected this token as well."""
        return self._doubted(token, "ineffective", now)

    def verified(self, token: str) -> Verdict:
        """Return the verdict when the API has accepted this token.

        Ineffective stays ineffective: the API may accept a token for some requests and reject it for others.
        """
        return replace(self, doubt=None) if token == self.token and self.doubt == "unverified" else self

    def _doubted(self, token: str, doubt: Literal["unverified", "ineffective"], now: float) -> Verdict:
        # Of two doubts within the pause the first stands, so that the pause ends.
        if token != self.token or self.forbids_renewal(token, now=now):
            return self
        return replace(self, doubt=doubt, since=now)
