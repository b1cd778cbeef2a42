"""Report: what ``status.json`` tells of the budget."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from slproxy.observe import BudgetReading
from slproxy.pace.budget import Budget
from slproxy.pace.minute import Minute
from slproxy.retry import MINUTE


def report(budget: Budget, now: float, client: str | None) -> dict[str, object]:
    """Return what is known of the budget, and who waits for it; of clients, a ``client`` sees itself alone."""
    account, queue = budget.account, budget.queue
    bulk = sum(each.bulk for each in queue)
    remaining = account.remaining(now)  # begins the minute, if that is due
    return {
        "limit": account.limit,
        "told": account.is_told,
        "ours": account.quota,
        "remaining": remaining,
        "resets_in": round(account.resets_in(now), 1),
        "window": "minute" if account.sliding is None else "sliding",
        "queue": {"interactive": len(queue) - bulk, "bulk": bulk},
        "waiting": dict(waiting_by_client(budget, client).most_common()),
        "in_flight": len(account.in_flight),
        "this_minute": _minute(account.minute, client),
        "last_minutes": [_minute(minute, client) for minute in account.history],
    }


def reading(budget: Budget, now: float) -> BudgetReading:
    """Return what a metric tells of the budget."""
    account, queue = budget.account, budget.queue
    bulk = sum(each.bulk for each in queue)
    remaining = account.remaining(now)  # begins the minute, if that is due
    return BudgetReading(
        limit=account.limit,
        quota=account.quota,
        remaining=remaining,
        interactive=len(queue) - bulk,
        bulk=bulk,
        by_others=account.external.total,
    )


def waiting_by_client(budget: Budget, client: str | None = None) -> Counter[str]:
    """Return how many of each client wait, or of one."""
    waiting = [each for each in budget.queue if client in (None, each.client)]
    return Counter(f"{each.client} (bulk)" if each.bulk else each.client for each in waiting)


def _minute(minute: Minute, client: str | None) -> dict[str, object]:
    return {
        "at": f"{datetime.fromtimestamp(minute.number * MINUTE, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "spent": minute.spent,
        "by_client": {name: cost for name, cost in Counter(minute.by_client).most_common() if client in (None, name)},
        "by_endpoint": dict(Counter(minute.by_endpoint).most_common()) if client is None else {},
        "by_others": minute.external_spend,
        "refused": minute.refused,
        "waited": minute.waited,
        "longest_wait": round(minute.longest_wait, 1),
    }
