"""Trace context of a client (W3C Trace Context), as its headers have it; whoever takes it checks it."""

from __future__ import annotations

from multidict import CIMultiDictProxy, istr

_PARENT, _STATE = istr("traceparent"), istr("tracestate")


def trace_context(headers: CIMultiDictProxy[str]) -> tuple[str, str]:
    """Return ``traceparent`` and ``tracestate``, of which there may be several lines; nothing where it is unclear."""
    parents = headers.getall(_PARENT, ())
    return (parents[0], ",".join(headers.getall(_STATE, ()))) if len(parents) == 1 else ("", "")
