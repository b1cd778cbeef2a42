"""Retry budget: retries are a share of the requests, so that an outage is not met with a multiple of the load."""

from __future__ import annotations

from collections import deque


class RetryBudget:
    """Counts requests and retries; ``share`` is in retries per request, and a floor of ``FLOOR`` retries is free.

    Both are counted over the last ``WINDOW`` seconds, the retries over ``LATE`` more: they come so long after their
    requests, seconds are counted whole, and no stretch of that length shall see more than its own share. ``now`` is
    monotonic.
    """

    WINDOW = 60
    LATE = 5
    FLOOR = 10

    def __init__(self, share: float) -> None:
        self.share = share
        # One entry a second: [second, requests, retries].
        self._seconds: deque[list[int]] = deque()

    def count_request(self, now: float) -> None:
        """Count a request of a client."""
        self._second(now)[1] += 1

    def allows_retry(self, now: float) -> bool:
        """Tell whether there is budget for one more retry."""
        self._second(now)
        requests = sum(entry[1] for entry in self._seconds if entry[0] > int(now) - self.WINDOW)
        retries = sum(entry[2] for entry in self._seconds)
        return retries < max(self.FLOOR, self.share * requests)

    def count_retry(self, now: float) -> None:
        """Spend one retry."""
        self._second(now)[2] += 1

    def _second(self, now: float) -> list[int]:
        if self._seconds and self._seconds[-1][0] == int(now):
            return self._seconds[-1]
        while self._seconds and self._seconds[0][0] <= int(now) - self.WINDOW - self.LATE:
            self._seconds.popleft()
        self._seconds.append([int(now), 0, 0])
        return self._seconds[-1]
