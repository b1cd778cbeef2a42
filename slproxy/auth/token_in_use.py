"""Token in use: what is sent now, until when, and when its renewal is due."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from slproxy.auth.schedule import renewal_margin
from slproxy.store import Record


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token to send once, and its generation: how often the login was renewed."""

    token: str = field(repr=False)
    generation: int


class TokenInUse:
    """The token of this process. ``now`` is Unix time in seconds."""

    def __init__(self, *, leeway: float, leeway_is_set: bool, jitter: float) -> None:
        self._leeway, self._leeway_is_set, self._jitter = leeway, leeway_is_set, jitter
        self.bearer: Bearer | None = None
        self.expires_at = -math.inf
        # What the token came with: a login or a grant; an API key came with none.
        self.record: Record | None = None
        # The token, where the API has rejected it and it could not be replaced.
        self.rejected: str | None = None
        self._margin = 0.0

    def set_api_key(self, key: str) -> None:
        """Use an API key, which never expires."""
        self.bearer, self.expires_at = Bearer(key, 0), math.inf

    def set_record(self, record: Record | None) -> None:
        """Use the token of this record; ``None``: there is none any more."""
        self.record = record
        if record is None:
            self.bearer = None
            return
        token = record.token
        self.bearer = Bearer(token.access_token, record.generation)
        self.expires_at = math.inf if token.expires_at is None else token.expires_at
        if token.access_token != self.rejected:
            self.rejected = None
        self._margin = renewal_margin(
            token, leeway=self._leeway, leeway_is_set=self._leeway_is_set, jitter=self._jitter
        )

    def is_in_use(self, bearer: Bearer) -> bool:
        """Tell whether this is the token, and no older one."""
        return self.bearer is not None and self.bearer.token == bearer.token

    def valid(self, now: float) -> Bearer | None:
        """Return the token, if it has not expired."""
        return self.bearer if now < self.expires_at else None

    def is_usable(self, now: float, *, rejected: str | None) -> bool:
        """Tell whether the token has neither expired nor is the rejected one."""
        return now < self.expires_at and self.bearer is not None and self.bearer.token != rejected

    def is_good(self, now: float) -> bool:
        """Tell whether the token has neither expired nor been rejected for good."""
        return self.is_usable(now, rejected=self.rejected)

    def has_the_token_of(self, record: Record) -> bool:
        """Tell whether a record brings nothing new."""
        return self.record is not None and record.has_the_token_of(self.record)

    def is_fresh(self, record: Record, now: float) -> bool:
        """Tell whether a record need not be renewed yet."""
        return record.token.remaining(now) > self._margin

    def snapshot(self, now: float) -> dict[str, object]:
        """Return what may be told about the token; nothing in it is secret."""
        record = self.record
        expires_at = record.token.expires_at if record is not None else None
        return {
            "expires_in": None if expires_at is None else round(expires_at - now, 3),
            "age": None if record is None else round(now - record.token.obtained_at, 3),
            "generation": record.generation if record is not None else None,
            "user_id": record.user_id if record is not None else None,
            "team_id": record.team_id if record is not None else None,
        }

    def renewal_due_in(self, now: float) -> float:
        """Return the seconds until the renewal is due."""
        if self.record is None or self.rejected is not None:
            return 0.0
        return self.record.token.remaining(now) - self._margin
