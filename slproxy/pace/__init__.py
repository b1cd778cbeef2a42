"""The team's rate limit: who may send, and when."""

from slproxy.pace.headers import RateLimitHeaders
from slproxy.pace.pacer import CallLater, Pacer, Timer
from slproxy.pace.preferences import Preferences, parse_preferences
from slproxy.pace.probe import PROBE_TIMEOUT
from slproxy.pace.reservation import Reservation
from slproxy.pace.shared import RedisBudget

__all__ = [
    "PROBE_TIMEOUT",
    "CallLater",
    "Pacer",
    "Preferences",
    "RateLimitHeaders",
    "RedisBudget",
    "Reservation",
    "Timer",
    "parse_preferences",
]
