"""The upstream: sends one request to SalesLoft, once."""

from slproxy.upstream.client import Upstream
from slproxy.upstream.outbound import Outbound
from slproxy.upstream.parser import MAX_LENGTH
from slproxy.upstream.reply import Reply
from slproxy.upstream.reuse import suspended
from slproxy.upstream.slots import Slot

__all__ = [
    "MAX_LENGTH",
    "Outbound",
    "Reply",
    "Slot",
    "Upstream",
    "suspended",
]
