"""The retry loop. The only module that builds one of tenacity's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState

from slproxy.errors import UpstreamFault
from slproxy.retry.decision import Outcome


class Reply(Protocol):
    """A reply, as far as the decision goes."""

    @property
    def outcome(self) -> Outcome:
        """What the attempt came to."""


def ladder(
    next_wait: Callable[[Outcome, int], float | None],
    *,
    sleep: Callable[[float], Awaitable[None]],
    before_wait: Callable[[RetryCallState], Awaitable[None]] | None = None,
) -> AsyncRetrying:
    """Return tenacity's loop for one request, to be called with what makes one attempt and returns its ``Reply``.

    ``next_wait`` is asked after each attempt with its outcome and number. A fresh loop for each request: tenacity keeps
    the state of an iteration on the object and in a thread-local, which all tasks of one event loop would share.
    """
    wait: float | None = None

    def again(state: RetryCallState) -> bool:
        nonlocal wait
        outcome = _outcome(state)
        wait = None if outcome is None else next_wait(outcome, state.attempt_number)
        return wait is not None

    return AsyncRetrying(retry=again, wait=lambda _: wait or 0.0, sleep=sleep, before_sleep=before_wait)


def _outcome(state: RetryCallState) -> Outcome | None:
    """Return what an attempt came to; ``None`` for what is no reply and no upstream fault, above all cancellation."""
    attempt = state.outcome
    if attempt is None:
        return None
    fault = attempt.exception() if attempt.failed else None
    if fault is None:
        reply: Reply = attempt.result()
        return reply.outcome
    return Outcome(status=None, reached=fault.reached) if isinstance(fault, UpstreamFault) else None
