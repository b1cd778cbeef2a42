"""Retries: whether a request is sent again, and when."""

from slproxy.retry.budget import Budget
from slproxy.retry.decision import REPEATABLE, TOO_MANY, Outcome, is_final, says_when, wait_before_next
from slproxy.retry.retrying import ladder

__all__ = [
    "REPEATABLE",
    "TOO_MANY",
    "Budget",
    "Outcome",
    "is_final",
    "ladder",
    "says_when",
    "wait_before_next",
]
