"""Observability: a record of each request, and its listeners, such as the access log."""

from slproxy.observe.access_log import AccessLog
from slproxy.observe.background_writer import BackgroundStream
from slproxy.observe.exchange import Attempt, Exchange, Renewal, TokenEvent, TokenEventKind, Wait, loggable_path
from slproxy.observe.logging_setup import start_logging
from slproxy.observe.metrics import Metrics
from slproxy.observe.observer import Listener, Observer
from slproxy.observe.readings import BudgetReading, Readings
from slproxy.observe.tally import Tally

__all__ = [
    "AccessLog",
    "Attempt",
    "BackgroundStream",
    "BudgetReading",
    "Exchange",
    "Listener",
    "Metrics",
    "Observer",
    "Readings",
    "Renewal",
    "Tally",
    "TokenEvent",
    "TokenEventKind",
    "Wait",
    "loggable_path",
    "start_logging",
]
