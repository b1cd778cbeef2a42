"""The team's rate limit: who may send, and when.

``pacer`` is what ``forward`` talks to: it holds the futures and timers. ``budget`` decides: ``account`` knows what is
left of this ``minute``, ``queue`` who is next, ``estimate`` how long that takes; ``rules`` what part of it is ours,
``seen`` how much there is, ``costs`` what a request takes, ``clock`` when the upstream's minute begins, ``probe``
whether it has begun, ``refusal`` what a 429 is about, ``external`` what others spend, ``sliding`` what if there is no
minute. ``replicas`` and ``shared`` share it all through Redis.
"""

from slproxy.pace.headers import RateLimitHeaders
from slproxy.pace.pacer import CallLater, Pacer, Timer
from slproxy.pace.preferences import Preferences, parse_preferences
from slproxy.pace.probe import PROBE_TIMEOUT
from slproxy.pace.refusal import Refusal
from slproxy.pace.reservation import Reservation
from slproxy.pace.shared import RedisBudget

__all__ = [
    "PROBE_TIMEOUT",
    "CallLater",
    "Pacer",
    "Preferences",
    "RateLimitHeaders",
    "RedisBudget",
    "Refusal",
    "Reservation",
    "Timer",
    "parse_preferences",
]
