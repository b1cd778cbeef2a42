"""The life of a request: check, strip, inject, pace, send, learn, cure, answer.

The order can be read from the top: ``handle`` is the recipe, and each rung below it is one concern::

    handle         check the request, strip its headers, answer with what came back
    └ _send        send until there is something to answer with: retries, outermost
      └ _authorized  each attempt with the token of the moment: a 401 renews it, once
        └ _dispatch    inject, pace, one physical send, learn

This module knows neither side of aiohttp: it is given an ``Inbound`` and returns an ``Answer``.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tenacity import RetryCallState

from slproxy import retry
from slproxy.auth import Bearer, Credentials
from slproxy.config import LimitSettings, RetrySettings
from slproxy.errors import BadRequest, Draining, OverBudget, Problem, TooLarge, UpstreamFault, UpstreamUnreachable
from slproxy.forward import cors
from slproxy.forward import headers as header
from slproxy.forward.body import Body
from slproxy.forward.buffered import BufferedReply, buffer_reply
from slproxy.forward.headers import InexactHeaderError
from slproxy.forward.messages import Answer, Inbound, ReplyBody
from slproxy.forward.policy import Place, Policy, check
from slproxy.http import Fields, by_name, size
from slproxy.observe import Exchange
from slproxy.pace import PROBE_TIMEOUT, Pacer, Preferences, RateLimitHeaders, Reservation, parse_preferences
from slproxy.retry import Outcome
from slproxy.upstream import Outbound, Reply, Slot, Upstream

log = logging.getLogger("slproxy.forward")
# What a last attempt has at least, in seconds.
LAST = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """A request that was let in and stripped; each attempt injects what is of its moment."""

    method: str
    target: str
    fields: Fields = field(repr=False)
    body: Body | None = field(repr=False)
    # False where the client said `X-Slproxy-Retry: off`.
    retries: bool
    preferences: Preferences

    @property
    def repeatable(self) -> bool:
        return self.body is None or self.body.repeatable


class Forwarder:
    """Carries requests to the upstream and their replies back."""

    def __init__(
        self,
        *,
        policy: Policy,
        credentials: Credentials,
        upstream: Upstream,
        pacer: Pacer,
        api_url: str,
        retries: RetrySettings,
        limits: LimitSettings,
        own_page: Callable[[str, str], Answer],
        now: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        dice: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._credentials = credentials
        self._upstream = upstream
        self._pacer = pacer
        self._api_url = api_url
        self._retries = retries
        self._limits = limits
        self._own_page = own_page
        self._now, self._monotonic, self._sleep, self._dice = now, monotonic, sleep, dice
        self._via = f"1.1 {policy.pseudonym}"
        self._retry_budget = retry.Budget(retries.budget)
        self.draining = False
        self._ends_at = math.inf

    async def handle(self, inbound: Inbound, exchange: Exchange) -> Answer:
        """Return the answer to one request.

        Raises:
            Problem: the proxy answers itself, as the problem says.
        """
        if size(inbound.headers) > self._limits.max_headers:
            raise TooLarge(f"The header block is over {self._limits.max_headers} bytes.", hint="Send less.", status=431)
        named = by_name(inbound.headers)
        place, target = check(self._policy, method=inbound.method, target=inbound.target, headers=named)
        if place is Place.OWN_PAGE:
            return self._own_page(inbound.method, target.partition("?")[0])
        if place is Place.PREFLIGHT:
            return Answer(
                status=204,
                headers=[*cors.preflight(named, self._policy.methods), ("Proxy-Status", "slproxy")],
                body=b"",
            )
        if self.draining:
            raise Draining(
                "The proxy is shutting down.", hint="Send the request again: another one takes over, or none."
            )
        try:
            fields = header.stripped(inbound.headers)
        except InexactHeaderError as error:
            raise BadRequest(f"The request cannot be passed on exactly: {error}.", hint="Encode the value.") from error
        body = self._body(inbound)
        request = _Request(
            method=inbound.method,
            target=target,
            fields=fields,
            body=body,
            retries=[value.lower() for value in named.get(b"x-slproxy-retry", ())] != [b"off"],
            preferences=parse_preferences(named),
        )
        try:
            reply = await self._send(request, exchange)
            return self._answer(reply, request, exchange, host=named[b"host"][0].decode("latin-1"))
        except BaseException as error:
            if body is not None:
                body.close()
                # A broken client surfaces as a write to the upstream that failed; the blame goes where it belongs.
                if isinstance(error, UpstreamFault) and body.error is not None:
                    raise body.error from error
            if isinstance(error, Problem):
                exchange.remarks = self._pacer.fields()
            raise

    async def fetch(self, target: str) -> ReplyBody:
        """Get something from the API for the proxy itself: with all cures, and without the clients' policy."""
        request = _Request(
            method="GET",
            target=target,
            fields=[("Accept", "application/json")],
            body=None,
            retries=True,
            preferences=Preferences(client="slproxy"),
        )
        return await self._send(request, Exchange(method="GET", path=target, started=self._monotonic()))

    async def _send(self, request: _Request, exchange: Exchange) -> ReplyBody:
        """Send until a reply is the client's to have."""
        self._retry_budget.request(self._monotonic())
        try:
            reply = await self._authorized(request, exchange)
        except UpstreamFault as fault:
            return await self._send_again(request, exchange, fault)
        return reply if retry.is_final(reply.status) else await self._send_again(request, exchange, reply)

    async def _send_again(self, request: _Request, exchange: Exchange, first: Reply | UpstreamFault) -> ReplyBody:
        """Go on from a first attempt that may be worth repeating; what runs out ends in the upstream's own last reply.

        The first attempt stays outside of tenacity's loop, since most requests need no other and the loop costs a tenth
        of a request's time (benchmarks/README.md). Inside, it counts as the first.
        """
        made = [first]
        kept: BufferedReply | None = None
        # Of what may be repeated, a repeat is given up with the time for all of them.
        hurried = False

        async def attempt() -> Reply:
            if not made:
                patience = max(self._time_left(exchange), LAST) if hurried else math.inf
                return await self._authorized(request, exchange, patience=patience)
            outcome = made.pop()
            if isinstance(outcome, UpstreamFault):
                raise outcome
            return outcome

        async def before_wait(state: RetryCallState) -> None:
            nonlocal kept, hurried
            assert state.outcome is not None, "tenacity waits only after an attempt"
            hurried = request.method in retry.REPEATABLE
            if (fault := state.outcome.exception()) is None:
                reply: Reply = state.outcome.result()
                hurried = hurried and reply.status != retry.TOO_MANY
                what = str(reply.status)
                kept = await buffer_reply(reply) or kept
            else:
                what = fault.proxy_error if isinstance(fault, UpstreamFault) else type(fault).__name__
            exchange.wait += state.upcoming_sleep
            when = f"in {state.upcoming_sleep:.2f} s" if exchange.cure is None else "in its turn"
            log.info("%s %s: %s, again %s", exchange.method, exchange.path, what, when)

        next_wait = functools.partial(self._next_wait, request, exchange)
        try:
            last: Reply = await retry.ladder(next_wait, sleep=self._sleep, before_wait=before_wait)(attempt)
        except (UpstreamFault, OverBudget, Draining) as fault:
            # What was kept says that the request was not carried out (429). That is no longer so of one that was lost
            # since and that nobody may repeat.
            if kept is None or (
                isinstance(fault, UpstreamFault) and fault.reached and request.method not in retry.REPEATABLE
            ):
                raise
            return kept
        return last

    def _next_wait(self, request: _Request, exchange: Exchange, outcome: Outcome, attempt: int) -> float | None:
        """Return the seconds to wait before another attempt, or ``None`` when there is to be none."""
        if not request.retries or exchange.attempts >= self._retries.attempts or not request.repeatable:
            return None
        wait = retry.wait_before_next(
            outcome,
            method=request.method,
            attempt=attempt,
            now=self._now(),
            dice=self._dice(),
            max_wait=self._retries.max_wait,
        )
        if exchange.queued and not retry.says_when(outcome):
            wait = 0.0  # the queue knows better
        if (
            wait is None
            or wait > (left := self._time_left(exchange))
            or exchange.wait + wait > request.preferences.max_wait
        ):
            return None
        if exchange.queued:
            exchange.cure = min(left, self._retries.max_wait + PROBE_TIMEOUT)
            return 0.0
        # Only a repeat of what may have cost the upstream work counts: not a refused connection, not a 429.
        costs = outcome.reached and outcome.status != retry.TOO_MANY
        return wait if not costs or self._retry_budget.spend(self._monotonic()) else None

    def drain(self, grace: float) -> None:
        """Take no more requests; those in flight have so many seconds."""
        self.draining = True
        self._ends_at = self._monotonic() + grace

    def _time_left(self, exchange: Exchange) -> float:
        """Return the seconds that are left for all attempts; what pacing has held it is no attempt's fault."""
        now = self._monotonic()
        return min(self._retries.deadline - (now - exchange.started - exchange.held), self._ends_at - now)

    async def _authorized(self, request: _Request, exchange: Exchange, *, patience: float = math.inf) -> Reply:
        """Send with the token of the moment; when it is rejected, once more with a newer one."""
        # Before it is held as well: without a token there is nothing to wait for.
        await self._credentials.bearer()
        try:
            reply, bearer = await self._dispatch(request, exchange, patience=patience)
            if reply.status != 401:
                if retry.is_final(reply.status):
                    self._credentials.mark_verified(bearer)
                return reply
            try:
                newer = await self._credentials.renew(stale=bearer)
            except BaseException:
                reply.close()
                raise
            if newer == bearer:
                return reply
            if not request.repeatable:
                self._credentials.mark_unverified(newer)
                return reply
            reply.close()
            try:
                reply, bearer = await self._dispatch(request, exchange)
            except BaseException:
                self._credentials.mark_unverified(newer)
                raise
            if reply.status == 401:
                self._credentials.mark_ineffective(bearer)
            elif retry.is_final(reply.status):
                self._credentials.mark_verified(bearer)
            return reply
        finally:
            # Of a body in chunks it is known only once it has been read so far.
            exchange.once = request.body is not None and request.body.too_large

    async def _dispatch(
        self, request: _Request, exchange: Exchange, *, patience: float = math.inf
    ) -> tuple[Reply, Bearer]:
        """Pace, inject, make one physical send, and learn from its reply; return the token that it was sent with too.

        The token is taken when it goes: one taken before may expire while the request waits (airbytehq/airbyte#13660).
        """
        # A small body is taken in first, or nobody would see that its client has left while it is held.
        body = None if request.body is None else await request.body.whole() or request.body.chunks
        reservation, slot = await self._turn(request, exchange)
        reached = exchange.queued = False
        try:
            bearer = await self._credentials.bearer()
            outbound = Outbound(
                method=request.method,
                target=request.target,
                headers=header.injected(request.fields, bearer=bearer.token, via=self._via),
                body=body,
            )
            exchange.attempts += 1
            sent = self._monotonic()
            reached = True
            try:
                reply = await self._upstream.send(outbound, slot, response_timeout=patience)
            finally:
                exchange.upstream += self._monotonic() - sent
        except BaseException as error:
            slot.release()
            self._pacer.lost(reservation, reached=error.reached if isinstance(error, UpstreamFault) else reached)
            raise
        exchange.queued = self._pacer.replied(
            reservation, RateLimitHeaders.parse(reply.status, reply.header, now=self._now())
        )
        return reply, bearer

    async def _turn(self, request: _Request, exchange: Exchange) -> tuple[Reservation | None, Slot]:
        """Wait for a turn and for one of the upstream's connections; a turn that is over by then is taken anew."""
        while True:
            reservation = await self._reserved(request, exchange)
            try:
                slot = await self._upstream.slots.acquire()
            except BaseException:
                self._pacer.lost(reservation, reached=False)
                raise
            exchange.wait += slot.waited
            if not self._pacer.is_over(reservation):
                return reservation, slot
            slot.release()
            self._pacer.lost(reservation, reached=False)

    async def _reserved(self, request: _Request, exchange: Exchange) -> Reservation | None:
        """Wait for the budget of one physical send; note how long that took."""
        requeue_timeout, exchange.cure = exchange.cure, None
        reservation = self._pacer.take(
            request.method,
            request.target,
            request.preferences,
            ticket=exchange.place,
            waited=exchange.wait,
            held=exchange.held,
            requeue_timeout=requeue_timeout,
        )
        if reservation is None:
            return None
        exchange.place = reservation.ticket
        if reservation.sent is None:
            try:
                await self._pacer.wait(reservation)
            finally:
                exchange.wait += reservation.waited
                # To be refused by SalesLoft is no fault of the request's: retry.deadline bounds the wait for its cure.
                exchange.held += reservation.waited if requeue_timeout is None else 0.0
        return reservation

    def _answer(self, reply: ReplyBody, request: _Request, exchange: Exchange, *, host: str) -> Answer:
        """Return the upstream's reply as the client gets it: as it came, less what stops here, plus what we say."""
        try:
            fields = header.returning(reply.headers, api_url=self._api_url, host=host)
            reply.reason.encode("utf-8")
        except (InexactHeaderError, UnicodeEncodeError) as error:
            reply.close()
            raise UpstreamUnreachable(
                "SalesLoft's reply has a header that cannot be passed on exactly.",
                reached=True,
                proxy_error="http_protocol_error",
            ) from error
        total = self._monotonic() - exchange.started
        fields.append(("Via", self._via))
        fields.append(
            ("Server-Timing", header.server_timing(total=total, upstream=exchange.upstream, wait=exchange.wait))
        )
        if not any(name.lower() == "ratelimit" for name, _ in fields):
            fields += self._pacer.fields()
        fields += exchange.told_attempts
        return Answer(status=reply.status, reason=reply.reason, headers=fields, body=reply, request_body=request.body)

    def _body(self, inbound: Inbound) -> Body | None:
        if not inbound.has_body or inbound.read is None:
            return None
        return Body(
            inbound.read,
            length=inbound.length,
            memory=self._limits.replay_memory,
            disk=self._limits.replay_disk,
        )
