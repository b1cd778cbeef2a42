"""What the environment asks for, by OpenTelemetry's variables."""

from __future__ import annotations

import pytest

from slproxy.observe.tracing.wanted import Wanted, wanted

BASE, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {BASE: ""},
        {"OTEL_TRACES_EXPORTER": "none", BASE: "http://c:4318"},
        {"OTEL_SDK_DISABLED": "True", BASE: "http://c:4318"},
        {"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"},
    ],
    ids=["nothing", "an empty variable", "no exporter", "the SDK disabled", "what asks for no traces by itself"],
)
def test_without_a_collector_there_are_no_traces_and_no_warning(environ: dict[str, str]) -> None:
    assert wanted(environ) == Wanted()


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({BASE: "http://collector:4318"}, "collector:4318"),
        ({BASE: "http://collector:4318", TRACES: "https://jane:secret@other/v1/traces?key=secret"}, "other"),
        ({BASE: "http://[::1]:4318/"}, "[::1]:4318"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "localhost:4318"),
        ({"OTEL_TRACES_EXPORTER": " OTLP ", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "localhost:4318"),
        ({BASE: "http://c:4318", "OTEL_SDK_DISABLED": "false"}, "c:4318"),
    ],
    ids=["a collector", "one for traces, with credentials", "IPv6", "by default", "in other letters", "not disabled"],
)
def test_a_collector_is_called_by_host_and_port(environ: dict[str, str], host: str) -> None:
    asked = wanted(environ)
    assert (asked.host, asked.is_on, asked.warning) == (host, True, "")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, "OTEL_TRACES_EXPORTER"),
        ({BASE: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        (
            {
                BASE: "http://c:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            "http/protobuf",
        ),
        ({BASE: "collector:4318"}, "http://localhost:4318"),
        ({BASE: "http:///v1"}, "http://localhost:4318"),
        ({BASE: "http://c:port"}, "http://localhost:4318"),
    ],
    ids=["another exporter", "two", "gRPC", "gRPC for traces", "no scheme", "no host", "no port"],
)
def test_what_cannot_be_done_is_a_warning_and_shows_no_value(environ: dict[str, str], named: str) -> None:
    asked = wanted(environ)
    assert not asked.is_on
    assert named in asked.warning
    assert not any(value in asked.warning for value in environ.values() if value != "http/protobuf")


@pytest.mark.parametrize(
    ("propagators", "takes"), [("", True), ("tracecontext,baggage", True), ("none", False), ("b3", False)]
)
def test_a_client_s_trace_is_taken_where_the_propagators_say_so(propagators: str, takes: bool) -> None:
    assert wanted({BASE: "http://c:4318", "OTEL_PROPAGATORS": propagators}).takes_context is takes


def test_the_batches_are_those_of_the_environment_where_it_says_numbers() -> None:
    asked = wanted(
        {BASE: "http://c:4318", "OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"}
        | {"OTEL_BSP_MAX_QUEUE_SIZE": "many"}
    )
    assert (asked.delay, asked.batch, asked.capacity) == (0.2, 512, 2048)
    assert wanted({BASE: "http://c:4318", "OTEL_BSP_MAX_QUEUE_SIZE": "9"}).batch == 9, "a batch fits into the queue"
