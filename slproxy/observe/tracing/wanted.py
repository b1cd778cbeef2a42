"""What the environment asks for: OpenTelemetry's own variables decide whether there are traces, and where they go.

The names and their defaults are those of its specification (Environment Variable Specification; OpenTelemetry Protocol
Exporter). What only its SDK reads, such as ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_TRACES_SAMPLER``, is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

# The protocol of the exporter that the extra installs, and the default of the specification.
PROTOCOL = "http/protobuf"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Whether traces are wanted, and from where on: ``host`` has the address of the collector, without credentials.

    ``warning`` says why there are none although something asks for them. ``takes_context``: a client's ``traceparent``
    makes its request a part of the client's trace. They are sent ``batch`` requests at a time, and at least once in
    ``delay`` seconds; ``capacity`` are kept until then.
    """

    host: str = ""
    warning: str = ""
    takes_context: bool = True
    delay: float = 5.0
    batch: int = 512
    capacity: int = 2048

    @property
    def is_on(self) -> bool:
        """Whether there are to be traces."""
        return bool(self.host)


def wanted(environ: Mapping[str, str]) -> Wanted:
    """Return what the environment asks for. An empty variable is one that is not set; no value is ever shown."""

    def first(*names: str) -> str:
        return next((value for name in names if (value := environ.get(name, "").strip())), "")

    endpoint = first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    exporters = _listed(first("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none"))
    if first("OTEL_SDK_DISABLED").lower() == "true" or exporters == ["none"]:
        return Wanted()
    if exporters != ["otlp"]:
        return Wanted(warning="OTEL_TRACES_EXPORTER names another exporter than otlp, the only one that slproxy has.")
    if first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") not in ("", PROTOCOL):
        return Wanted(
            warning=f"OTEL_EXPORTER_OTLP_PROTOCOL asks for another protocol than {PROTOCOL}, the only one that slproxy"
            " speaks (a collector has it on port 4318)."
        )
    host = _host(endpoint or "http://localhost:4318")
    if not host:
        return Wanted(warning="OTEL_EXPORTER_OTLP_ENDPOINT is no URL such as http://localhost:4318.")
    propagators = _listed(first("OTEL_PROPAGATORS") or "tracecontext")
    capacity = _number(first("OTEL_BSP_MAX_QUEUE_SIZE"), 2048)
    return Wanted(
        host=host,
        takes_context="tracecontext" in propagators,
        delay=_number(first("OTEL_BSP_SCHEDULE_DELAY"), 5000) / 1000,
        batch=min(_number(first("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), 512), capacity),
        capacity=capacity,
    )


def _listed(value: str) -> list[str]:
    return [name.strip().lower() for name in value.split(",") if name.strip()]


def _number(value: str, default: int) -> int:
    return int(value) if value.isascii() and value.isdigit() and int(value) else default


def _host(endpoint: str) -> str:
    """Return host and port of an endpoint, less a user and password; nothing where it is none."""
    try:
        parts = urlsplit(endpoint)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    host = parts.hostname or ""
    return f"[{host}]{port}" if ":" in host else f"{host}{port}" if host and parts.scheme in ("http", "https") else ""
