"""Schedule of renewals: how long before its expiry a token is renewed, and how long after a failure again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from slproxy.errors import CredentialsRefused, SlproxyError, TokenEndpointDown
from slproxy.store import Token

# Refused credentials change only when a person changes them; asking more often would lock an account.
REFUSED_PAUSE = 10.0
# Between failed renewals: doubling from the first to the last, in seconds.
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
# How often the clock is read (a laptop sleeps) and, without a usable token, the store (a person logs in elsewhere).
POLL_INTERVAL, POLL_INTERVAL_WITHOUT_TOKEN = 30.0, 2.0


def renewal_margin(token: Token, *, leeway: float, leeway_is_set: bool, jitter: float) -> float:
    """Return how long before its expiry a token is renewed, in seconds.

    A leeway that nobody has set is at most a twentieth of the lifetime, so that there are hardly more renewals than
    lifetimes: each one is a chance to lose a race. One that is set leaves at least a fifth. ``jitter``, uniform in
    [0, 1), adds up to a quarter, so that replicas which started together do not renew together.
    """
    lifetime = token.lifetime
    margin = min(leeway, 0.8 * lifetime if leeway_is_set else lifetime / 20)
    return min(margin * (1 + jitter / 4), 0.9 * lifetime)


def poll_interval(due_in: float, *, pause: float, unpersisted: bool, watch: float = math.inf) -> float:
    """Return the seconds until the refresher looks again.

    ``due_in`` and ``pause`` are the seconds until the renewal is due, and until the last failure allows one; ``watch``
    is how often the store is to be looked at.
    """
    longest = min(watch, POLL_INTERVAL)
    if due_in > 0.0:
        return min(due_in, POLL_INTERVAL_WITHOUT_TOKEN if unpersisted else longest)
    return max(POLL_INTERVAL_WITHOUT_TOKEN, min(pause, longest))


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failed renewals in a row, and the monotonic time until which none is tried.

    ``deferred``: the last one was not even begun, since its token could not have been stored.
    """

    failures: int = 0
    until: float = -math.inf
    deferred: bool = False

    def after(self, error: SlproxyError, *, deferred: bool, now: float) -> Backoff:
        """Return the backoff after one more failure."""
        # The exponent is bounded as well: a float overflows after 1024 failures, which is an outage of one night.
        pause = min(FIRST_PAUSE * 2.0 ** min(self.failures, 10), LAST_PAUSE)
        if isinstance(error, CredentialsRefused):
            pause = REFUSED_PAUSE
        elif isinstance(error, TokenEndpointDown):
            pause = max(pause, error.retry_in)
        return Backoff(self.failures + 1, now + pause, deferred)

    def forbids_renewal(self, *, expired: bool, now: float) -> bool:
        """Tell whether it is too soon; what was deferred while the token was valid is due once it has expired."""
        return now < self.until and not (self.deferred and expired)

    def retry_after(self, now: float) -> tuple[tuple[str, str], ...]:
        """Return the header that says when a renewal is tried again, in a second at least."""
        return (("Retry-After", str(math.ceil(max(1.0, self.until - now)))),)
