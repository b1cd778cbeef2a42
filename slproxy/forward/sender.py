"""Sender: one physical send of a request; paces, injects, sends, and learns from the reply.

What a send takes is given back wherever it ends: its reservation is settled or lost, its slot belongs to the reply or
is free, and the reply belongs to ``Attempts``, which closes it unless it becomes the answer.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable

from slproxy.auth import Bearer, Credentials
from slproxy.errors import Problem, UpstreamFault
from slproxy.forward import headers as header_rules
from slproxy.forward.attempts import Attempts
from slproxy.forward.messages import Request
from slproxy.observe import Attempt, Exchange, Observer
from slproxy.pace import Pacer, RateLimitHeaders, Reservation
from slproxy.upstream import Outbound, Reply, Slot, Upstream


class Sender:
    """Sends requests, each when it is its turn."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        upstream: Upstream,
        pacer: Pacer,
        observer: Observer,
        via: str | None,
        sends_context: bool,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._credentials = credentials
        self._upstream, self._slots = upstream, upstream.slots
        self._pacer = pacer
        self._observer = observer
        self.via = via
        self._sends_context = sends_context
        # What was injected last, and the token in it: the same for many requests.
        self._injected = (Bearer("", 0), b"")
        self._now, self._monotonic = now, monotonic

    async def send(self, request: Request, attempts: Attempts, *, response_timeout: float) -> tuple[Reply, Bearer]:
        """Pace, inject, send once, and learn from the reply; return the token that it was sent with too.

        The token is read at each send: one read earlier may expire while the request waits (airbytehq/airbyte#13660).

        Raises:
            ClientLeft: there is nobody left to send it for.
        """
        # A small body is read first: it goes out in one write, and who dribbles it holds no place.
        body = None if request.body is None else await request.body.whole() or functools.partial(_streamed, request)
        reservation, slot = await self._wait_for_turn(request, attempts)
        attempts.refusal, has_begun, is_settled = None, False, False
        attempt: Attempt | None = None

        def before_first_byte() -> None:
            nonlocal has_begun
            if request.client is not None:
                request.client.begin_sending(waited=self._monotonic() - request.exchange.began)
            has_begun = True

        try:
            bearer = self._credentials.current() or await self._credentials.bearer(request.exchange)
            attempts.sent += 1
            attempts.tokens.add(bearer.token)
            attempt = Attempt(self._monotonic(), attempts.reason)
            self._attempt_began(request.exchange, attempt)
            onward = request.asked.onward
            if self._sends_context and self._observer.context_upstream is not None:
                context = self._observer.context_upstream(request.exchange, attempt)
                onward = header_rules.with_context(onward, context)
            outbound = Outbound(request.method, request.target, onward + self._own_headers(bearer), body)
            reply = attempts.reply = await self._upstream.send(
                outbound, slot, response_timeout=response_timeout, before_first_byte=before_first_byte
            )
            rate_limit = RateLimitHeaders.parse(reply.status, reply.first, now=self._now())
            is_settled = True
            attempts.refusal = self._pacer.replied(reservation, rate_limit, target=request.target)
            attempt.status, attempt.cost = reply.status, rate_limit.cost
        except BaseException as error:
            slot.release()
            if not is_settled:
                maybe_sent = error.maybe_sent if isinstance(error, UpstreamFault) else has_begun
                self._pacer.lost(reservation, maybe_sent=maybe_sent)
            if attempt is not None:
                attempt.fault = error.proxy_error if isinstance(error, Problem) else ""
            if isinstance(error, UpstreamFault) and request.client is not None:
                request.client.end_sending()  # another send may follow
            raise
        finally:
            if attempt is not None:
                self._attempt_ended(request.exchange, attempt)
        if request.client is not None:
            request.client.end_sending()
        return reply, bearer

    def _own_headers(self, bearer: Bearer) -> bytes:
        known, lines = self._injected
        if bearer is not known:
            lines = header_rules.injected(bearer=bearer.token, via=self.via)
            self._injected = bearer, lines
        return lines

    def _attempt_began(self, exchange: Exchange, attempt: Attempt) -> None:
        exchange.attempts.append(attempt)
        for tell in self._observer.attempt_began:
            tell(exchange, attempt)

    def _attempt_ended(self, exchange: Exchange, attempt: Attempt) -> None:
        attempt.ended = self._monotonic()
        exchange.upstream += attempt.ended - attempt.began
        for tell in self._observer.attempt_ended:
            tell(exchange, attempt)

    async def _wait_for_turn(self, request: Request, attempts: Attempts) -> tuple[Reservation | None, Slot]:
        """Wait for the rate limit and for a connection; a reservation that a 429 has overtaken is made anew."""
        while True:
            requeue_timeout, attempts.requeue_timeout = attempts.requeue_timeout, None
            reservation = self._pacer.take(
                request.method,
                request.target,
                request.asked.preferences,
                ticket=attempts.ticket,
                waited=attempts.waited,
                held=attempts.paced,
                requeue_timeout=requeue_timeout,
            )
            has_waited = False
            if reservation is not None:
                attempts.ticket = reservation.ticket
                has_waited = reservation.sent is None
                if has_waited:
                    # `retry.deadline` counts the wait of a request that SalesLoft has refused, and no other wait here.
                    await self._queue(request, attempts, reservation, is_paced=requeue_timeout is None)
            slot: Slot | None = None
            try:
                slot = self._slots.take() or await self._wait_for_slot(request)
                attempts.waited += slot.waited
                if not (has_waited or slot.waited) or not self._pacer.is_revoked(reservation):
                    return reservation, slot
            except BaseException:
                self._give_back(reservation, slot)
                raise
            self._give_back(reservation, slot)

    def _give_back(self, reservation: Reservation | None, slot: Slot | None) -> None:
        """Give back what was taken for a send that does not begin."""
        if slot is not None:
            slot.release()
        self._pacer.lost(reservation, maybe_sent=False)

    async def _wait_for_slot(self, request: Request) -> Slot:
        with self._observer.waiting(request.exchange, "connection", self._monotonic):
            return await self._slots.acquire()

    async def _queue(self, request: Request, attempts: Attempts, reservation: Reservation, *, is_paced: bool) -> None:
        try:
            with self._observer.waiting(request.exchange, "rate limit", self._monotonic):
                await self._pacer.wait(reservation)
        finally:
            attempts.waited += reservation.waited
            if is_paced:
                attempts.paced += reservation.waited


async def _streamed(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes, and its last piece only for a client that is there: a part of a request is none.

    A large body may have hidden that its client had left: its end comes behind all of it.
    """
    assert request.body is not None, "there is a body to stream"
    async for chunk in request.body.chunks():
        if request.body.has_ended and request.client is not None:
            request.client.begin_last_piece()
        yield chunk
    if request.client is not None:
        request.client.begin_last_piece()
