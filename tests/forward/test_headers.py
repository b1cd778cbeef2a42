"""What passes, what stops and what is ours: docs/contract.md, Strip, Inject and Answer; docs/hazards.md, H1 to H3."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from slproxy.config import Via
from slproxy.forward.headers import (
    InexactHeaderError,
    has_passed,
    injected,
    returning,
    sends_via,
    server_timing,
    stripped,
    with_context,
)
from slproxy.http import RawHeaders, by_name
from slproxy.http.fields import size

API = "https://api.salesloft.com"
Through = Callable[..., list[str]]


def raw(*lines: str) -> RawHeaders:
    """Return header lines as they stand on the wire; what is not ASCII goes as UTF-8."""
    return [(name.encode(), value.strip().encode()) for name, _, value in (line.partition(":") for line in lines)]


def shown(lines: bytes) -> list[str]:
    return lines.decode().split("\r\n")[:-1]


def up(*lines: str) -> list[str]:
    return shown(stripped(raw(*lines)))


def down(*lines: str, api_url: str = API, host: str = "localhost:8642") -> list[str]:
    return shown(returning(raw(*lines), api_url=api_url, host=host)[0])


def test_by_name_keeps_repeats_in_order_under_the_name_in_lower_case() -> None:
    assert by_name([(b"X-A", b"1"), (b"b", b"2"), (b"x-a", b"3")]) == {b"x-a": [b"1", b"3"], b"b": [b"2"]}


def test_size_is_what_the_header_block_takes_on_the_wire() -> None:
    lines = ["Host: localhost", "X-A: ", "x-a: é"]
    assert size(raw(*lines)) == len("".join(f"{line}\r\n" for line in lines).encode())
    assert size([]) == 0


# Strip


@pytest.mark.parametrize(
    "name",
    [
        # Hop-by-hop (RFC 9110 §7.6.1).
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        # The client's own, or hints that the upstream could believe.
        "Host",
        "Expect",
        "Authorization",
        "Cookie",
        "Forwarded",
        "X-Real-IP",
        "Proxy-Authorization",
        "Proxy-Anything",
        "X-Slproxy-Key",
        "X-Slproxy-Retry",
        "X-Slproxy-",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Anything",
    ],
)
@pytest.mark.parametrize(
    "spelt",
    [
        str,
        str.lower,
        str.upper,
        str.swapcase,
        lambda name: name.replace("-", "_"),
        lambda name: name.replace("-", "_", 1),
    ],
    ids=["as is", "lower", "upper", "swapped", "underscores", "one underscore"],
)
def test_what_is_the_clients_alone_stops_in_every_spelling(name: str, spelt: Callable[[str], str]) -> None:
    assert up("X-Before: 1", f"{spelt(name)}: theirs", "X-After: 2") == ["X-Before: 1", "X-After: 2"]


@pytest.mark.parametrize(
    "line",
    [
        "User-Agent: curl/8",
        "Accept: */*",
        "Accept-Encoding: gzip, br",
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        "Content-Length: 12",
        "Via: 1.1 x",
        "Prefer: wait=3",
        "Origin: http://localhost:8642",
        "Referer: http://localhost:8642/",
        "Sec-Fetch-Site: none",
        "X-Sandbox-Fault: 503",
        "X-Empty: ",
        "X-Realm: 1",
        "X-Forwarded: 1",
        "X-Slproxy: 1",
        "Proxy: 1",
        "Set-Cookie: a=b",
        "Authorizations: 1",
        "X-Authorization: 1",
        "Content_Type: text/plain",
        "X-Name: Grüße, 世界",
    ],
)
def test_what_the_contract_does_not_name_passes_byte_for_byte(line: str) -> None:
    assert up(line) == [line]


def test_repeated_headers_stay_repeated_in_order_and_in_the_case_they_came_in() -> None:
    lines = ["X-B: 2", "x-a: 1", "X-A: 1", "X-B: 1", "X-A: 1, 3", "x-B: "]
    assert up(*lines) == lines


def test_the_clients_headers_are_not_modified() -> None:
    headers = raw("Connection: X-A", "X-A: 1", "Authorization: Bearer theirs", "X-B: 2")
    before = list(headers)
    stripped(headers)
    assert headers == before


# What Connection names (H1, H2)


@pytest.mark.parametrize(
    ("connection", "gone"),
    [
        (["close, X-Foo"], True),
        (["X-Foo"], True),
        (["x-foo"], True),
        (["X-FOO"], True),
        (["close,X-Foo"], True),
        (["close ,\tX-Foo\t, keep-alive"], True),
        ([",,X-Foo,"], True),
        (["X_Foo"], True),
        (["", "X-Foo"], True),
        (["X-Foo", ""], True),
        (["keep-alive", "close, x-foo"], True),
        (["close"], False),
        ([""], False),
        (["X-Fo"], False),
        (["X-Foo-Bar"], False),
        (["X-Foo;q=1"], False),
        (["X -Foo"], False),
        ([], False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("through", [up, down])
def test_what_connection_names_is_gone_in_both_directions(through: Through, connection: list[str], gone: bool) -> None:
    lines = [f"CONNECTION: {value}" for value in connection]
    assert through(*lines, "X-Foo: 1", "x-foo: 2", "X-Bar: 3") == [
        *([] if gone else ["X-Foo: 1", "x-foo: 2"]),
        "X-Bar: 3",
    ]


@pytest.mark.parametrize(
    ("through", "token"),
    [
        (up, "X_Foo"),
        # An upstream reads `_` as `-`, so what goes up is gone in either spelling.
        (up, "X-Foo"),
        (down, "X_Foo"),
    ],
)
def test_a_name_with_an_underscore_is_gone_too(through: Through, token: str) -> None:
    assert through(f"Connection: {token}", "X_Foo: 1", "X-Bar: 2") == ["X-Bar: 2"]


@pytest.mark.parametrize(
    "token", ["Content-Length", "content-length", "CONTENT-LENGTH", "close, Content-Length, X-Foo"]
)
@pytest.mark.parametrize("through", [up, down])
def test_framing_is_not_dropped_although_connection_names_it(through: Through, token: str) -> None:
    assert through(f"Connection: {token}", "Content-Length: 5", "X-Bar: 1") == ["Content-Length: 5", "X-Bar: 1"]


def test_a_client_cannot_take_off_what_is_ours_by_naming_it_in_connection() -> None:
    fields = stripped(
        raw("Connection: Authorization, Via, Host", "Authorization: Bearer theirs", "Via: 1.1 x", "X-A: 1")
    )
    assert shown(fields + injected(bearer="ours", via="1.1 slproxy-1")) == [
        "X-A: 1",
        "Authorization: Bearer ours",
        "Via: 1.1 slproxy-1",
    ]


# Inject


def test_ours_come_last_and_via_is_added_to_those_before_it() -> None:
    fields = stripped(raw("Via: 1.1 x", "Authorization: Basic dTpw", "Accept: a"))
    assert shown(fields + injected(bearer="tok", via="1.1 slproxy-1")) == [
        "Via: 1.1 x",
        "Accept: a",
        "Authorization: Bearer tok",
        "Via: 1.1 slproxy-1",
    ]


def test_nothing_is_added_that_the_client_did_not_send_but_authorization_and_via() -> None:
    assert shown(injected(bearer="tok", via="1.1 p")) == ["Authorization: Bearer tok", "Via: 1.1 p"]


def test_a_token_with_a_line_end_in_it_is_never_sent() -> None:
    with pytest.raises(ValueError, match="a line end within a header"):
        injected(bearer="tok\r\nX-B: 2", via=None)


# What cannot be passed on exactly is refused, never altered


@pytest.mark.parametrize(
    "value",
    [
        b"caf\xe9-hidden",
        b"\xff\xfehidden",
        b"hidden\xc3",
        b"hidden\xc0\xaf",
        b"hidden\xed\xa0\x80",
        b"hidden\xf5\x80\x80\x80",
    ],
)
def test_a_value_that_is_not_utf8_is_refused_and_only_its_name_is_told(value: bytes) -> None:
    headers = [(b"X-Ok", b"1"), (b"X-Name", value)]
    for refuse in (partial(stripped, headers), partial(returning, headers, api_url=API, host="localhost")):
        with pytest.raises(InexactHeaderError) as caught:
            refuse()
        assert "X-Name" in str(caught.value)
        assert "hidden" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True), "a cause shows the value"


def test_a_name_that_is_not_utf8_is_refused_in_both_directions() -> None:
    headers = [(b"X-\xe9", b"hidden")]
    for refuse in (partial(stripped, headers), partial(returning, headers, api_url=API, host="localhost")):
        with pytest.raises(InexactHeaderError) as caught:
            refuse()
        assert "hidden" not in str(caught.value)


def test_bytes_that_stop_here_anyway_are_no_reason_to_refuse() -> None:
    headers = [(b"Cookie", b"\xe9"), (b"Connection", b"X-A, \xe9"), (b"X-A", b"\xe9"), (b"X-B", b"1")]
    assert stripped(headers) == b"X-B: 1\r\n"


@pytest.mark.parametrize(
    ("setting", "api_url", "sends"),
    [
        ("auto", API, False),
        ("auto", "http://127.0.0.1:8643", True),
        ("auto", "https://api.salesloft.com:8443", True),
        ("auto", "https://api.salesloft.com.evil.test", True),
        ("auto", "https://gateway.company.com", True),
        ("on", API, True),
        ("off", "http://127.0.0.1:8643", False),
    ],
)
def test_via_goes_up_where_a_loop_is_possible_or_as_it_is_set(setting: Via, api_url: str, sends: bool) -> None:
    assert sends_via(setting, api_url=api_url) is sends


def test_without_our_via_the_clients_own_stays_as_it_came() -> None:
    fields = stripped(raw("Via: 1.0 fred", "X-A: 1"))
    assert shown(fields + injected(bearer="tok", via=None)) == ["Via: 1.0 fred", "X-A: 1", "Authorization: Bearer tok"]


# Answer


@pytest.mark.parametrize(
    "line",
    [
        "Connection: close",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "Proxy-Authenticate: Basic",
        "TE: trailers",
        "Trailer: X-T",
        "Transfer-Encoding: chunked",
        "Upgrade: h2",
        "Set-Cookie: a=b",
        "Access-Control-Allow-Origin: *",
        "Access-Control-Allow-Credentials: true",
        "Access-Control-Anything: 1",
        "Strict-Transport-Security: max-age=1",
        "Alt-Svc: h3",
        'Clear-Site-Data: "*"',
        "Service-Worker-Allowed: /",
        "X-Slproxy-Attempts: 3",
        "X-Slproxy-Anything: 1",
    ],
)
@pytest.mark.parametrize("spelt", [str, str.lower, str.upper], ids=["as is", "lower", "upper"])
def test_what_would_change_a_browsers_view_of_localhost_stops_here(line: str, spelt: Callable[[str], str]) -> None:
    assert down("X-Before: 1", spelt(line), "X-After: 2") == ["X-Before: 1", "X-After: 2"]


@pytest.mark.parametrize(
    "line",
    [
        "Date: Mon, 23 Nov 2026 16:00:00 GMT",
        "Server: nginx",
        "Content-Type: application/json; charset=utf-8",
        "Content-Encoding: br",
        "Content-Length: 3",
        "Cache-Control: no-store",
        'ETag: W/"1"',
        "Retry-After: 42",
        "Vary: Origin",
        "Via: 1.1 google",
        "Link: <https://api.salesloft.com/v2/people?page=2>; rel=next",
        "Content-Location: https://api.salesloft.com/v2/people/1",
        "x-ratelimit-endpoint-cost: 1",
        "x-ratelimit-remaining-minute: 599",
        "WWW-Authenticate: Bearer",
        "X-Name: Grüße",
        "X-Request-Id: 1",
    ],
)
def test_the_rest_of_a_reply_comes_down_byte_for_byte(line: str) -> None:
    assert down(line) == [line]


@pytest.mark.parametrize(
    ("theirs", "left"),
    [
        ("slproxy; error=connection_refused", None),
        ("slproxy", None),
        ("SLPROXY;error=x", None),
        ('"slproxy"; error=x', None),
        ('"sl\\proxy"', None),
        ("slproxy-7f3a; error=x", None),
        ("slproxy; a, slproxy; b", None),
        ("cdn; error=x", "cdn; error=x"),
        ('cdn;details="a, b" ,x', 'cdn;details="a, b" ,x'),
        ("cdn; error=x, slproxy; error=y", "cdn; error=x"),
        ("slproxy; error=y,cdn; error=x ,, Slproxy", "cdn; error=x"),
        ('a; details="x, y\\" z", slproxy; details="b, c", d', 'a; details="x, y\\" z", d'),
        ('cdn; details="a, slproxy; error=x', None),
        ('cdn; details="slproxy; error=x", d', "d"),
    ],
)
def test_no_proxy_status_of_the_upstream_looks_like_ours_and_others_stay(theirs: str, left: str | None) -> None:
    lines = [f"Proxy-Status: {theirs}", "proxy-status: cache; hit"]
    assert down(*lines) == [*([] if left is None else [f"Proxy-Status: {left}"]), "proxy-status: cache; hit"]


def test_headers_of_a_reply_keep_order_repeats_and_case() -> None:
    lines = ["x-b: 2", "Vary: A", "X-B: 1", "vary: b", "Via: 1.0 y"]
    assert down(*lines) == lines


@pytest.mark.parametrize("connection", ["", "close", "Close", "x-request-id", "RateLimit, content-length"])
@pytest.mark.parametrize("other", ["X: 1", "X: é", "Location: /v2/me.json", "Proxy-Status: x, slproxy"])
@pytest.mark.parametrize("without", [frozenset(), frozenset({"x"})])
def test_the_names_that_are_told_of_a_reply_are_those_that_are_passed_on(
    connection: str, other: str, without: frozenset[str]
) -> None:
    """By them it is framed, and gets an id and what is left of the budget."""
    lines = ["CONTENT-length: 2", "x-Request-Id: a", "Set-Cookie: b", "RateLimit: c", "ratelimit: d", other]
    headers = raw(*lines, *([f"Connection: {connection}"] if connection else []))
    passed, names, _ = returning(headers, api_url=API, host="localhost:8642", without=without)
    assert names == {line.partition(":")[0].lower().encode() for line in shown(passed)}
    assert b"content-length" in names
    assert (b"x-request-id" in names) is (connection != "x-request-id")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        # It points at api_url: the same origin (RFC 6454 §4), however that is spelt.
        (f"{API}/v2/people/1.json?x=%2F&y=a+b#f", "http://localhost:8642/v2/people/1.json?x=%2F&y=a+b#f"),
        (f"{API}:443/v2/a", "http://localhost:8642/v2/a"),
        (f"{API}:/v2/a", "http://localhost:8642/v2/a"),
        ("HTTPS://API.SalesLoft.com/v2/A", "http://localhost:8642/v2/A"),
        (f"{API}/", "http://localhost:8642/"),
        (API, "http://localhost:8642"),
        (f"{API}?a=b", "http://localhost:8642?a=b"),
        (
            f"{API}/v2/x?next=https://api.salesloft.com/v2/y",
            "http://localhost:8642/v2/x?next=https://api.salesloft.com/v2/y",
        ),
        (f"{API}//v2/a", "http://localhost:8642//v2/a"),
        # It points elsewhere.
        ("http://api.salesloft.com/v2/a", None),
        (f"{API}:8443/v2/a", None),
        (f"{API}:80/v2/a", None),
        ("https://accounts.salesloft.com/oauth/authorize", None),
        ("https://api.salesloft.com.evil.test/v2/a", None),
        ("https://evil.test/https://api.salesloft.com/v2/a", None),
        ("https://bucket.s3.amazonaws.com/recording.mp3?X-Amz-Signature=a%2Fb", None),
        ("https://api.salesloft.com@evil/", None),
        ("https://api.salesloft.com:443@evil/", None),
        ("https://api.salesloft.com:pw@evil/v2/a", None),
        ("https://evil.test#@api.salesloft.com/", None),
        ("https://evil.test?@api.salesloft.com/", None),
        ("https://evil.test/@api.salesloft.com/", None),
        ("ftp://api.salesloft.com/v2/a", None),
        ("//evil.test/v2/a", None),
        # Relative: the client resolves it against the proxy by itself.
        ("/v2/people/1", None),
        ("people/1?a=b", None),
        ("?page=2", None),
        ("", None),
        # No URL: not ours to judge.
        ("https://api.salesloft.com:99999/v2/a", None),
        ("https://api.salesloft.com:x/v2/a", None),
        ("https://[/v2/a", None),
        ("https://[::1/v2/a", None),
        ("https:///v2/a", None),
        ("https:api.salesloft.com/v2/a", None),
        ("javascript:alert(1)", None),
        ("::::", None),
        ("//api.salesloft.com/v2/a", "http://localhost:8642/v2/a"),
        ("https://api.sales\tloft.com/v2/a", None),
        (f"{API}/v2/a b", "http://localhost:8642/v2/a b"),
    ],
)
def test_location_points_at_the_proxy_when_it_pointed_at_the_api(location: str, expected: str | None) -> None:
    wanted = location if expected is None else expected
    passed, *_ = returning([(b"LOCATION", location.encode())], api_url=API, host="localhost:8642")
    assert passed == f"LOCATION: {wanted}\r\n".encode()


@pytest.mark.parametrize(
    ("api_url", "location", "expected"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/v2/a", "http://proxy.test/v2/a"),
        ("http://127.0.0.1:9000", "http://127.0.0.1/v2/a", "http://127.0.0.1/v2/a"),
        ("http://127.0.0.1", "http://127.0.0.1:80/v2/a", "http://proxy.test/v2/a"),
        ("http://[::1]:9000", "http://[::1]:9000/v2/a", "http://proxy.test/v2/a"),
        ("https://api.salesloft.com:443", "https://api.salesloft.com/v2/a", "http://proxy.test/v2/a"),
    ],
)
def test_location_is_rewritten_for_the_origin_that_is_configured(api_url: str, location: str, expected: str) -> None:
    assert down(f"Location: {location}", api_url=api_url, host="proxy.test") == [f"Location: {expected}"]


# Ours on the way down, and on the way up


@pytest.mark.parametrize(
    ("total", "upstream", "wait", "expected"),
    [
        (0.5, 0.3, 0.15, "slproxy;dur=50.0, upstream;dur=300.0, wait;dur=150.0"),
        (0.0012, 0.001, 0.0, "slproxy;dur=0.2, upstream;dur=1.0, wait;dur=0.0"),
        (0.0, 0.0, 0.0, "slproxy;dur=0.0, upstream;dur=0.0, wait;dur=0.0"),
        # Clocks that were read in turn may disagree by a little; a negative duration would be no duration.
        (1.0, 1.1, 0.0, "slproxy;dur=0.0, upstream;dur=1100.0, wait;dur=0.0"),
        (61.0, 0.5, 60.0, "slproxy;dur=500.0, upstream;dur=500.0, wait;dur=60000.0"),
    ],
)
def test_server_timing_tells_our_own_share_the_upstreams_and_the_waiting_in_ms(
    total: float, upstream: float, wait: float, expected: str
) -> None:
    assert server_timing(total=total, upstream=upstream, wait=wait) == expected


@pytest.mark.parametrize(
    ("via", "passed"),
    [
        (["1.1 slproxy-7f3a"], True),
        (["1.1 x", "1.1 slproxy-7f3a"], True),
        (["1.1 x, 1.1 slproxy-7f3a , 1.0 y"], True),
        (["HTTP/1.1 slproxy-7f3a (a comment)"], True),
        (["1.1\tslproxy-7f3a"], True),
        (["1.1 x,1.1 slproxy-7f3a"], True),
        ([], False),
        ([""], False),
        (["1.1 x"], False),
        (["1.1 slproxy-7f3a1"], False),
        (["1.1 xslproxy-7f3a"], False),
        (["1.1 slproxy-0000"], False),
        (["1.1 x (slproxy-7f3a)"], False),
    ],
    ids=repr,
)
def test_via_names_this_very_process_or_not(via: list[str], passed: bool) -> None:
    headers = by_name(raw(*[f"VIA: {line}" for line in via]))
    assert has_passed(headers, "slproxy-7f3a") is passed


def test_a_trace_context_of_our_own_leaves_nothing_of_the_client_s() -> None:
    lines = b"Accept: a\r\nTraceParent: 00-1\r\nX-Traceparent: b\r\ntracestate: c=1\r\nTRACESTATE: d=2\r\n"
    assert with_context(lines, [("traceparent", "00-2")]) == (b"Accept: a\r\nX-Traceparent: b\r\ntraceparent: 00-2\r\n")
