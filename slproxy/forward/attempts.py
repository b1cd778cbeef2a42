"""Attempts: the retry state of one request. It steers; what happened is told to ``observe``.

Decisions take the time and the jitter as arguments, and write nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from slproxy import retry
from slproxy.config import RetrySettings
from slproxy.errors import OverBudget, Problem, UpstreamFault
from slproxy.forward.buffered import BufferedReply
from slproxy.http import Fields
from slproxy.pace import Refusal
from slproxy.retry import NotRetried, Outcome
from slproxy.upstream import Reply

# The minimum timeout of the last attempt, in seconds.
SHORTEST_ATTEMPT = 0.1


@dataclass(eq=False, slots=True)
class Attempts:
    """The state of one request's attempts. Times are monotonic, in seconds.

    ``sent`` counts physical sends. ``waited`` is all waiting between them; ``paced`` what of it the rate limit took,
    unless SalesLoft had refused the request; ``unreachable_for`` what was waited since SalesLoft could be reached. A
    request that was refused (429) is ``requeued`` at its place in the queue, which its ``ticket`` tells, for
    ``requeue_timeout`` at most. ``buffered`` is the last reply of SalesLoft's that was given up for another attempt;
    ``reason`` is what the next attempt is made for. ``reply`` is the last one that came, and closed by ``close`` unless
    the request ends with it.
    """

    began: float
    sent: int = 0
    waited: float = 0.0
    paced: float = 0.0
    unreachable_for: float = 0.0
    ticket: int | None = None
    refusal: Refusal | None = None
    requeue_timeout: float | None = None
    deadline_applies: bool = False
    buffered: BufferedReply | None = None
    reason: str = ""
    # What it was sent with, which no reply may show.
    tokens: set[str] = field(default_factory=set, repr=False)
    reply: Reply | None = None

    @property
    def requeued(self) -> bool:
        """Whether it was refused, and is to wait in the queue."""
        return self.refusal is Refusal.REQUEUED

    def close(self) -> None:
        """Free the connection of the last reply: the request ends with another answer, or none."""
        if self.reply is not None:
            self.reply.close()

    def time_left(self, now: float, *, deadline: float, drained_at: float) -> float:
        """Return the seconds that are left for all attempts; what the rate limit took is no attempt's fault."""
        return min(deadline - (now - self.began - self.paced), drained_at - now)

    def response_timeout(self, time_left: float) -> float:
        """Return for how long the next attempt may wait for the head of its reply, in seconds."""
        return max(time_left, SHORTEST_ATTEMPT) if self.deadline_applies else math.inf

    def next_wait(
        self,
        outcome: Outcome,
        attempt: int,
        *,
        method: str,
        rules: RetrySettings,
        time_left: float,
        max_wait: float,
        now: float,
        jitter: float,
    ) -> float | NotRetried:
        """Return the seconds to wait before another attempt, or why there is to be none.

        ``attempt`` counts from 1; ``max_wait`` is what the client allows for all waiting; ``now`` is Unix time.
        """
        is_patient = outcome.could_not_connect and self.unreachable_for < retry.CONNECT_PATIENCE
        if self.sent >= rules.attempts and not (is_patient and rules.attempts > 1 and rules.max_wait):
            return NotRetried.ATTEMPTS
        wait = retry.wait_before_next(
            outcome,
            method=method,
            attempt=attempt,
            now=now,
            jitter=jitter,
            max_wait=rules.max_wait,
            is_about_budget=self.refusal is not Refusal.OTHER,
        )
        if self.requeued and not retry.has_retry_after(outcome):
            wait = 0.0  # the queue knows better
        if wait is None:
            return retry.why_no_wait(outcome, method=method)
        if wait > time_left:
            return NotRetried.DEADLINE
        if self.waited + wait > max_wait:
            return NotRetried.CLIENT_WAIT
        return 0.0 if self.requeued else wait

    def note_wait(self, outcome: Outcome, wait: float) -> None:
        """Note that there is to be another attempt, and after what wait."""
        self.waited += wait
        self.unreachable_for = self.unreachable_for + wait if outcome.could_not_connect else 0.0

    def headers(self, *, replayable: bool) -> Fields:
        """Return what tells the client how often its request was sent, where there is something to tell."""
        if self.sent and not replayable:
            return [("X-Slproxy-Attempts", f"{self.sent}; not-replayable")]
        return [("X-Slproxy-Attempts", str(self.sent))] if self.sent > 1 else []


def why_ended(fault: Problem) -> NotRetried | None:
    """Return why a problem ends a request that was to be sent again, where its own attempts do not say why."""
    if isinstance(fault, UpstreamFault):
        return NotRetried.LASTING if fault.is_lasting else None
    return NotRetried.CLIENT_WAIT if isinstance(fault, OverBudget) else NotRetried.DRAINING
