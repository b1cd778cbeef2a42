"""What is told of each request: a line that parses, with nothing in it that is secret or that a terminal obeys."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slproxy.observe import AccessLog, Attempt, Exchange, loggable_path
from slproxy.observe.lines import json_line, pretty_line, quoted
from slproxy.observe.logging_setup import Formatter
from slproxy.observe.request_line import text_of

AT = 1_795_000_000.25  # 2026-11-18T11:06:40.250Z


def exchange(*, costs: Sequence[int | None] = (None,), **changes: object) -> Exchange:
    """Return one that ended after 1.5 s, of so many attempts."""
    told: dict[str, object] = {"method": "GET", "path": "/v2/me.json", "began": 100.0, "ended": 101.5, "status": 200}
    made = Exchange(**(told | {"id": "r-1", "client": "report"} | changes))  # type: ignore[arg-type]
    made.attempts += [Attempt(began=100.0, cost=cost) for cost in costs]
    return made


def line_of(made: Exchange, *, lowest: int = logging.DEBUG) -> str:
    """Return what the access log writes of an exchange, for a collector."""
    stream = io.StringIO()
    AccessLog(stream, pretty=False, colour=False, lowest=lowest).request_ended(made)
    return stream.getvalue().removesuffix("\n")


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as context:
        context.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


# What may be recorded of a target


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v2/people/1.json", "/v2/people/1.json"),
        ("/v2/a%2Fb%0a", "/v2/a%2Fb%0a"),
        ("/v2/people?email=jane@company.com", "/v2/people"),
        ("/v2/people?a?b", "/v2/people"),
        ("?a", ""),
        ("", ""),
        ("/v2/a\x1b[31mb", "/v2/a?[31mb"),
        ("/v2/a\r\nb\x00c\x7fd\te", "/v2/a??b?c?d?e"),
        ("/v2/a\u009b31mb", "/v2/a?31mb"),
        ("/v2/a\u202eb\u2028c\u200bd", "/v2/a?b?c?d"),
        ("/v2/a\udcffb", "/v2/a?b"),
        ("/v2/Grüße", "/v2/Grüße"),
        ("/v2/" + "a" * 600, "/v2/" + "a" * 496),
    ],
    ids=ascii,
)
def test_a_path_is_told_without_its_query_and_without_what_a_terminal_obeys(target: str, path: str) -> None:
    assert loggable_path(target) == path
    assert loggable_path(target).isprintable()


# Lines for a collector


def test_a_json_line_is_one_object_with_time_and_level() -> None:
    line = json_line({"a": 'b"\n', "c": 1}, at=AT)
    assert "\n" not in line
    assert json.loads(line) == {"time": "2026-11-18T11:06:40.250Z", "level": "info", "a": 'b"\n', "c": 1}
    assert json.loads(json_line({}, at=AT, level="error"))["level"] == "error"


@given(st.text())
@example('a"b')
@example("a\\b")
@example("\t\x7f\u00e9\ud83d")
@settings(max_examples=100)
def test_a_text_is_quoted_as_json_would(text: str) -> None:
    assert quoted(text) == json.dumps(text)


@pytest.mark.parametrize(
    ("at", "stamp"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_795_000_000.0, "2026-11-18T11:06:40.000Z"),
        (1_795_000_000.9999, "2026-11-18T11:06:40.999Z"),
        (1_795_000_000.007, "2026-11-18T11:06:40.007Z"),
    ],
)
def test_times_are_utc_with_milliseconds(at: float, stamp: str) -> None:
    # A float of today's size holds about a quarter of a microsecond, so the last millisecond may be cut.
    told = json.loads(json_line({}, at=at + 1e-6))["time"]
    assert told == stamp


ALWAYS = {
    "kind": "request",
    "id": "r-1",
    "client": "report",
    "method": "GET",
    "path": "/v2/me.json",
    "operation": "/v2/me",
    "status": 200,
    "attempts": 1,
    "ms": 1234.6,
    "proxy_ms": 234.6,
    "upstream_ms": 1000.0,
    "wait_ms": 0.0,
    "in": 0,
    "out": 0,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"costs": [30]}, {"cost": 30}),
        ({"costs": [1, None, 3], "waited": 0.2}, {"attempts": 3, "cost": 4, "wait_ms": 200.0, "proxy_ms": 34.6}),
        ({"waited": 0.5}, {"wait_ms": 500.0, "proxy_ms": 0.0}),
        ({"costs": [None]}, {}),
        ({"path": "/v2/people/17"}, {"path": "/v2/people/17", "operation": "/v2/people/{id}"}),
        ({"path": "/nothing"}, {"path": "/nothing", "operation": "other"}),
        ({"bytes_received": 5, "bytes_sent": 70_000, "renewals": 1}, {"in": 5, "out": 70_000, "token_renewals": 1}),
        (
            {"status": 503, "costs": [], "error": "login-required"},
            {"level": "error", "status": 503, "attempts": 0, "error": "login-required"},
        ),
        (
            {"status": 502, "not_retried": "method not repeatable"},
            {"level": "error", "status": 502, "not_retried": "method not repeatable"},
        ),
        ({"aborted": "client left"}, {"ended": "client left"}),
        (
            {"status": 499, "aborted": "client left while waiting"},
            {
                "status": 499,
                "ended": "client left while waiting",
                "hint": "raise the client's timeout, or send Prefer: wait=5 to be answered within 5 s",
            },
        ),
        ({"upstream_id": "salesloft-7"}, {"upstream_id": "salesloft-7"}),
        ({"client": 'a "b" \\ c'}, {"client": 'a "b" \\ c'}),
        ({"path": '/v2/"\\é'}, {"path": '/v2/"\\é', "operation": "other"}),
    ],
)
def test_what_is_told_of_an_exchange(changes: dict[str, object], expected: dict[str, object]) -> None:
    line = line_of(exchange(ended=101.23456, **({"upstream": 1.0} | changes)))  # type: ignore[arg-type]
    told = json.loads(line)
    assert told == {"time": told["time"], "level": "info"} | ALWAYS | expected
    assert line == json.dumps(told), "as an encoder would have written it"


@given(st.text(), st.text(), st.text(), st.floats(0, 1e6), st.floats(0, 1e6))
@settings(max_examples=200, deadline=None)
def test_whatever_a_client_sends_its_line_is_one_object(
    path: str, client: str, method: str, seconds: float, waited: float
) -> None:
    made = exchange(path=path, client=client, method=method, ended=100.0 + seconds, waited=waited)
    line = line_of(made)
    told = json.loads(line)
    assert "\n" not in line
    assert (told["path"], told["client"], told["method"]) == (path, client, method)
    assert told["ms"] == pytest.approx(seconds * 1000, abs=0.11)
    assert told["wait_ms"] == pytest.approx(waited * 1000, abs=0.11)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, "info"),
        ({"status": 404}, "info"),
        ({"status": 499, "aborted": "client left"}, "info"),
        ({"status": 499, "aborted": "client left while waiting"}, "info"),
        ({"aborted": "upstream broke off"}, "warning"),
        ({"aborted": "client stopped reading"}, "warning"),
        ({"status": 401}, "warning"),
        ({"status": 429, "error": "over-budget"}, "warning"),
        ({"status": 500}, "error"),
        ({"status": 502, "error": "upstream-unreachable"}, "error"),
        ({"status": 503, "aborted": "client left"}, "error"),
        ({"path": "/_slproxy/healthz"}, "debug"),
        ({"path": "/_slproxy/readyz", "status": 503}, "debug"),
        ({"path": "/_slproxy/status.json"}, "info"),
    ],
    ids=repr,
)
def test_a_line_has_the_level_of_what_happened_and_is_there_from_that_level_on(
    changes: dict[str, object], level: str
) -> None:
    made = exchange(**changes)  # type: ignore[arg-type]
    assert json.loads(line_of(made))["level"] == level
    number = logging.getLevelName(level.upper())
    assert line_of(made, lowest=number) != ""
    assert line_of(made, lowest=number + 1) == ""


# Lines for a person


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "200 12.0 ms, report"),
        ({"client": ""}, "200 12.0 ms"),
        ({"costs": [1]}, "200 12.0 ms, report"),
        ({"costs": [8]}, "200 12.0 ms, report, cost 8"),
        ({"status": 0}, "- 12.0 ms, report"),
        ({"costs": [1, None, None], "waited": 2.04}, "200 12.0 ms, report, 3 attempts, waited 2.0 s"),
        ({"status": 503, "costs": [], "error": "draining"}, "503 12.0 ms, report, draining, id r-1"),
        (
            {"status": 502, "error": "upstream-timeout", "not_retried": "method not repeatable"},
            "502 12.0 ms, report, upstream-timeout, not retried: method not repeatable, id r-1",
        ),
        (
            {"status": 499, "aborted": "client left while waiting"},
            "499 12.0 ms, report, client left while waiting (raise the client's timeout, or send Prefer: wait=5"
            " to be answered within 5 s), id r-1",
        ),
    ],
)
def test_a_person_reads_one_line_of_an_exchange(changes: dict[str, object], expected: str) -> None:
    made = exchange(ended=100.012, **changes)  # type: ignore[arg-type]
    assert text_of(made, colour=False) == f"GET    /v2/me.json {expected}"


@pytest.mark.parametrize(
    ("status", "colour"), [(200, "32"), (304, "32"), (404, "33"), (429, "33"), (500, "31"), (503, "31")]
)
def test_the_status_has_the_colour_of_its_kind(status: int, colour: str) -> None:
    line = text_of(exchange(status=status), colour=True)
    assert f"\x1b[{colour}m{status}\x1b[0m" in line
    assert re.sub(r"\x1b\[\d+m", "", line) == text_of(exchange(status=status), colour=False)


@pytest.mark.usefixtures("in_utc")
def test_a_pretty_line_begins_with_the_local_time() -> None:
    assert pretty_line("hello", at=AT, colour=False) == "11:06:40 hello"
    assert pretty_line("hello", at=AT, colour=True) == "\x1b[90m11:06:40\x1b[0m hello"


# Everything else that is logged


def _fail(fault: Exception) -> None:
    raise fault


def record(level: int, message: str, *arguments: object, fault: Exception | None = None) -> logging.LogRecord:
    info = None
    if fault is not None:
        try:
            _fail(fault)
        except type(fault):
            info = sys.exc_info()
    made = logging.LogRecord("slproxy.forward", level, __file__, 1, message, arguments, info)
    made.created = AT
    return made


def test_a_record_is_one_json_object_with_its_traceback_inside() -> None:
    formatter = Formatter(pretty=False, colour=False)
    plain = formatter.format(record(logging.INFO, "hello %s", 'a "b"\nc'))
    assert "\n" not in plain
    assert json.loads(plain) == {
        "time": "2026-11-18T11:06:40.250Z",
        "level": "info",
        "logger": "slproxy.forward",
        "message": 'hello a "b"\nc',
    }
    about = record(logging.INFO, "hello")
    about.request_id = "r-1"
    assert json.loads(formatter.format(about))["id"] == "r-1"
    failed = formatter.format(record(logging.ERROR, "failed", fault=ValueError("why")))
    assert "\n" not in failed
    told = json.loads(failed)
    assert (told["level"], told["message"]) == ("error", "failed")
    assert told["traceback"].startswith("Traceback (most recent call last)")
    assert told["traceback"].endswith("ValueError: why")


@pytest.mark.usefixtures("in_utc")
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.INFO, "11:06:40 hello"),
        (logging.WARNING, "11:06:40 warning: hello"),
        (logging.ERROR, "11:06:40 error: hello"),
        (logging.DEBUG, "11:06:40 debug: hello"),
    ],
)
def test_a_person_reads_the_level_where_it_is_not_info(level: int, expected: str) -> None:
    assert Formatter(pretty=True, colour=False).format(record(level, "hello")) == expected
    coloured = Formatter(pretty=True, colour=True).format(record(level, "hello"))
    assert re.sub(r"\x1b\[\d+m", "", coloured) == expected


@pytest.mark.usefixtures("in_utc")
def test_a_person_reads_the_traceback_below_the_line() -> None:
    lines = (
        Formatter(pretty=True, colour=False)
        .format(record(logging.ERROR, "failed", fault=ValueError("why")))
        .split("\n")
    )
    assert lines[0] == "11:06:40 error: failed"
    assert lines[-1] == "ValueError: why"


# The access log


def test_each_request_is_a_line_in_the_order_of_their_ends() -> None:
    stream = io.StringIO()
    access_log = AccessLog(stream, pretty=False, colour=False)
    for number in range(50):
        access_log.request_ended(exchange(path=f"/v2/{number}"))
    assert [json.loads(line)["path"] for line in stream.getvalue().splitlines()] == [
        f"/v2/{number}" for number in range(50)
    ]


def test_a_line_tells_the_time_of_its_end() -> None:
    stream = io.StringIO()
    AccessLog(stream, pretty=False, colour=False).request_ended(exchange())
    told = json.loads(stream.getvalue())
    assert told["ms"] == 1500.0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])
    assert told["level"] == "info"


def test_a_pretty_access_log_writes_for_a_person() -> None:
    stream = io.StringIO()
    AccessLog(stream, pretty=True, colour=False).request_ended(exchange(status=404))
    assert re.fullmatch(r"\d\d:\d\d:\d\d GET    /v2/me\.json 404 1500\.0 ms, report, id r-1\n", stream.getvalue())
