"""Retry decision: whether a request is sent again, and after how long.

1. What was certainly not carried out may be sent again, whatever the method: no byte of it left (a refused connection),
   or the upstream said that it refused it (429).
2. What may have been carried out is sent again only for the methods that RFC 9110 §9.2.2 calls idempotent. A POST or
   PATCH that got no reply is never sent twice.
3. A 401 is not decided here: a new token handles it, inside each attempt.
4. Repeating what failed costs the upstream, so those repeats come out of a budget; refusals cost it nothing.

The time and the jitter are passed in. A 429 that the rate limit's queue has taken back waits there instead
(``forward.attempts``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from slproxy.http import parsed_date, retry_after

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
# Server errors that often pass by themselves.
TRANSIENT = frozenset({502, 503, 504})
TOO_MANY_REQUESTS = 429
# What a client gets only once no attempt is left; any other status goes to the client at once.
RETRIED = TRANSIENT | {TOO_MANY_REQUESTS}

# SalesLoft's rate limit is per clock minute, and no reset header exists (docs/salesloft.md, Rate limit); in seconds.
MINUTE = 60.0
# The first wait is at most this long, each further one at most twice the last; half of it is waited at least, or bad
# dice would use up all attempts in a moment: "equal jitter" ("Exponential Backoff And Jitter", AWS Architecture Blog).
FIRST_BACKOFF = 0.5
# For so long at least an upstream that cannot be reached is tried again, in seconds: it may be restarting, and it costs
# it nothing.
CONNECT_PATIENCE = 1.5
# Whoever waits for the same minute spreads over this much of it.
MINUTE_JITTER = 1.0


class NotRetried(enum.StrEnum):
    """Why a request that failed is not sent again, as the log says it."""

    ASKED = "X-Slproxy-Retry: off"
    BODY = "body too large to keep"
    METHOD = "method not repeatable"
    STATUS = "not a transient error"
    LASTING = "lasts until a person acts"
    ATTEMPTS = "out of retry.attempts"
    BUDGET = "out of retry.budget"
    DEADLINE = "out of retry.deadline"
    MAX_WAIT = "Retry-After over retry.max_wait"
    CLIENT_WAIT = "over the wait that is allowed"
    DRAINING = "shutting down"
    NOT_RENEWED = "no newer token to be had"
    REJECTED_AGAIN = "renewed token rejected as well"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one attempt came to: no ``status`` without a reply; ``maybe_sent`` if a byte of it may have left."""

    status: int | None
    maybe_sent: bool
    retry_after: str | None = None
    date: str | None = None

    @property
    def could_not_connect(self) -> bool:
        """Whether no byte of the request has left, since the upstream could not be reached."""
        return self.status is None and not self.maybe_sent


def has_retry_after(outcome: Outcome) -> bool:
    """Tell whether the upstream said when to send again."""
    return retry_after(outcome.retry_after, now=0.0) is not None


def costs_upstream(outcome: Outcome) -> bool:
    """Tell whether an attempt may have cost the upstream work: not a refused connection, not a 429."""
    return outcome.maybe_sent and outcome.status != TOO_MANY_REQUESTS


def why_no_wait(outcome: Outcome, *, method: str) -> NotRetried:
    """Return why ``wait_before_next`` has no wait."""
    if outcome.status is not None and outcome.status not in RETRIED:
        return NotRetried.STATUS
    may_repeat = outcome.status == TOO_MANY_REQUESTS or method in REPEATABLE
    return NotRetried.MAX_WAIT if may_repeat else NotRetried.METHOD


def wait_before_next(
    outcome: Outcome,
    *,
    method: str,
    attempt: int,
    now: float,
    jitter: float,
    max_wait: float,
    is_about_budget: bool = True,
) -> float | None:
    """Return the seconds to wait before attempt ``attempt + 1``, or ``None`` when the outcome goes to the client.

    ``attempt`` counts from 1, ``now`` is Unix time, ``jitter`` is uniform in [0, 1). A ``Retry-After`` longer than
    ``max_wait`` is not waited for: the client then learns of it at once. A 429 that ``is_about_budget`` lasts for the
    minute, unless it says how long.
    """
    if outcome.status == TOO_MANY_REQUESTS:
        asked = retry_after(outcome.retry_after, now=_clock(outcome.date, now))
        if asked is None and is_about_budget:
            minute = _until_next_minute(_clock(outcome.date, now))
            return None if minute > max_wait else minute + jitter * MINUTE_JITTER
        asked = asked or 0.0
        return None if asked > max_wait else max(asked, _backoff(attempt, jitter, max_wait))
    if outcome.could_not_connect:
        return _backoff(attempt, jitter, max_wait)
    if method in REPEATABLE and (outcome.status is None or outcome.status in TRANSIENT):
        asked = retry_after(outcome.retry_after, now=_clock(outcome.date, now)) or 0.0
        return None if asked > max_wait else max(asked, _backoff(attempt, jitter, max_wait))
    return None


def _clock(date: str | None, now: float) -> float:
    """Return the time by the upstream's clock, since its minute is what counts; ours where it sent no ``Date``."""
    there = parsed_date(date) if date else None
    return now if there is None else there


def _until_next_minute(now: float) -> float:
    return MINUTE - now % MINUTE


def _backoff(attempt: int, jitter: float, max_wait: float) -> float:
    return (0.5 + jitter / 2) * min(FIRST_BACKOFF * 2.0 ** (attempt - 1), max_wait)
