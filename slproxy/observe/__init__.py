"""What happened, told: the access log and its record of a request."""

from slproxy.observe import logs
from slproxy.observe.access_log import Journal
from slproxy.observe.exchange import Exchange, path_of

__all__ = [
    "Exchange",
    "Journal",
    "logs",
    "path_of",
]
