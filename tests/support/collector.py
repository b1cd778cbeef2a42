"""An OpenTelemetry collector, as far as it takes traces: a real HTTP server that decodes what it gets."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.scripted import ScriptedUpstream
from tests.support.waiting import until


@dataclass(frozen=True)
class Received:
    """A span, in plain values; ids are hexadecimal, times are Unix nanoseconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, str | int]
    links: list[str]
    is_error: bool
    service: str


def _received(span: Span, service: str) -> Received:
    return Received(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes={
            each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
            for each in span.attributes
        },
        links=[each.span_id.hex() for each in span.links],
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        service=service,
    )


class Collector(ScriptedUpstream):
    """Takes what is sent to ``/v1/traces``, and remembers it."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that have traces sent here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    @property
    def spans(self) -> list[Received]:
        """All spans that came."""
        found: list[Received] = []
        for message in self.seen:
            assert (message.head.target, message.head.get("Content-Type")) == ("/v1/traces", "application/x-protobuf")
            for group in ExportTraceServiceRequest.FromString(message.body).resource_spans:
                (service,) = [
                    each.value.string_value for each in group.resource.attributes if each.key == "service.name"
                ]
                found += [_received(span, service) for scope in group.scope_spans for span in scope.spans]
        return found

    async def trace(self, *, path: str, spans: int) -> list[Received]:
        """Wait until a request for ``path`` is here with so many spans; return them, its own first."""

        def of_request() -> list[Received]:
            found = self.spans
            own = next((each for each in found if each.attributes.get("url.path") == path), None)
            return [] if own is None else [own, *(each for each in found if each.parent == own.id)]

        await until(lambda: len(of_request()) == spans)
        return of_request()
