"""Readings: what is so at the moment of a scrape, beside what was counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BudgetReading:
    """The team's rate limit now, in cost a minute, and how many of each priority wait for it.

    ``by_others`` is what the team's other integrations have spent in all, of the minutes that have ended.
    """

    limit: int
    quota: int
    remaining: int
    interactive: int
    bulk: int
    by_others: int


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What is so at the moment; ``token_expiry`` is Unix time in seconds, ``None`` where no token expires."""

    version: str
    is_ready: bool
    needs_login: bool
    token_expiry: float | None
    budget: BudgetReading | None
    in_flight: int
    client_connections: int
    upstream_connections: int
