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

    def set_record(self, record: Record | None, *, now: float) -> None:
        """Use the token of this record; ``None``: there is none any more."""
        self.record = record
        if record is None:
            self.bearer = None
            return
        token = record.token
        self.bearer = Bearer(token.access_token, record.generation)
        self.check_clock(now)
        if token.access_token != self.rejected:
            self.rejected = None
        self._margin = renewal_margin(
            token, leeway=self._leeway, leeway_is_set=self._leeway_is_set, jitter=self._jitter
        )

    def check_clock(self, now: float) -> None:
        """Find anew when the token expires by our clock, which may have been set meanwhile."""
        if self.record is not None:
            self.expires_at = now + self.record.token.remaining(now)

    def is_in_use(self, bearer: Bearer) -> bool:
        """Tell whether this is the token, and no older one."""
        return self.bearer is not None and self.bearer.token == bearer.token

    def valid(self, now: float) -> Bearer | None:
        """Return the token, if it has not expired."""
        self.check_clock(now)
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

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be shown of it."""
        token = self.record.token if self.record is not None else None
        tokens = (token.access_token, token.refresh_token) if token is not None else ()
        return tuple(each for each in (self.bearer and self.bearer.token, *tokens) if each)

    def snapshot(self, now: float) -> dict[str, object]:
        """Return what may be told about the token; nothing in it is secret."""
        record = self.record
        remaining = record.token.remaining(now) if record is not None else math.inf
        age = None
        if record is not None:
            lifetime, since = record.token.lifetime, now - record.token.obtained_at
            age = round(since if math.isinf(lifetime) else lifetime - remaining, 3)
        return {
            "expires_in": None if math.isinf(remaining) else round(remaining, 3),
            "age": age,
            "generation": record.generation if record is not None else None,
            "user_id": record.user_id if record is not None else None,
            "team_id": record.team_id if record is not None else None,
        }

    def renewal_due_in(self, now: float) -> float:
        """Return the seconds until the renewal is due."""
        if self.record is None or self.rejected is not None or self.record.token.is_from_the_future(now):
            return 0.0
        return self.record.token.remaining(now) - self._margin
