"""Sends one request to SalesLoft, once."""

from slproxy.upstream.framing import MAX_LENGTH
from slproxy.upstream.pool import Slot
from slproxy.upstream.round_trip import Outbound, Reply
from slproxy.upstream.upstream import Upstream

__all__ = [
    "MAX_LENGTH",
    "Outbound",
    "Reply",
    "Slot",
    "Upstream",
]
