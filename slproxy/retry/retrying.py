"""Retry loop: the only module that uses tenacity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from slproxy.errors import UpstreamFault
from slproxy.retry.decision import Outcome

if TYPE_CHECKING:
    from tenacity import RetryCallState


class HasOutcome(Protocol):
    """A reply, as far as the decision goes."""

    @property
    def outcome(self) -> Outcome:
        """What the attempt came to."""


R = TypeVar("R", bound=HasOutcome)


async def retried(
    attempt: Callable[[], Awaitable[R]],
    next_wait: Callable[[Outcome, int], float | None],
    *,
    sleep: Callable[[float], Awaitable[None]],
    first: R | UpstreamFault | None = None,
    before_wait: Callable[[R | UpstreamFault, Outcome, float], Awaitable[None]] | None = None,
) -> R:
    """Attempt again until ``next_wait`` has no wait for an attempt's outcome and number, and return that reply.

    ``first`` is the result of a first attempt that was made already. ``before_wait`` is told an attempt's result, its
    outcome, and the seconds until the next.

    Raises:
        UpstreamFault: the last attempt got no reply.
    """
    from tenacity import AsyncRetrying  # noqa: PLC0415  # most requests go without, and most commands

    result: R | UpstreamFault | None = first
    wait: float | None = None

    def again(state: RetryCallState) -> bool:
        nonlocal wait
        # Whatever else was raised, above all cancellation, is raised on.
        if result is None or (isinstance(result, UpstreamFault) and result.is_lasting):
            return False
        wait = next_wait(_outcome(result), state.attempt_number)
        return wait is not None

    async def before_sleep(_: RetryCallState) -> None:
        if before_wait is not None and result is not None and wait is not None:
            await before_wait(result, _outcome(result), wait)

    # A fresh loop for each request: tenacity keeps the state of an iteration on the object and in a thread-local, which
    # all tasks of one event loop would share.
    async for each in AsyncRetrying(retry=again, wait=lambda _: wait or 0.0, sleep=sleep, before_sleep=before_sleep):
        with each:
            if each.retry_state.attempt_number > 1 or first is None:
                result = None
                try:
                    result = await attempt()
                except UpstreamFault as fault:
                    result = fault
            if isinstance(result, UpstreamFault):
                raise result
    assert result is not None, "tenacity raises what else there is"
    assert not isinstance(result, UpstreamFault), "tenacity raises it"
    return result


def _outcome(result: HasOutcome | UpstreamFault) -> Outcome:
    if isinstance(result, UpstreamFault):
        return Outcome(status=None, maybe_sent=result.maybe_sent)
    return result.outcome
