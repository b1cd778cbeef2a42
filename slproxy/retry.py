"""When to send a request again, and how long to wait first.

1. What was certainly not carried out may be sent again, whatever the method: no byte of it left (a refused connection),
   or the upstream said that it refused it (429).
2. What may have been carried out is sent again only for the methods that RFC 9110 §9.2.2 calls idempotent. A POST or
   PATCH that got no reply is never sent twice.
3. A 401 is not decided here: it is cured by a new token, inside each attempt.
4. Repeating what failed costs the upstream, so those repeats come out of a budget; refusals cost it nothing.

Decisions take the time and the dice as arguments. Only ``ladder`` knows tenacity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState

from slproxy.errors import UpstreamFault
from slproxy.servertime import MINUTE, parsed_date, retry_after

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
PASSING = frozenset({502, 503, 504})
TOO_MANY = 429

# The first wait is at most this long, each further one at most twice the last: full jitter over an exponential ceiling,
# after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
FIRST_BACKOFF = 0.25
# Whoever waits for the same minute spreads over this much of it.
MINUTE_JITTER = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one attempt came to: ``status`` is ``None`` without a reply, ``reached`` that a byte of it may have left."""

    status: int | None
    reached: bool
    retry_after: str | None = None
    date: str | None = None


def is_final(status: int) -> bool:
    """Tell whether a reply of that status is the client's to have, whatever the method."""
    return status != TOO_MANY and status not in PASSING


def says_when(outcome: Outcome) -> bool:
    """Tell whether the upstream said when to ask again."""
    return retry_after(outcome.retry_after, now=0.0) is not None


def wait_before_next(
    outcome: Outcome, *, method: str, attempt: int, now: float, dice: float, max_wait: float
) -> float | None:
    """Return the seconds to wait before attempt ``attempt + 1``, or ``None`` when the outcome is the client's to have.

    ``attempt`` counts from 1, ``now`` is Unix time, ``dice`` is uniform in [0, 1). A ``Retry-After`` longer than
    ``max_wait`` is not waited for: the client then learns of it at once.
    """
    if outcome.status == TOO_MANY:
        asked = retry_after(outcome.retry_after, now=_clock(outcome.date, now))
        if asked is None:
            minute = _until_next_minute(_clock(outcome.date, now))
            return None if minute > max_wait else minute + dice * MINUTE_JITTER
        return None if asked > max_wait else max(asked, _backoff(attempt, dice, max_wait))
    if outcome.status is None and not outcome.reached:
        return _backoff(attempt, dice, max_wait)
    if method in REPEATABLE and (outcome.status is None or outcome.status in PASSING):
        asked = retry_after(outcome.retry_after, now=_clock(outcome.date, now)) or 0.0
        return None if asked > max_wait else max(asked, _backoff(attempt, dice, max_wait))
    return None


def _clock(date: str | None, now: float) -> float:
    """Return the time by the upstream's clock, since its minute is what counts; ours where it sent no ``Date``."""
    there = parsed_date(date) if date else None
    return now if there is None else there


def _until_next_minute(now: float) -> float:
    return MINUTE - now % MINUTE


def _backoff(attempt: int, dice: float, max_wait: float) -> float:
    return dice * min(FIRST_BACKOFF * 2.0 ** (attempt - 1), max_wait)


class Budget:
    """Caps repeats at a share of the requests, over a floor, so that an outage is not met with a multiple of the load.

    ``share`` is in retries per request; both are counted over the last ``WINDOW`` seconds, the retries over one more:
    seconds are counted whole, and no stretch of that length shall see more than its own share.
    """

    WINDOW = 60
    FLOOR = 10

    def __init__(self, share: float) -> None:
        self._share = share
        # One entry a second: [second, requests, retries].
        self._seconds: deque[list[int]] = deque()

    def request(self, now: float) -> None:
        """Count a request of a client."""
        self._second(now)[1] += 1

    def spend(self, now: float) -> bool:
        """Take one retry out of the budget, or return ``False`` when it is spent."""
        second = self._second(now)
        requests = sum(entry[1] for entry in self._seconds if entry[0] > int(now) - self.WINDOW)
        retries = sum(entry[2] for entry in self._seconds)
        if retries >= max(self.FLOOR, self._share * requests):
            return False
        second[2] += 1
        return True

    def _second(self, now: float) -> list[int]:
        while self._seconds and self._seconds[0][0] < int(now) - self.WINDOW:
            self._seconds.popleft()
        if not self._seconds or self._seconds[-1][0] < int(now):
            self._seconds.append([int(now), 0, 0])
        return self._seconds[-1]


class Reply(Protocol):
    """A reply, as far as the decision goes."""

    @property
    def outcome(self) -> Outcome:
        """What the attempt came to."""


def ladder(
    next_wait: Callable[[Outcome, int], float | None],
    *,
    sleep: Callable[[float], Awaitable[None]],
    before_wait: Callable[[RetryCallState], Awaitable[None]] | None = None,
) -> AsyncRetrying:
    """Return tenacity's loop for one request, to be called with what makes one attempt and returns its ``Reply``.

    ``next_wait`` is asked after each attempt with its outcome and number. A fresh loop for each request: tenacity keeps
    the state of an iteration on the object and in a thread-local, which all tasks of one event loop would share.
    """
    wait: float | None = None

    def again(state: RetryCallState) -> bool:
        nonlocal wait
        outcome = _outcome(state)
        wait = None if outcome is None else next_wait(outcome, state.attempt_number)
        return wait is not None

    return AsyncRetrying(retry=again, wait=lambda _: wait or 0.0, sleep=sleep, before_sleep=before_wait)


def _outcome(state: RetryCallState) -> Outcome | None:
    """Return what an attempt came to; ``None`` for what is no reply and no upstream fault, above all cancellation."""
    attempt = state.outcome
    if attempt is None:
        return None
    fault = attempt.exception() if attempt.failed else None
    if fault is None:
        reply: Reply = attempt.result()
        return reply.outcome
    return Outcome(status=None, reached=fault.reached) if isinstance(fault, UpstreamFault) else None
