"""Tracing: tells an OpenTelemetry collector of each request, its attempts and waits, and of renewals.

A request costs what it takes to put its record into a queue; a thread makes the spans and sends them (``span_queue``).
Only what others are told before it ends, SalesLoft or a renewal that it waits for, is made on the way.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import slproxy
from slproxy.http import Fields
from slproxy.observe.exchange import Attempt, Exchange, Renewal, Wait
from slproxy.observe.observer import Listener
from slproxy.observe.tracing.span_queue import SpanQueue
from slproxy.observe.tracing.spans import Spans, Trace
from slproxy.observe.tracing.wanted import Wanted

log = logging.getLogger("slproxy.tracing")

# For how long the end of the program waits for what is not exported yet, in seconds.
FLUSH_TIMEOUT = 2.0


class _Resource(Resource):
    """One whose hash is known: the exporter asks for it at each span, and it takes a fifth of the time of all."""

    def __init__(self, of: Resource) -> None:
        super().__init__(of.attributes, of.schema_url)
        self._known = super().__hash__()

    def __hash__(self) -> int:
        return self._known


class Tracing(Listener):
    """Makes traces, as the environment asks: what is not in ``wanted`` the SDK reads there itself."""

    def __init__(self, wanted: Wanted, *, api_url: Callable[[], str]) -> None:
        # It quotes what it is given, a header with a key in it too.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
        self.takes_context = wanted.takes_context
        ours = Resource.create({"service.name": "slproxy", "service.version": slproxy.__version__})
        resource = ours.merge(OTELResourceDetector().detect())  # what the environment says goes before it
        self._spans = Spans(
            resource=_Resource(resource),
            sampler=TracerProvider(shutdown_on_exit=False).sampler,
            ids=RandomIdGenerator(),
            api_url=api_url,
        )
        self._answered = 0
        session = requests.Session()
        session.hooks["response"].append(self._note)
        self._exporter = OTLPSpanExporter(session=session)
        # Those that have begun before their requests ended; and who waits for a renewal now.
        self._begun: dict[Exchange, Trace] = {}
        self._waiting: dict[Wait, Exchange] = {}
        self._renewals: dict[Renewal, Trace] = {}
        self._queue: SpanQueue[Callable[..., Sequence[ReadableSpan]]] = SpanQueue(
            self._export, host=wanted.host, delay=wanted.delay, batch=wanted.batch, capacity=wanted.capacity
        )
        log.info("traces go to %s", wanted.host)

    def request_ended(self, exchange: Exchange) -> None:
        """Hand over the record of a request; an orchestrator's probes are no traces."""
        trace = self._begun.pop(exchange, None) if self._begun else None
        if not exchange.is_probe:
            kept = exchange.recording
            if kept is not None and (kept.request_body is not None or kept.reply_body is not None):
                exchange = _bare(exchange)
            self._queue.put(functools.partial(self._spans.of_request, exchange, trace))

    def wait_began(self, exchange: Exchange, wait: Wait) -> None:
        """Note who waits for a renewal."""
        if wait.reason == "token":
            self._waiting[wait] = exchange

    def wait_ended(self, exchange: Exchange, wait: Wait) -> None:  # noqa: ARG002  # a listener's signature
        """Note who waits no more."""
        self._waiting.pop(wait, None)

    def renewal_began(self, renewal: Renewal) -> None:
        """Begin a trace of its own: many requests may wait for it, or none."""
        self._renewals[renewal] = self._spans.begin_renewal()

    def renewal_ended(self, renewal: Renewal) -> None:
        """Hand over the record of a renewal, linked to those who waited for it, and they to it."""
        trace, waited = self._renewals.pop(renewal), []
        for wait, exchange in self._waiting.items():
            request = self._begin(exchange)
            request.renewals[wait] = trace.context
            waited.append(request.context)
        self._queue.put(functools.partial(self._spans.of_renewal, renewal, trace, waited=waited))

    def context_upstream(self, exchange: Exchange, attempt: Attempt) -> Fields:
        """Return the trace context of an attempt, as SalesLoft gets it."""
        trace, carrier = self._begin(exchange), dict[str, str]()
        context = trace.sent[attempt] = self._spans.child_of(trace)
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(NonRecordingSpan(context)))
        return list(carrier.items())

    def close(self) -> None:
        """Export what is left, within ``FLUSH_TIMEOUT``."""
        self._queue.close(FLUSH_TIMEOUT)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _begin(self, exchange: Exchange) -> Trace:
        if (trace := self._begun.get(exchange)) is None:
            trace = self._begun[exchange] = self._spans.begin_request(exchange)
        return trace

    # In the thread.

    def _export(self, batch: Sequence[Callable[..., Sequence[ReadableSpan]]]) -> str:
        """Export what has ended; return why the collector did not take it, or nothing."""
        offset, self._answered = time.time() - time.monotonic(), 0
        try:
            spans = [span for make in batch for span in make(offset=offset)]
            if not spans or self._exporter.export(spans) is SpanExportResult.SUCCESS:
                return ""
        except Exception:
            # The outermost frame of the thread.
            log.exception("a defect in the export of traces")
            return "a defect"
        return f"it answers {self._answered}" if self._answered else "no answer"

    def _note(self, response: requests.Response, **_: object) -> None:
        self._answered = response.status_code


def _bare(exchange: Exchange) -> Exchange:
    """Return what spans are made of: not the bodies, which may be large, and are limited where they are kept."""
    return Exchange(
        method=exchange.method,
        path=exchange.path,
        began=exchange.began,
        ended=exchange.ended,
        id=exchange.id,
        client=exchange.client,
        status=exchange.status,
        attempts=exchange.attempts,
        waits=exchange.waits,
        error=exchange.error,
        aborted=exchange.aborted,
        not_retried=exchange.not_retried,
        trace_context=exchange.trace_context,
    )
