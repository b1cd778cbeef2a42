"""Spans of a request, made of its record once it has ended, by OpenTelemetry's conventions for HTTP spans.

1. Nothing in them is secret: no query, no header's value, no body.
2. Names are few: the method, and the path's template where it is known. The path itself is an attribute.
3. A request belongs to the client's trace, where the client sent one (W3C Trace Context); the sampler decides.

Times are the record's; ``offset`` is what Unix time is ahead of them by, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import slproxy
from slproxy.observe.exchange import Attempt, Exchange, Renewal, Wait
from slproxy.operations import OTHER

SCOPE = InstrumentationScope("slproxy", slproxy.__version__)
RENEWAL = "renew token"
# Any other is `_OTHER`, and `HTTP` in a name (Semantic conventions for HTTP spans).
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})

Attributes = dict[str, str | int]


@dataclass(kw_only=True, eq=False, slots=True)
class Trace:
    """What is known of a request's spans before it has ended: its own context, and its parent's.

    ``sent`` has those of the attempts that SalesLoft was told, ``renewals`` those that its waits were for.
    """

    context: SpanContext
    parent: SpanContext | None
    sent: dict[Attempt, SpanContext] = field(default_factory=dict)
    renewals: dict[Wait, SpanContext] = field(default_factory=dict)


class Spans:
    """Makes the spans of one process, whose attempts go to what ``api_url`` tells."""

    def __init__(self, *, resource: Resource, sampler: Sampler, ids: IdGenerator, api_url: Callable[[], str]) -> None:
        self._resource, self._sampler, self._ids, self._api_url = resource, sampler, ids, api_url

    def begin_request(self, exchange: Exchange) -> Trace:
        """Begin the trace of a request, or go on with the client's."""
        traceparent, tracestate = exchange.trace_context
        carrier = {"traceparent": traceparent, "tracestate": tracestate}
        parent = TraceContextTextMapPropagator().extract(carrier) if traceparent else None
        return self._begin(exchange.method, SpanKind.SERVER, parent)

    def begin_renewal(self) -> Trace:
        """Begin the trace of a renewal: its own, since many requests may wait for it, or none."""
        return self._begin(RENEWAL, SpanKind.INTERNAL, None)

    def _begin(self, name: str, kind: SpanKind, inherited: Context | None) -> Trace:
        parent = None if inherited is None else get_current_span(inherited).get_span_context()
        if parent is not None and not parent.is_valid:
            parent = inherited = None
        trace_id = self._ids.generate_trace_id() if parent is None else parent.trace_id
        result = self._sampler.should_sample(inherited, trace_id, name, kind)
        flags = TraceFlags(TraceFlags.SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        context = SpanContext(
            trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=flags, trace_state=result.trace_state
        )
        return Trace(context=context, parent=parent)

    def child_of(self, trace: Trace) -> SpanContext:
        """Return the context of another span in a trace."""
        of = trace.context
        return SpanContext(
            of.trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=of.trace_flags,
            trace_state=of.trace_state,
        )

    def of_request(self, exchange: Exchange, begun: Trace | None, *, offset: float) -> list[ReadableSpan]:
        """Return the spans of a request that has ended: its own, and one for each attempt and wait, or none at all."""
        trace = begun or self.begin_request(exchange)
        if not trace.context.trace_flags.sampled:
            return []
        failed = exchange.aborted or exchange.error or (str(exchange.status) if exchange.status >= 500 else "")
        attributes: Attributes = {
            **_asked(exchange),
            "url.scheme": "http",
            "url.path": exchange.path,
            "http.response.status_code": exchange.status,
            "slproxy.request_id": exchange.id,
        }
        if exchange.operation != OTHER:
            attributes["http.route"] = exchange.operation
        if exchange.client:
            attributes["slproxy.client"] = exchange.client
        if exchange.not_retried:
            attributes["slproxy.not_retried"] = exchange.not_retried
        own = self._span(
            _name(exchange),
            trace.context,
            parent=trace.parent,
            kind=SpanKind.SERVER,
            times=(exchange.began + offset, exchange.ended + offset),
            attributes=attributes,
            failed=failed,
            # What is wrong with a request is not an error of the server (the conventions, Status).
            is_error=bool(exchange.aborted) or exchange.status >= 500,
        )
        return [
            own,
            *(self._of_attempt(exchange, number, trace, offset) for number in range(len(exchange.attempts))),
            *(self._of_wait(wait, trace, offset) for wait in exchange.waits),
        ]

    def _of_attempt(self, exchange: Exchange, number: int, trace: Trace, offset: float) -> ReadableSpan:
        """Return the span of a physical send, up to the head of its reply."""
        attempt, api_url = exchange.attempts[number], self._api_url()
        api = urlsplit(api_url)
        attributes: Attributes = {
            **_asked(exchange),
            "server.address": api.hostname or "",
            "server.port": api.port or (443 if api.scheme == "https" else 80),
            "url.full": api_url + exchange.path,
        }
        if number:
            attributes["http.request.resend_count"] = number
            attributes["slproxy.retry_reason"] = attempt.reason
        if attempt.cost is not None:
            attributes["slproxy.cost"] = attempt.cost
        failed = ""
        if attempt.status is None:
            failed = attempt.fault or exchange.aborted or "_OTHER"
        else:
            attributes["http.response.status_code"] = attempt.status
            failed = str(attempt.status) if attempt.status >= 400 else ""
        return self._span(
            _name(exchange),
            trace.sent.get(attempt) or self.child_of(trace),
            parent=trace.context,
            kind=SpanKind.CLIENT,
            times=(attempt.began + offset, attempt.ended + offset),
            attributes=attributes,
            failed=failed,
        )

    def _of_wait(self, wait: Wait, trace: Trace, offset: float) -> ReadableSpan:
        renewal = trace.renewals.get(wait)
        return self._span(
            f"wait: {wait.reason}",
            self.child_of(trace),
            parent=trace.context,
            times=(wait.began + offset, wait.ended + offset),
            attributes={},
            links=[] if renewal is None else [renewal],
        )

    def of_renewal(
        self, renewal: Renewal, trace: Trace, *, waited: Sequence[SpanContext], offset: float
    ) -> list[ReadableSpan]:
        """Return the span of a renewal that has ended, linked to the requests that waited for it, or none."""
        if not trace.context.trace_flags.sampled:
            return []
        attributes: Attributes = {"slproxy.renewal.reason": renewal.reason, "slproxy.renewal.outcome": renewal.outcome}
        times = (renewal.began + offset, renewal.ended + offset)
        failed = "renewal failed" if renewal.has_failed else ""
        return [
            self._span(
                RENEWAL, trace.context, parent=None, times=times, attributes=attributes, failed=failed, links=waited
            )
        ]

    def _span(
        self,
        name: str,
        context: SpanContext,
        *,
        parent: SpanContext | None,
        times: tuple[float, float],
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: str = "",
        is_error: bool = True,
        links: Sequence[SpanContext] = (),
    ) -> ReadableSpan:
        """Return a span; what ``failed`` names is the type of its error."""
        if failed:
            attributes["error.type"] = failed
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            links=[Link(each) for each in links],
            kind=kind,
            status=Status(StatusCode.ERROR if failed and is_error else StatusCode.UNSET),
            start_time=round(times[0] * 1e9),
            end_time=round(times[1] * 1e9),
            instrumentation_scope=SCOPE,
        )


def _asked(exchange: Exchange) -> Attributes:
    return {"http.request.method": exchange.method if exchange.method in METHODS else "_OTHER"}


def _name(exchange: Exchange) -> str:
    method = exchange.method if exchange.method in METHODS else "HTTP"
    return method if exchange.operation == OTHER else f"{method} {exchange.operation}"
