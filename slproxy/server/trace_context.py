"""Trace context of a client (W3C Trace Context), as its headers have it; whoever takes it checks it."""

from __future__ import annotations

from multidict import CIMultiDictProxy, istr

# Twice what a tracestate has to be passed on of (W3C Trace Context, 3.3.1.5), in characters.
LONGEST = 1024

_PARENT, _STATE = istr("traceparent"), istr("tracestate")


def trace_context(headers: CIMultiDictProxy[str]) -> tuple[str, str]:
    """Return ``traceparent`` and ``tracestate``, of which there may be several lines; nothing where it is unclear.

    Nor what is too long to be read: it would wait in the queue for a collector that hangs.
    """
    parents = headers.getall(_PARENT, ())
    if len(parents) != 1 or len(parents[0]) > LONGEST:
        return "", ""
    state = ",".join(headers.getall(_STATE, ()))
    return parents[0], state if len(state) <= LONGEST else ""
