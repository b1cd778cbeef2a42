"""What is taken of a client's trace context."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from slproxy.server.trace_context import LONGEST, trace_context

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ([("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")], (PARENT, "a=1,b=2")),
        ([("traceparent", PARENT), ("traceparent", PARENT)], ("", "")),
        ([("tracestate", "a=1")], ("", "")),
        ([("traceparent", "0" * LONGEST * 2)], ("", "")),
        ([("traceparent", PARENT), ("tracestate", "a=" + "1" * LONGEST)], (PARENT, "")),
    ],
    ids=["of several lines", "two parents", "no parent", "a long parent", "a long state"],
)
def test_a_context_is_taken_where_it_is_clear_and_short(headers: list[tuple[str, str]], taken: tuple[str, str]) -> None:
    assert trace_context(CIMultiDictProxy(CIMultiDict(headers))) == taken
