"""The team's rate limit: who may send, and when."""

from slproxy.pace.budget import SCOUTING
from slproxy.pace.headers import told
from slproxy.pace.pacer import Pacer
from slproxy.pace.preferences import Wish, wish_of
from slproxy.pace.reservation import Turn
from slproxy.pace.shared import RedisBudget

__all__ = [
    "SCOUTING",
    "Pacer",
    "RedisBudget",
    "Turn",
    "Wish",
    "told",
    "wish_of",
]
