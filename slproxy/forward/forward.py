"""The life of a request: check, strip, inject, pace, send, learn, cure, answer.

The order can be read from the top: ``handle`` is the recipe, and each function below it is one concern::

    handle           check the request, strip its headers, answer with what came back
    └ _send          send until there is something to answer with: retries, outermost
      └ _authorized  each attempt with the token of the moment: a 401 renews it, once
        └ sender     pace, inject, one physical send, learn (``forward/sender.py``)

Two objects go down with a request: ``Attempts`` steers, and an ``Exchange`` is told what happens. This module knows
neither side of aiohttp: it is given an ``Inbound`` and returns an ``Answer``.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Awaitable, Callable

from slproxy import retry
from slproxy.auth import Credentials
from slproxy.config import LimitSettings, RetrySettings, Via
from slproxy.errors import BadRequest, Draining, OverBudget, Problem, UpstreamFault
from slproxy.forward import cors
from slproxy.forward import headers as header_rules
from slproxy.forward.accepted import AcceptedHeaders, KnownHeaders, accepted, digest_of
from slproxy.forward.answer import passed_on
from slproxy.forward.attempts import Attempts, why_ended
from slproxy.forward.body import Body, ReplayMemory
from slproxy.forward.buffered import buffer_reply
from slproxy.forward.drain import Drain
from slproxy.forward.headers import InexactHeaderError
from slproxy.forward.kept_reply import KeptReply
from slproxy.forward.messages import Answer, AnswerBody, Inbound, ReplyBody, Request
from slproxy.forward.policy import UPSTREAM, Policy, Route, check_all, check_client, check_of, client_of, viewer_of
from slproxy.forward.rules import Client, tell_client
from slproxy.forward.sender import Sender
from slproxy.http import ByName, by_name, http_date
from slproxy.observe import Audit, Exchange, Observer, is_sane, loggable_path, redacted, redacted_target
from slproxy.pace import PROBE_TIMEOUT, Pacer, Preferences
from slproxy.retry import NotRetried, Outcome, RetryBudget
from slproxy.upstream import Reply, Upstream

log = logging.getLogger("slproxy.forward")

# What the proxy asks for itself.
OWN_HEADERS = AcceptedHeaders(
    onward=b"Accept: application/json\r\n", host="", preferences=Preferences(client="slproxy")
)


class Forwarder:
    """Carries requests to the upstream and their replies back."""

    def __init__(
        self,
        *,
        policy: Policy,
        credentials: Credentials,
        upstream: Upstream,
        pacer: Pacer,
        observer: Observer,
        audit: Audit | None,
        api_url: str,
        via: Via,
        sends_context: bool,
        drain: Drain,
        retry_budget: RetryBudget,
        replay_memory: ReplayMemory,
        retry_settings: RetrySettings,
        limits: LimitSettings,
        own_page: Callable[[Inbound, str, bool, ByName, Client | None], Awaitable[Answer]],
        now: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._credentials = credentials
        self._pacer = pacer
        self._observer, self._audit = observer, audit
        self._upstream = upstream
        self._api_url = api_url
        self._retry_settings = retry_settings
        self._limits = limits
        self._own_page = own_page
        self._now, self._monotonic, self._sleep, self._jitter = now, monotonic, sleep, jitter
        self._known = KnownHeaders()
        self._via = f"1.1 {policy.pseudonym}"
        # These outlive a reload: all forwarders that there are share them.
        self._drain, self._retry_budget, self._replay_memory = drain, retry_budget, replay_memory
        self._sender = Sender(
            credentials=credentials,
            upstream=upstream,
            pacer=pacer,
            observer=observer,
            via=self._via if header_rules.sends_via(via, api_url=api_url) else None,
            sends_context=sends_context,
            now=now,
            monotonic=monotonic,
        )

    async def handle(self, inbound: Inbound, exchange: Exchange) -> Answer:
        """Return the answer to one request.

        Raises:
            Problem: the proxy answers itself, as the problem says.
        """
        # The check of another user's request, and of a preflight, depends on more than the headers.
        may_be_known = inbound.other_user is None and inbound.method != "OPTIONS"
        digest = digest_of(inbound.headers)
        asked = self._known.get(digest) if may_be_known else None
        named = by_name(inbound.headers) if asked is None else None
        if (recording := exchange.recording) is not None:
            recording.target = redacted_target(inbound.target)
            if asked is None:
                recording.headers = redacted(inbound.headers)
        route, target = check_of(exchange, self._policy, inbound, named)
        if route is not UPSTREAM:
            return await self._own(route, inbound, target, exchange)
        if self._drain.has_begun:
            raise Draining(
                "The proxy is shutting down.", hint="Send it again, to another instance or once this one has restarted."
            )
        if asked is None:
            try:
                asked = accepted(
                    inbound.headers,
                    named or {},
                    recorded=b"" if recording is None else recording.headers,
                    client=client_of(self._policy, named or {}),
                )
            except InexactHeaderError as error:
                raise BadRequest(
                    f"The request cannot be passed on exactly: {error}.", hint="Encode the value."
                ) from error
        exchange.client, exchange.bulk = asked.preferences.client, asked.preferences.bulk
        if asked.client is not None:
            tell_client(exchange, asked.client)
            check_client(self._policy, asked.client, inbound.method, target, named or {})
        if named is not None and may_be_known:
            self._known.remember(digest, asked)
        self._upstream.mark_used()
        limits, body = self._limits, None
        if inbound.has_body and inbound.read is not None:
            body = Body(
                inbound.read if recording is None else recording.reading(inbound.read),
                length=inbound.length,
                memory=limits.replay_memory,
                disk=limits.replay_disk,
                of_all=self._replay_memory,
            )
        request = Request(inbound.method, target, asked, body, exchange, inbound.client)
        attempts = Attempts(exchange.began)
        if recording is not None:
            recording.asked, recording.via = asked, self._sender.via
        try:
            reply = await self._send(request, attempts)
            return self._answer(reply, request, attempts)
        except BaseException as error:
            attempts.close()
            cause: BaseException = error
            if body is not None:
                body.close()
                # A broken client surfaces as a write to the upstream that failed; the blame goes where it belongs.
                if isinstance(error, UpstreamFault) and body.error is not None:
                    cause = body.error
            if isinstance(cause, Problem):
                told_attempts = attempts.headers(replayable=body is None or not body.too_large)
                cause.headers = (*cause.headers, *told_attempts, *self._pacer.fields())
            if cause is not error:
                raise cause from error
            raise

    def check(self, inbound: Inbound) -> None:
        """Check that a request may be passed on, as ``handle`` does first. Raises Refused."""
        check_all(self._policy, inbound)

    async def _own(self, route: Route, inbound: Inbound, target: str, exchange: Exchange) -> Answer:
        """Return what the proxy answers by itself."""
        client = viewer_of(self._policy, named := by_name(inbound.headers))
        tell_client(exchange, client)
        if route is not Route.PREFLIGHT:
            return await self._own_page(inbound, target, route is Route.OWN_PAGE, named, client)
        own = [("Proxy-Status", "slproxy"), ("Date", http_date(self._now()))]
        return Answer(status=204, headers=[*cors.preflight(named, self._policy.rules.methods), *own], body=b"")

    async def fetch(self, target: str, *, is_check: bool = False) -> ReplyBody:
        """Get a page for the proxy itself, past the clients' policy; ``is_check``: without renewing the token."""
        exchange = Exchange(
            method="GET",
            path=loggable_path(target),
            began=self._monotonic(),
            id=self._observer.request_ids.new(),
            client="slproxy",
        )
        for tell in self._observer.request_began:
            tell(exchange)
        if (recording := exchange.recording) is not None:
            recording.target, recording.asked, recording.via = target, OWN_HEADERS, self._sender.via
        request = Request(
            method="GET",
            target=target,
            asked=OWN_HEADERS,
            body=None,
            exchange=exchange,
            is_check=is_check,
        )
        attempts = Attempts(exchange.began)
        try:
            reply = await self._send(request, attempts)
        except BaseException:
            attempts.close()
            raise
        else:
            exchange.status = reply.status
            return reply
        finally:
            exchange.ended = self._monotonic()
            for tell in self._observer.request_ended:
                tell(exchange)

    # Retries.

    async def _send(self, request: Request, attempts: Attempts) -> ReplyBody:
        """Send until there is a reply that goes to the client."""
        if self._audit is not None and (problem := self._audit.problem()) is not None:
            raise problem
        self._retry_budget.count_request(self._monotonic())
        first: Reply | UpstreamFault
        try:
            first = await self._authorized(request, attempts)
            if first.status not in retry.RETRIED:
                if first.status >= 500:
                    request.exchange.not_retried = NotRetried.STATUS
                return first
        except UpstreamFault as fault:
            first = fault
        # Most requests end above: tenacity's loop costs a tenth of a request's time (benchmarks/README.md).
        try:
            return await retry.retried(
                functools.partial(self._authorized, request, attempts),
                functools.partial(self._next_wait, request, attempts),
                sleep=functools.partial(self._back_off, request.exchange),
                first=first,
                before_wait=functools.partial(self._before_wait, request, attempts),
            )
        except (UpstreamFault, OverBudget, Draining) as fault:
            request.exchange.not_retried = why_ended(fault) or request.exchange.not_retried
            # The buffered reply says that the request was not carried out (429). That is no longer so of one that was
            # lost since and that nobody may repeat.
            is_lost = isinstance(fault, UpstreamFault) and fault.maybe_sent and request.method not in retry.REPEATABLE
            if attempts.buffered is None or is_lost:
                raise
            return attempts.buffered

    def _next_wait(self, request: Request, attempts: Attempts, outcome: Outcome, number: int) -> float | None:
        """Return the seconds to wait before another attempt, or ``None`` when there is to be none."""
        wait = self._wait_or_why_not(request, attempts, outcome, number)
        if not isinstance(wait, NotRetried):
            return wait
        if outcome.status is None or outcome.status in retry.RETRIED or outcome.status >= 500:
            request.exchange.not_retried = wait
        return None

    def _wait_or_why_not(
        self, request: Request, attempts: Attempts, outcome: Outcome, number: int
    ) -> float | NotRetried:
        if not request.asked.may_retry:
            return NotRetried.ASKED
        if not request.replayable:
            return NotRetried.BODY
        if retry.costs_upstream(outcome) and not self._retry_budget.allows_retry(self._monotonic()):
            return NotRetried.BUDGET
        return attempts.next_wait(
            outcome,
            number,
            method=request.method,
            rules=self._retry_settings,
            time_left=self._time_left(attempts),
            max_wait=request.asked.preferences.max_wait,
            now=self._now(),
            jitter=self._jitter(),
        )

    async def _before_wait(
        self, request: Request, attempts: Attempts, result: Reply | UpstreamFault, outcome: Outcome, wait: float
    ) -> None:
        """Discard a result, and prepare another attempt after ``wait`` seconds."""
        # Before anything is awaited: the budget that was looked at must be the one that is spent.
        if retry.costs_upstream(outcome):
            self._retry_budget.count_retry(self._monotonic())
        # The time for all attempts ends one that may be repeated; a refusal took none of it.
        attempts.deadline_applies = request.method in retry.REPEATABLE and outcome.status != retry.TOO_MANY_REQUESTS
        if attempts.requeued:
            attempts.requeue_timeout = min(self._time_left(attempts), self._retry_settings.max_wait + PROBE_TIMEOUT)
        if isinstance(result, UpstreamFault):
            attempts.reason = result.proxy_error
        else:
            attempts.reason = str(result.status)
            attempts.buffered = await buffer_reply(result) or attempts.buffered
        attempts.note_wait(outcome, wait)
        when = "in its turn" if attempts.requeued else f"in {wait:.2f} s"
        told = (request.method, request.exchange.path, attempts.reason, when)
        log.info("%s %s: %s, retrying %s", *told, extra={"request_id": request.exchange.id})

    async def _back_off(self, exchange: Exchange, seconds: float) -> None:
        if not seconds:
            await self._sleep(0.0)
            return
        with self._observer.waiting(exchange, "backoff", self._monotonic):
            await self._sleep(seconds)

    def _time_left(self, attempts: Attempts) -> float:
        return attempts.time_left(
            self._monotonic(), deadline=self._retry_settings.deadline, drained_at=self._drain.ends_at
        )

    # The token.

    async def _authorized(self, request: Request, attempts: Attempts) -> Reply:
        """Send with the token of the moment; when it is rejected, once more with a newer one."""
        # Before it waits as well: without a token there is nothing to wait for.
        if self._credentials.current() is None:
            await self._credentials.bearer(request.exchange)
        reply, bearer = await self._sender.send(request, attempts, response_timeout=self._response_timeout(attempts))
        if reply.status != 401:
            if reply.status not in retry.RETRIED:
                self._credentials.mark_verified(bearer)
            return reply
        newer = await self._credentials.renew(stale=bearer, is_check=request.is_check, exchange=request.exchange)
        if newer == bearer:
            request.exchange.not_retried = NotRetried.NOT_RENEWED
            return reply
        if not request.replayable:
            request.exchange.not_retried = NotRetried.BODY
            self._credentials.mark_unverified(newer)
            return reply
        reply.close()
        attempts.reason = "401"
        request.exchange.renewals += 1
        try:
            reply, bearer = await self._sender.send(
                request, attempts, response_timeout=self._response_timeout(attempts)
            )
        except BaseException:
            self._credentials.mark_unverified(newer)
            raise
        if reply.status == 401:
            request.exchange.not_retried = NotRetried.REJECTED_AGAIN
            self._credentials.mark_ineffective(bearer)
        elif reply.status not in retry.RETRIED:
            self._credentials.mark_verified(bearer)
        return reply

    def _response_timeout(self, attempts: Attempts) -> float:
        return attempts.response_timeout(self._time_left(attempts)) if attempts.deadline_applies else math.inf

    # The answer.

    def _answer(self, reply: ReplyBody, request: Request, attempts: Attempts) -> Answer:
        """Return the upstream's reply as the client gets it: as it came, less what stops here, plus what we say."""
        try:
            passed, names, stopped = passed_on(
                reply, asked=request.asked, api_url=self._api_url, tokens=attempts.tokens
            )
        except Problem:
            reply.close()
            raise
        exchange, total = request.exchange, self._monotonic() - attempts.began
        answered: AnswerBody = reply
        if (recording := exchange.recording) is not None:
            kept = recording.replied(reply.headers, stopped)
            answered = reply if kept is None else KeptReply(reply, kept)
        timing = header_rules.server_timing(total=total, upstream=exchange.upstream, wait=exchange.waited)
        own = [("Via", self._via), ("Server-Timing", timing)]
        if has_id := b"x-request-id" in names:
            given = reply.header("X-Request-Id") or ""
            exchange.upstream_id = given if is_sane(given) else ""
        if b"ratelimit" not in names:
            own += self._pacer.fields()
        body = request.body
        if attempts.sent > 1 or body is not None:
            own += attempts.headers(replayable=body is None or not body.too_large)
        has_length = b"content-length" in names
        return Answer(reply.status, own, answered, reply.reason, passed, has_length, has_id, body)
