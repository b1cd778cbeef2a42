"""Tally: counts what happens, for the metrics, as cheaply as can be: it is told of each request in its middle.

Whatever clients and SalesLoft send, the number of what is counted apart stays small.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterator
from itertools import accumulate
from typing import Generic, TypeVar

from slproxy.config import OWN_PAGES
from slproxy.errors import Problem
from slproxy.observe.exchange import Exchange, Renewal
from slproxy.observe.observer import Listener
from slproxy.observe.top_labels import OTHER, TopLabels

Key = TypeVar("Key", bound=Hashable)

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
# Upper bounds in seconds. A request may be held for a minute and sent again for two (pace.max_wait, retry.deadline).
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
WAIT_SECONDS = (0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0)
# How many of each are counted by name.
MAX_CLIENTS, MAX_OPERATIONS = 20, 40
MAX_REQUESTS, MAX_OUTCOMES, MAX_REASONS = 80, 50, 30
# The outcome of an attempt that its client did not wait for.
ABANDONED = "abandoned"
RENEWALS = ("renewed", "taken over", "failed")


class Counts(dict[Key, int], Generic[Key]):
    """Counts by key, of at most ``size`` keys; the others are counted as ``other``."""

    def __init__(self, size: int, other: Key) -> None:
        super().__init__()
        self._size, self._other = size, other

    def add(self, key: Key) -> None:
        """Count one more."""
        try:
            self[key] += 1
        except KeyError:
            key = key if len(self) < self._size else self._other
            self[key] = self.get(key, 0) + 1


class Histogram:
    """How many values are at most as large as each of some bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.total = bounds, 0.0
        # Each value once; the last ones are above all bounds.
        self.counts = [0] * (len(bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, int]]:
        """Return how many values there are up to each bound."""
        return list(zip([*map(str, self.bounds), "+Inf"], accumulate(self.counts), strict=True))


class Tally(Listener):
    """Counts of what has ended since the start; the proxy's own pages do not count."""

    def __init__(self) -> None:
        # By method and status.
        self.requests: Counts[tuple[str, int]] = Counts(MAX_REQUESTS, (OTHER, 0))
        self.clients, self.operations = TopLabels(MAX_CLIENTS), TopLabels(MAX_OPERATIONS)
        # By whether they let others go first.
        self.durations = (Histogram(SECONDS), Histogram(SECONDS))
        self.attempts: Counts[int | str] = Counts(MAX_OUTCOMES, OTHER)
        self.attempt_durations = Histogram(SECONDS)
        self.retries: Counts[str] = Counts(MAX_REASONS, OTHER)
        self.not_retried: Counts[str] = Counts(MAX_REASONS, OTHER)
        # By what for, and as `durations`.
        self.waits: dict[tuple[str, bool], Histogram] = {}
        # From 0: to whoever counts errors, a counter that begins with 1 has not increased.
        self.problems: Counts[str] = Counts(MAX_REASONS, OTHER)
        self.problems.update(dict.fromkeys(_types(Problem), 0))
        self.aborts: Counts[str] = Counts(MAX_REASONS, OTHER)
        self.renewals = dict.fromkeys(RENEWALS, 0)

    def request_ended(self, exchange: Exchange) -> None:
        """Count a request, and all that was done for it."""
        attempts = exchange.attempts
        if not attempts and exchange.path.startswith(OWN_PAGES):
            return
        self.requests.add((exchange.method if exchange.method in METHODS else OTHER, exchange.status))
        self.durations[exchange.bulk].add(exchange.ended - exchange.began)
        cost = 0
        for attempt in attempts:
            cost += attempt.cost or 0
            self.attempts.add(attempt.status or attempt.fault or ABANDONED)
            if attempt.status:
                self.attempt_durations.add(attempt.ended - attempt.began)
            if attempt.reason:
                self.retries.add(attempt.reason)
        # A request that did not pass Check has no client.
        if exchange.client:
            self.clients.count(exchange.client, cost)
            self.operations.count(exchange.operation, cost)
        for wait in exchange.waits:
            of = wait.reason, exchange.bulk
            if of not in self.waits:
                self.waits[of] = Histogram(WAIT_SECONDS)
            self.waits[of].add(wait.ended - wait.began)
        if exchange.not_retried:
            self.not_retried.add(exchange.not_retried)
        if exchange.error:
            self.problems.add(exchange.error)
        if exchange.aborted:
            self.aborts.add(exchange.aborted)

    def renewal_ended(self, renewal: Renewal) -> None:
        """Count a renewal by how it went."""
        result = next((each for each in RENEWALS[:2] if renewal.outcome.startswith(each)), RENEWALS[2])
        self.renewals[result] += 1


def _types(of: type[Problem]) -> Iterator[str]:
    """Yield the types of all problems that there are."""
    if "type" in vars(of):
        yield of.type
    for each in of.__subclasses__():
        yield from _types(each)
