"""Minute: what became of one clock minute of the upstream's."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from slproxy.pace.reservation import Reservation

# The rate of external spend is an average over this many seconds at least: in the first ones it says nothing.
MIN_RATE_SECONDS = 5.0
# How many clients and endpoints a minute counts by name; the rest are "others".
MAX_LABELS = 100


@dataclass(kw_only=True, slots=True)
class Minute:
    """The account of one minute; ``number`` counts from 1970.

    ``remaining`` is the least that a reply has told, at ``told_at``. ``opening`` is what there was at least before we
    spent of it, as replies tell; ``exact_opening`` the same, where it was no more. ``external_spend`` is the most that
    others were seen to spend, within ``external_seconds`` of the beginning.
    """

    number: int
    limit: int = 0
    spent: int = 0
    # What was booked in the minute before, and may have been counted in this one.
    early: int = 0
    # What of ours was certainly counted in it: replies told what was left.
    counted: int = 0
    remaining: int | None = None
    told_at: float = -math.inf
    opening: int | None = None
    exact_opening: int | None = None
    external_spend: int = 0
    external_seconds: float = MIN_RATE_SECONDS
    refused: int = 0
    waited: int = 0
    longest_wait: float = 0.0
    by_client: dict[str, int] = field(default_factory=dict)
    by_endpoint: dict[str, int] = field(default_factory=dict)
    # The same of clients that have a budget of their own: settings name them, so there are few.
    by_budget: Counter[str] = field(default_factory=Counter)

    def spend(self, cost: int, reservation: Reservation) -> None:
        """Count a cost, or take back what was counted too much; a client that has a budget spends of that as well."""
        self.spent += cost
        if reservation.budget is not None:
            self.by_budget[reservation.client] += cost
        for counts, label in ((self.by_client, reservation.client), (self.by_endpoint, reservation.endpoint)):
            if label not in counts and len(counts) >= MAX_LABELS:
                label = "others"  # noqa: PLW2901
            counts[label] = counts.get(label, 0) + cost

    def note_own_spent(self, client: str, budget: int | None) -> None:
        """Note that a client has spent its own budget, elsewhere as well."""
        if budget is not None:
            self.by_budget[client] = max(self.by_budget[client], budget)

    def note_opening(self, opening: int, *, is_exact: bool) -> None:
        """Note what there was at least; or exactly, of which the first one counts."""
        if self.opening is None or opening > self.opening:
            self.opening = opening
        if is_exact and self.exact_opening is None:
            self.exact_opening = opening

    def note_remaining(self, remaining: int, now: float) -> None:
        """Note what remains: a reply that comes late never raises it."""
        if self.remaining is None or remaining <= self.remaining:
            self.remaining, self.told_at = remaining, now

    def note_wait(self, seconds: float) -> None:
        """Count somebody who has waited and goes now."""
        self.waited += 1
        self.longest_wait = max(self.longest_wait, seconds)

    def note_external_spend(self, cost: int, since_beginning: float) -> None:
        """Note what others have spent so many seconds after the beginning, if that is more than was known."""
        if cost > self.external_spend:
            self.external_spend, self.external_seconds = cost, max(since_beginning, MIN_RATE_SECONDS)
