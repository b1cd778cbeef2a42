"""Start of tracing: nothing of OpenTelemetry is loaded unless the environment asks for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from slproxy.observe.observer import Listener
from slproxy.observe.tracing.wanted import wanted

log = logging.getLogger("slproxy.tracing")


def start_tracing(*, api_url: Callable[[], str]) -> list[Listener]:
    """Return who is to listen for the traces that the environment asks for: one, or nobody.

    ``api_url`` tells where requests go now.
    """
    asked = wanted(os.environ)
    if asked.warning:
        log.warning("no traces: %s", asked.warning)
    if not asked.is_on:
        return []
    try:
        from slproxy.observe.tracing.tracing import Tracing  # noqa: PLC0415  # optional: the extra `otel`
    except ImportError:
        log.warning(
            "no traces: the environment asks for them (OTEL_*), but OpenTelemetry is not installed. Install it with"
            " pip install 'slproxy[otel]', or set OTEL_SDK_DISABLED=true."
        )
        return []
    try:
        return [Tracing(asked, api_url=api_url)]
    except Exception as error:  # noqa: BLE001  # whatever the SDK makes of a variable, requests are served
        log.warning("no traces: OpenTelemetry takes one of its variables (OTEL_*) for wrong (%s)", type(error).__name__)
        return []
