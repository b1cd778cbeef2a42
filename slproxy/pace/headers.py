"""Rate limit headers: what a reply says of the team's budget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from slproxy.http import parsed_date, retry_after
from slproxy.retry import MINUTE

_NEGATIVE = re.compile(rb"-[0-9]{1,9}")
# A 429 that says no more than to wait for so long is about something else than a budget of a minute, in seconds.
SHORT_WAIT = 5.0


@dataclass(slots=True)
class RateLimitHeaders:
    """What a reply tells of the budget; ``date`` is Unix time, ``retry_after`` in seconds. ``None`` is not told."""

    cost: int | None = None
    remaining: int | None = None
    limit: int | None = None
    date: float | None = None
    refused: bool = False
    retry_after: float | None = None
    # A 401 says nothing about our team's budget.
    unauthorized: bool = False

    @classmethod
    def parse(cls, status: int, first: Mapping[bytes, bytes], *, now: float) -> RateLimitHeaders:
        """Return what a reply tells of the budget; what does not parse is not told.

        ``first`` is the first value of each header by its name in lower case, ``now`` is Unix time.
        """
        remaining, limit = first.get(b"x-ratelimit-remaining-minute"), first.get(b"x-ratelimit-limit-minute")
        told = cls(_number(first.get(b"x-ratelimit-endpoint-cost")), _number(remaining))
        # The Date of a reply that was kept somewhere on the way tells when it was kept.
        if b"age" not in first and (date := first.get(b"date")) is not None:
            told.date = parsed_date(date.decode("latin-1"))
        # A budget that is overdrawn is spent.
        if told.remaining is None and remaining is not None and _NEGATIVE.fullmatch(remaining):
            told.remaining = 0
        if limit is not None:
            told.limit = _number(limit) or None
        if status == 429:
            told.refused, asked = True, first.get(b"retry-after")
            if asked is not None:
                told.retry_after = retry_after(asked.decode("latin-1"), now=now if told.date is None else told.date)
        told.unauthorized = status == 401
        return told

    def is_about_budget(self, cost: int) -> bool:
        """Tell whether a 429 is about the team's budget, as far as it tells; ``cost`` is what the request was to cost.

        Where nothing is told, it is: a ``Retry-After`` of more than a minute alone is about no minute.
        """
        if self.remaining is not None:
            return self.remaining < (self.cost or cost)
        return self.retry_after is None or SHORT_WAIT < self.retry_after <= MINUTE


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and len(value) <= 9 and value.isdigit() else None
