"""Exchange: the record of a request and its response, as far as they have come. Nothing here steers anything.

Times are monotonic, in seconds; what has not ended yet has no end. Nothing in it is secret: a target loses its query
when it is recorded, since queries hold people's names and addresses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from slproxy.config import PROBES
from slproxy.observe.recording import Recording
from slproxy.operations import operation_of

TokenEventKind = Literal["login", "logout", "refusal"]
WaitReason = Literal["rate limit", "connection", "token", "backoff"]

# How a renewal ends that is of use.
RENEWED, TAKEN_OVER = "renewed", "taken over from another process"


@dataclass(eq=False, slots=True)
class Attempt:
    """One physical send: ``reason`` is what came of the one before, such as ``503``, and empty for the first.

    ``status`` is ``None`` as long as there is no reply; where none came, ``fault`` has RFC 9209's name for the reason,
    or nothing where the attempt was given up, since its client had left. ``cost`` is what SalesLoft said that it cost.
    """

    began: float
    reason: str = ""
    ended: float = math.nan
    status: int | None = None
    fault: str = ""
    cost: int | None = None


@dataclass(kw_only=True, eq=False, slots=True)
class Wait:
    """A time in which nothing was sent: for the ``rate limit``, a ``connection`` or a ``token``, or as ``backoff``."""

    reason: WaitReason
    began: float
    ended: float = math.nan


@dataclass(kw_only=True, eq=False, slots=True)
class Renewal:
    """A renewal of the token, which many requests may wait for: ``expiry`` or ``rejected`` is its reason.

    ``outcome`` is ``renewed``, ``taken over from another process``, or what went wrong.
    """

    reason: str
    began: float
    ended: float = math.nan
    outcome: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether it has ended without a new token."""
        return self.outcome not in (RENEWED, TAKEN_OVER)


@dataclass(eq=False, slots=True)
class Exchange:
    """A client's request and its response.

    ``id`` is the client's ``X-Request-Id``, or one that the proxy made; ``client`` what the client calls itself, and
    ``bulk`` whether it lets others go first; ``error`` the type of the proxy's own answer, such as ``login-required``,
    and empty for SalesLoft's; ``aborted`` says why the answer did not end well, such as ``client left``, and
    ``not_retried`` why there was no further attempt after one that failed, such as ``out of retry.attempts``.
    ``upstream_id`` is SalesLoft's ``X-Request-Id``, where it sent one. ``renewals`` counts the new tokens that it was
    sent again with.
    """

    method: str
    path: str
    began: float
    id: str = ""
    ended: float = math.nan
    client: str = ""
    bulk: bool = False
    status: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    # How long SalesLoft took for the heads of its replies, and how long nothing was sent, in all.
    upstream: float = 0.0
    waited: float = 0.0
    renewals: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    error: str = ""
    aborted: str = ""
    not_retried: str = ""
    upstream_id: str = ""
    # Whether the audit has it, and its line, which other logs may tell again.
    is_audited: bool = False
    line: str = field(default="", repr=False)
    # The client's traceparent and tracestate, where a listener takes them.
    trace_context: tuple[str, str] = ("", "")
    # What the inspector keeps of it, where it keeps anything.
    recording: Recording | None = field(default=None, repr=False)
    _operation: str = field(default="", init=False, repr=False)

    @property
    def operation(self) -> str:
        """The template of the path, such as ``/v2/people/{id}``, or ``other``."""
        if not self._operation:
            self._operation = operation_of(self.path)
        return self._operation

    @property
    def is_probe(self) -> bool:
        """Whether an orchestrator asks for the proxy's health or readiness."""
        return self.path in PROBES

    @property
    def cost(self) -> int | None:
        """What SalesLoft said that all attempts cost together, where it said so."""
        costs = [each.cost for each in self.attempts if each.cost is not None]
        return sum(costs) if costs else None

    @property
    def seconds(self) -> float:
        """How long it took, once it has ended."""
        return self.ended - self.began


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEvent:
    """What happened to the token besides renewals: a ``login``, a ``logout``, or a ``refusal`` of SalesLoft's.

    ``detail`` says what happened, for a person.
    """

    kind: TokenEventKind
    grant: str
    detail: str


def loggable_path(target: str) -> str:
    """Return what may be logged of a request target: its path, with nothing that a terminal would obey.

    Of an absolute target, the authority is left out as well: it may hold a password.
    """
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/") and "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    path = path[:500]
    return path if path.isprintable() else "".join(each if each.isprintable() else "?" for each in path)
