"""Preferences: what a client's headers ask of pacing. That the proxy reads them is shown in test_pace."""

from __future__ import annotations

import math

import pytest

from slproxy.http import by_name
from slproxy.pace.preferences import Preferences, parse_preferences


def parsed(*lines: str | bytes) -> Preferences:
    headers = [line if isinstance(line, bytes) else line.encode("utf-8") for line in lines]
    split = (line.partition(b":") for line in headers)
    return parse_preferences(by_name([(name, value.strip()) for name, _, value in split]))


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (("Prefer: wait=1",), 1.0),
        (("Prefer: wait=0",), 0.0),
        (('prefer: respond-async, wait="1"',), 1.0),
        (("PREFER: WAIT = 1",), 1.0),
        (("Prefer: wait=1; strict",), 1.0),
        (("Prefer: respond-async", "Prefer: wait=2"), 2.0),
        (("Prefer: wait=2, wait=600",), 2.0),
        (("Prefer: return=minimal, wait=001, junk",), 1.0),
        (('Prefer: x="a,wait=1,b", wait=7',), 7.0),
    ],
    ids=lambda value: " | ".join(value) if isinstance(value, tuple) else None,
)
def test_the_longest_wait(lines: tuple[str, ...], seconds: float) -> None:
    assert parsed(*lines).max_wait == seconds


@pytest.mark.parametrize(
    "prefer",
    ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=1e0", "wait=99999999999999999999", "await=1", "",
     "handling=lenient; wait=1", "wait=\u0661", ",,;=", "wait='1'", 'x="a,wait=1,b"'],
)  # fmt: skip
def test_a_preference_that_is_none_is_not_one(prefer: str) -> None:
    assert parsed(f"Prefer: {prefer}").max_wait == math.inf


@pytest.mark.parametrize(
    ("lines", "bulk"),
    [
        ((), False),
        (("X-Slproxy-Priority: bulk",), True),
        (("x-slproxy-priority:  BULK ",), True),
        (("X-Slproxy-Priority: interactive",), False),
        (("X-Slproxy-Priority: bulky",), False),
        (("X-Slproxy-Priority: bulk", "X-Slproxy-Priority: bulk"), False),
    ],
    ids=lambda value: " | ".join(value) if isinstance(value, tuple) else None,
)
def test_the_priority(lines: tuple[str, ...], bulk: bool) -> None:
    assert parsed(*lines).bulk == bulk


@pytest.mark.parametrize(
    ("headers", "label"),
    [
        ((b"X-Slproxy-Client: nightly report",), "nightly report"),
        ((b"X-Slproxy-Client: a", b"X-Slproxy-Client: b"), "a"),
        ((b"User-Agent: curl/8.5.0",), "curl"),
        ((b"User-Agent: Mozilla/5.0 (X11) Gecko",), "Mozilla"),
        ((b"X-Slproxy-Client: report", b"User-Agent: curl/8.5.0"), "report"),
        ((b"X-Slproxy-Client: " + b"x" * 65, b"User-Agent: curl/8.5.0"), "curl"),
        ((b"X-Slproxy-Client: " + b"x" * 4000,), "unknown"),
        ((b"X-Slproxy-Client: a\tb",), "unknown"),
        ((b"X-Slproxy-Client: \xc3\xa9\xe2\x80\xae",), "unknown"),
        ((b"X-Slproxy-Client: \xc2\x9b31m",), "unknown"),
        ((b"X-Slproxy-Client: \x9b31m\xff",), "unknown"),
        ((b"X-Slproxy-Client:",), "unknown"),
        ((b"User-Agent: " + b"x" * 4000,), "x" * 64),
        ((b"User-Agent: \xc3\xa9/1",), "unknown"),
        ((b"User-Agent:",), "unknown"),
        ((), "unknown"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_a_client_goes_by_its_label(headers: tuple[bytes, ...], label: str) -> None:
    assert parsed(*headers).client == label
