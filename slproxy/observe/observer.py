"""Observer: tells listeners of the start and end of each request, attempt, wait and renewal, and of token events.

Whoever makes an event happen tells the observer; who listens is decided in ``app``. An event that nobody listens to
costs an empty loop::

    for tell in observer.attempt_ended:
        tell(exchange, attempt)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from slproxy.http import Fields
from slproxy.observe.exchange import Attempt, Exchange, Renewal, TokenEvent, Wait, WaitReason
from slproxy.observe.request_ids import RequestIds


class Listener:
    """Somebody who wants to know; each method that is overridden is called for its event, in the order of events.

    A listener must not fail, and must not wait: it is called in the middle of a request.
    """

    # Whether a request's `trace_context` is wanted.
    takes_context = False

    def request_began(self, exchange: Exchange) -> None:
        """A request came, and is not checked yet."""

    def request_ended(self, exchange: Exchange) -> None:
        """An answer is complete, or was aborted."""

    def attempt_began(self, exchange: Exchange, attempt: Attempt) -> None:
        """A request is about to be sent to SalesLoft."""

    def attempt_ended(self, exchange: Exchange, attempt: Attempt) -> None:
        """The head of SalesLoft's reply came, or none will."""

    def wait_began(self, exchange: Exchange, wait: Wait) -> None:
        """A request waits."""

    def wait_ended(self, exchange: Exchange, wait: Wait) -> None:
        """A request waits no more: it goes on, or was given up."""

    def renewal_began(self, renewal: Renewal) -> None:
        """The token is about to be renewed."""

    def renewal_ended(self, renewal: Renewal) -> None:
        """The token was renewed, or not."""

    def token_event(self, event: TokenEvent) -> None:
        """A login was found or made, the login is gone, or SalesLoft has refused it."""

    def context_upstream(self, exchange: Exchange, attempt: Attempt) -> Fields:
        """Return the trace context that an attempt has, for SalesLoft, in place of the client's."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing more will happen."""


class Observer:
    """The listeners, by event: each attribute holds what to call."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        # Whoever makes an exchange takes its id from here.
        self.request_ids = RequestIds()
        self.tell(listeners)

    def tell(self, listeners: Sequence[Listener]) -> None:
        """Tell these from now on, and nobody else."""
        self.listeners = tuple(listeners)

        def who_overrides(event: str) -> list[Listener]:
            return [each for each in listeners if getattr(type(each), event) is not getattr(Listener, event)]

        self.request_began = tuple(each.request_began for each in who_overrides("request_began"))
        self.request_ended = tuple(each.request_ended for each in who_overrides("request_ended"))
        self.attempt_began = tuple(each.attempt_began for each in who_overrides("attempt_began"))
        self.attempt_ended = tuple(each.attempt_ended for each in who_overrides("attempt_ended"))
        self.wait_began = tuple(each.wait_began for each in who_overrides("wait_began"))
        self.wait_ended = tuple(each.wait_ended for each in who_overrides("wait_ended"))
        self.renewal_began = tuple(each.renewal_began for each in who_overrides("renewal_began"))
        self.renewal_ended = tuple(each.renewal_ended for each in who_overrides("renewal_ended"))
        self.token_event = tuple(each.token_event for each in who_overrides("token_event"))
        self.takes_context = any(each.takes_context for each in listeners)
        self.context_upstream = next((each.context_upstream for each in who_overrides("context_upstream")), None)

    def login_changed(self, kind: Literal["login", "logout"], detail: str) -> None:
        """Tell of a login or a logout that this process has made itself."""
        for tell in self.token_event:
            tell(TokenEvent(kind=kind, grant="authorization_code", detail=detail))

    @contextmanager
    def waiting(self, exchange: Exchange | None, reason: WaitReason, monotonic: Callable[[], float]) -> Iterator[None]:
        """Record a wait of a request, and tell of its start and its end; there is nothing to tell without a request."""
        if exchange is None:
            yield
            return
        wait = Wait(reason=reason, began=monotonic())
        exchange.waits.append(wait)
        for tell in self.wait_began:
            tell(exchange, wait)
        try:
            yield
        finally:
            wait.ended = monotonic()
            exchange.waited += wait.ended - wait.began
            for tell in self.wait_ended:
                tell(exchange, wait)

    def close(self) -> None:
        """Tell every listener that nothing more will happen."""
        for listener in self.listeners:
            listener.close()
