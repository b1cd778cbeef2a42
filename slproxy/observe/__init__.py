"""Observability: a record of each request, and its listeners, such as the access log and traces."""

from slproxy.observe.access_log import AccessLog
from slproxy.observe.audit import Audit
from slproxy.observe.background_writer import BackgroundStream
from slproxy.observe.exchange import (
    RENEWED,
    TAKEN_OVER,
    Attempt,
    Exchange,
    Renewal,
    TokenEvent,
    TokenEventKind,
    Wait,
    loggable_path,
)
from slproxy.observe.lines import GREEN, GREY, RED, YELLOW, painted, wants_colour
from slproxy.observe.logging_setup import start_logging
from slproxy.observe.metrics import Metrics
from slproxy.observe.observer import Listener, Observer
from slproxy.observe.readings import BudgetReading, Readings
from slproxy.observe.recording import (
    BODY_LIMIT,
    MASK,
    KeptBody,
    Recording,
    is_credential,
    masked,
    pairs,
    redacted,
    redacted_target,
)
from slproxy.observe.request_ids import is_sane
from slproxy.observe.request_line import LEFT, LEFT_WAITING, milliseconds
from slproxy.observe.tally import Tally
from slproxy.observe.tracing.start import start_tracing

__all__ = [
    "BODY_LIMIT",
    "GREEN",
    "GREY",
    "LEFT",
    "LEFT_WAITING",
    "MASK",
    "RED",
    "RENEWED",
    "TAKEN_OVER",
    "YELLOW",
    "AccessLog",
    "Attempt",
    "Audit",
    "BackgroundStream",
    "BudgetReading",
    "Exchange",
    "KeptBody",
    "Listener",
    "Metrics",
    "Observer",
    "Readings",
    "Recording",
    "Renewal",
    "Tally",
    "TokenEvent",
    "TokenEventKind",
    "Wait",
    "is_credential",
    "is_sane",
    "loggable_path",
    "masked",
    "milliseconds",
    "painted",
    "pairs",
    "redacted",
    "redacted_target",
    "start_logging",
    "start_tracing",
    "wants_colour",
]
