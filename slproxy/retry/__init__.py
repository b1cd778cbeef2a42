"""Retries: whether a request is sent again, and when."""

from slproxy.retry.budget import RetryBudget
from slproxy.retry.decision import (
    CONNECT_PATIENCE,
    FIRST_BACKOFF,
    MINUTE,
    REPEATABLE,
    RETRIED,
    TOO_MANY_REQUESTS,
    NotRetried,
    Outcome,
    costs_upstream,
    has_retry_after,
    wait_before_next,
    why_no_wait,
)
from slproxy.retry.retrying import retried

__all__ = [
    "CONNECT_PATIENCE",
    "FIRST_BACKOFF",
    "MINUTE",
    "REPEATABLE",
    "RETRIED",
    "TOO_MANY_REQUESTS",
    "NotRetried",
    "Outcome",
    "RetryBudget",
    "costs_upstream",
    "has_retry_after",
    "retried",
    "wait_before_next",
    "why_no_wait",
]
