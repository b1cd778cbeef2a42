"""The gate, as an attacker tries it: docs/contract.md, Check, and docs/hazards.md, T1 to T5, H3, H4 and B1."""

from __future__ import annotations

import base64
import gc
import tracemalloc
from dataclasses import replace

import pytest

from slproxy.config import OWN_PAGES, PROBES, Secret
from slproxy.errors import (
    BadRequest,
    BadTarget,
    HostRefused,
    KeyRequired,
    Loop,
    MethodRefused,
    NotFound,
    OriginRefused,
    Refused,
    TooLarge,
)
from slproxy.forward import Inbound, Policy
from slproxy.forward.policy import Route, check
from slproxy.forward.rules import METHODS
from slproxy.forward.target import exact_path
from slproxy.http import by_name

OPEN = Policy(pseudonym="slproxy-7f3a")
KEY = "local-key-7f3a"
LOCKED = replace(OPEN, key=Secret(KEY))
UTF8_KEY = "schlüssel-ключ"


def ask(
    target: str = "/v2/a",
    *headers: str,
    policy: Policy = OPEN,
    method: str = "GET",
    host: str | None = "localhost:8642",
) -> tuple[Route, str]:
    """Ask the gate with header lines; ``host=None`` leaves ``Host`` out. What is not ASCII goes as UTF-8."""
    lines = [*([] if host is None else [f"Host: {host}"]), *headers]
    pairs = [(name, value.removeprefix(" ")) for name, _, value in (line.partition(":") for line in lines)]
    raw = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in pairs]
    return check(policy, Inbound(method=method, target=target, headers=raw), by_name(raw))


def refusal(
    target: str = "/v2/a",
    *headers: str,
    policy: Policy = OPEN,
    method: str = "GET",
    host: str | None = "localhost:8642",
) -> Refused:
    with pytest.raises(Refused) as caught:
        ask(target, *headers, policy=policy, method=method, host=host)
    assert caught.value.hint, "an error says what to do next"
    return caught.value


# The target: what is let in goes up byte for byte


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(r"/v2/people?x=%2F%2f&y=a+b&z=%zz&&q=[]{}\|^", id="T1"),
        pytest.param("/v2/a%2Db%20c%C3%A9~%7e", id="T2"),
        pytest.param("/v2/%252e%252e/x", id="T2 twice encoded"),
        "/v2/%252e%252e%252fx",
        "/v2/%25%32%65%25%32%65/x",
        "/v2/%2500",
        "/v2/",
        "/v2/?",
        "/v2/a?",
        "/v2/a//b/",
        "/v2//a",
        "/v2/people.json?ids[]=1&ids[]=2&updated_at[gt]=2026-01-01T00:00:00.000000-05:00",
        "/v2/a;v=1/b:c@d!$&'()*+,=",
        # Names that only look like dot segments.
        "/v2/...",
        "/v2/..a",
        "/v2/a..",
        "/v2/.well-known/x",
        "/v2/%2e%2e%2e/x",
        "/v2/.%20./x",
        "/v2/..,/x",
        "/v2/;../x",
        "/v2/a;..",
        "/v2/..%253b/x",
        # Decoded once, these are no dots: overlong spellings are no UTF-8 (RFC 3629 §3), fullwidth ones other letters.
        "/v2/%c0%ae%c0%ae/x",
        "/v2/%c0%ae%c0%ae%c0%afx",
        "/v2/%e0%80%ae%e0%80%ae/x",
        "/v2/\uff0e\uff0e/x",
        "/v2/%ef%bc%8e%ef%bc%8e/x",
        "/v2/\u2025/x",
        # In a query anything goes but what no request line can hold.
        "/v2/a?b=../../c",
        "/v2/a?/../%2e%2e/;..\\..\\",
        "/v2/a?%00%0d%0a%",
        "/v2/a?next=http://evil.test//x",
        "/v2/a?q=é€",
        "/v2/\u00e9?q",
        "/v2/a?x?y??",
    ],
)
def test_a_target_that_reads_one_way_is_let_in_byte_for_byte(target: str) -> None:
    assert ask(target) == (Route.UPSTREAM, target)


@pytest.mark.parametrize(
    "target",
    [
        # T3: a segment that is `.` or `..` once decoded, with `/` and `\` both separating and `;` ending a name.
        "/v2/%2e%2e/x",
        "/v2/.%2e/x",
        "/v2/%2e./x",
        "/v2/%2E%2e/x",
        "/v2/%2E%2E/x",
        "/v2/./x",
        "/v2/../x",
        "/v2/../oauth/token",
        "/v2/x/..",
        "/v2/x/.",
        "/v2/..",
        "/v2/.",
        "/v2/x/../..",
        "/v2/%2e",
        "/v2/..%2fx",
        "/v2/..%2Fx",
        "/v2/x%2f..",
        "/v2/x%2f%2e%2e%2fy",
        "/v2/..%5cx",
        "/v2/..%5Cx",
        "/v2/x%5c..%5cy",
        "/v2/%5c..%5c..",
        "/v2/..;/x",
        "/v2/.;/x",
        "/v2/..;a=b",
        "/v2/..;a/..;b",
        "/v2/%2e%2e;/x",
        "/v2/..%3b/x",
        "/v2/%2e%3Bx/y",
        "/v2/x/..?y",
        "/v2/..%2f..%2foauth/token",
        "/v2/a%2f.%2fb",
        # Raw backslashes.
        "/v2/a\\b",
        "/v2/..\\x",
        "/v2/\\",
        "/\\evil.test/v2/",
        "\\v2\\a",
        # NUL and control characters, raw or encoded.
        "/v2/a\x00b",
        "/v2/a%00b",
        "/v2/a%00",
        "/v2/..%00/x",
        "/v2/a%0ab",
        "/v2/a%0D%0AHost:%20evil",
        "/v2/a\tb",
        "/v2/a%09",
        "/v2/a\x7f",
        "/v2/a%7F",
        "/v2/a%1f",
        "/v2/a?b\x00c",
        "/v2/a?b\r\nHost: evil",
        # Fragments and spaces.
        "/v2/a#b",
        "/v2/a#",
        "/v2/a?b#c",
        "/v2/a b",
        "/v2/a ",
        " /v2/a",
        # Broken escapes.
        "/v2/%",
        "/v2/%2",
        "/v2/a%zz",
        "/v2/a%4/b",
        "/v2/%%32e",
        "/v2/%u002e%u002e/x",
        "/v2/%-1",
        "/v2/% 2",
        "/v2/%\uff12e",
        # Two slashes at the front.
        "//evil.test/v2/a",
        "//v2/a",
        "///v2/a",
        "//localhost/v2/a",
        "//",
        # Neither a path nor an absolute URL (T5).
        "",
        "*",
        "v2/a",
        "../v2/a",
        "?a",
        "#",
        "evil.test:443",
        "localhost:8642",
        "localhost/v2/a",
        "http:/v2/a",
        "http:v2/a",
        "http:\\\\localhost\\v2\\a",
        "ftp://localhost/v2/a",
        "file:///v2/a",
        "javascript://localhost/v2/a",
        "://localhost/v2/a",
        "ht\ttp://localhost/v2/a",
        # Bytes that are not UTF-8: no str could carry them on exactly.
        "/v2/\udce9",
        "/v2/a?b=\udcff",
    ],
    ids=ascii,
)
def test_a_target_that_servers_read_differently_is_400(target: str) -> None:
    refused = refusal(target)
    assert isinstance(refused, BadTarget)
    assert (refused.type, refused.status) == ("bad-target", 400)


def test_no_long_path_is_remembered() -> None:
    paths = (f"/v2/{number:010000}" for number in range(300))
    tracemalloc.start()
    try:
        for path in paths:
            assert exact_path(path) == path
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("target", ["/v2/../x", "//evil.test/a", "v2/a", "/v2/a%00", "http://evil.test/v2/a"])
def test_no_method_and_no_header_makes_up_for_a_bad_target(target: str) -> None:
    for method in METHODS:
        assert refusal(target, f"X-Slproxy-Key: {KEY}", policy=LOCKED, method=method).status in (400, 421)


@pytest.mark.parametrize("target", ["//v2/me.json", "//", "///v2/a", "http://localhost:8642//v2/a", "//v2/a?b=c"])
def test_two_slashes_at_the_front_are_told_as_what_they_mostly_are(target: str) -> None:
    refused = refusal(target)
    assert isinstance(refused, BadTarget)
    assert "Does your base URL end in a slash?" in refused.hint


# Paths


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v2",
        "/v2?a=b",
        "/v1/me",
        "/V2/me",
        "/v22/me",
        "/v/2/me",
        "/%762/me",
        "/v2%2fme",
        "/%2fv2/me",
        "/oauth/token",
        "/_slproxy",
        "/_sandbox/faults",
        "/favicon.ico",
        "/me?x=/v2/",
        "/x/v2/me",
        "/;/v2/me",
    ],
)
def test_a_path_that_is_not_accepted_is_404_and_the_hint_names_one_that_exists(target: str) -> None:
    refused = refusal(target)
    assert isinstance(refused, NotFound)
    assert (refused.type, refused.status) == ("not-found", 404)
    assert "/v2/" in refused.hint or OWN_PAGES in refused.hint


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("/V2/people", "Did you mean /v2/people? Only /v2/ is forwarded."),
        ("/v3/people.json?page=2", "Did you mean /v2/people.json? Only /v2/ is forwarded."),
        ("/api/v2/me", "Did you mean /v2/me? Only /v2/ is forwarded."),
        ("/people/1", "Did you mean /v2/people/1? Only /v2/ is forwarded."),
        ("/", "Try /v2/me.json; the proxy's own state is at /_slproxy/status.json."),
        ("/v2", "Try /v2/me.json; the proxy's own state is at /_slproxy/status.json."),
        ("/V3/", "Try /v2/me.json; the proxy's own state is at /_slproxy/status.json."),
        ("/v2people", "Only /v2/ is forwarded."),
        ("/v2%2fme", "Only /v2/ is forwarded."),
        (
            "/oauth/token",
            "Delete what fetches a token: the proxy adds its own to each request, and forwards no OAuth."
            " Only /v2/ is forwarded.",
        ),
        ("/oauthx", "Did you mean /v2/oauthx? Only /v2/ is forwarded."),
        ("/healthz", "Did you mean /_slproxy/healthz?"),
        ("/_slproxy", "The proxy's own state is at /_slproxy/status.json."),
        ("/_SLPROXY/healthz", "The proxy's own state is at /_slproxy/status.json."),
    ],
)
def test_the_hint_names_the_nearest_thing_that_exists(target: str, hint: str) -> None:
    assert refusal(target).hint == hint


@pytest.mark.parametrize(
    ("accept", "reject", "target", "hint"),
    [
        (("/v2/people",), (), "/people/1", "Did you mean /v2/people/1? Only /v2/people is forwarded."),
        (("/v2/people",), (), "/V2/accounts", "Only /v2/people is forwarded."),
        (("/v2/people",), (), "/", "Try /v2/people; the proxy's own state is at /_slproxy/status.json."),
        (("/v3/", "/v2/"), (), "/me", "Did you mean /v2/me? Only /v3/, /v2/ is forwarded."),
        (("/v3/",), (), "/v2/me", "Only /v3/ is forwarded."),
        (("/v2/",), ("/v2/people",), "/people", "Only /v2/ is forwarded."),
        (("/v2/",), ("/v2/me",), "/", "Try /v2/; the proxy's own state is at /_slproxy/status.json."),
    ],
)
def test_the_hint_names_nothing_that_is_closed(
    accept: tuple[str, ...], reject: tuple[str, ...], target: str, hint: str
) -> None:
    ask = "" if accept == ("/v2/",) else " Ask whoever runs this proxy, if this path should be forwarded."
    assert refusal(target, policy=replace(OPEN, accept_paths=accept, reject_paths=reject)).hint == hint + ask


@pytest.mark.parametrize(
    ("accept", "reject", "target", "let_in"),
    [
        (("/v2/people",), (), "/v2/people.json", True),
        (("/v2/people",), (), "/v2/people/1?a", True),
        (("/v2/people",), (), "/v2/accounts", False),
        (("/v2/people",), (), "/v2/%70eople", False),
        (("/v2/people",), (), "/v2/x?/v2/people", False),
        (("/v2/people", "/v2/me"), (), "/v2/me.json", True),
        (("/v3/",), (), "/v2/a", False),
        (("/v3/",), (), "/v3/a", True),
        (("/",), (), "/anything", True),
        (("/v2/",), ("/v2/people",), "/v2/accounts", True),
        (("/v2/",), ("/v2/people",), "/v2/people", False),
        (("/v2/",), ("/v2/people",), "/v2/people.json", False),
        (("/v2/",), ("/v2/people",), "/v2/people/1", False),
        (("/v2/",), ("/v2/people",), "/v2/%70eople", False),
        (("/v2/",), ("/v2/people",), "/v2/%70%65%6F%70%6C%65/1", False),
        (("/v2/",), ("/v2/people",), "/v2/people%2f1", False),
        (("/v2/",), ("/v2/people",), "/v2/people;x", False),
        (("/v2/",), ("/v2/people",), "/v2/x?/v2/people", True),
        (("/v2/",), ("/v2/people", "/v2/users"), "/v2/users/1", False),
        (("/v2/",), ("/v2/",), "/v2/a", False),
        (("/v2/",), ("/v2/people",), "/v2//people", False),
        (("/v2/",), ("/v2/people",), "/v2/%2fpeople", False),
    ],
)
def test_accepted_paths_are_let_in_less_the_rejected_ones_in_any_spelling(
    accept: tuple[str, ...], reject: tuple[str, ...], target: str, let_in: bool
) -> None:
    policy = replace(OPEN, accept_paths=accept, reject_paths=reject)
    if let_in:
        assert ask(target, policy=policy) == (Route.UPSTREAM, target)
    else:
        assert isinstance(refusal(target, policy=policy), NotFound)


@pytest.mark.parametrize(
    "target",
    [
        *("/v2/people;x=1", "/v2/people;x/1", "/v2//people.json", "/v2/%70eople.json"),
        # Names that are lost, and what is left of them.
        *("/v2/;a/people", "/v2/;/people", "/v2/;a/;b/people", "/v2/;a//;/people/1", "/v2///people", "/v2/%3b/people"),
        *("/v2/%3ba/people", "/v2/;%2fpeople", "/v2/%20/people", "/v2/people%20", "/v2/%20people.json"),
        # Other slashes.
        *(
            "/v2/%5cpeople",
            "/v2/%5Cpeople",
            "/v2/%5c%2f%5cpeople",
            "/v2/;a%5cpeople",
            "/v2/people%5c1",
            "/v2%2f/people",
        ),
        *("/v2/\uff0fpeople", "/v2/%ef%bc%8fpeople", "/v2/%c0%afpeople", "/v2/%e0%80%afpeople", "/v2/x%c0%afpeople"),
        # The end of the name.
        *("/v2/people/", "/v2/people.", "/v2/people%2e", "/v2/people%3fx", "/v2/people%23", "/v2/people%3bx"),
        # Encoded oftener than once, also what would be a dot segment then.
        *("/v2/%2570eople", "/v2/%25%37%30eople", "/v2/%252fpeople", "/v2/x/%252e%252e/people", "/v2/x/%252e./people"),
        *("/v2/;..%252f/people", "/v2/%255cpeople", "/v2/%" + "25" * 90 + "70eople"),
        # Letters.
        *("/v2/PEOPLE", "/v2/People.json", "/v2/%50eople", "/v2/\uff50eople", "/v2/%ef%bd%90eople", "/v2/\u24dfeople"),
    ],
    ids=ascii,
)
def test_a_reject_closes_what_one_server_or_another_reads_as_its_path(target: str) -> None:
    for reject in ("/v2/people", "/v2/people/", "/v2/People.json"):
        refused = refusal(target, policy=replace(OPEN, reject_paths=("/v2/users", reject)))
        assert isinstance(refused, NotFound)


@pytest.mark.parametrize(
    "target",
    [
        *("/v2/;a/accounts", "/v2/;/accounts", "/v2/%5caccounts", "/v2//accounts", "/v2/accounts;people", "/v2/peopl"),
        *("/v2/people_stages", "/v2/%70eople_stages", "/v2/me?/v2/people", "/v2/me?a=%2fpeople", "/v2/caf%c3%a9/x%20y"),
    ],
)
def test_a_reject_closes_nothing_else(target: str) -> None:
    assert ask(target, policy=replace(OPEN, reject_paths=("/v2/people",))) == (Route.UPSTREAM, target)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/v2/;a/people",
            "/v2//people",
            "/v2/%70eople",
            "/v2/PEOPLE",
            "/v2/people;x",
            "/v2/people%2fx",
            "/v2;/people",
        ),
        *("/v2/people/%252e%252e/accounts", "/v2/people/x/..%253b/%252e./accounts", "/v2/people/%25%32e%25%32e/me"),
        *("/v2/people/\uff0e\uff0e/accounts", "/v2/people/%c0%ae%c0%ae/accounts", "/v2/people/%ef%bc%8e%ef%bc%8e/me"),
    ],
    ids=ascii,
)
def test_an_accept_opens_only_what_every_server_reads_as_its_path(target: str) -> None:
    for accept in ("/v2/people", "/v2/people/"):
        assert isinstance(refusal(target, policy=replace(OPEN, accept_paths=(accept,))), NotFound)


# What asks the upstream to take a request for another

OVERRIDES = {
    **dict.fromkeys(("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Method"), ("DELETE", 405)),
    **dict.fromkeys(("x-http-method-override", "X_HTTP_Method_Override", "X-Http_Method-Override"), ("GET", 405)),
    **dict.fromkeys(("X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Override-URL"), ("/v2/people", 404)),
    **dict.fromkeys(("x-original-url", "X_Rewrite_Url", "X-HTTP-DestinationURL"), ("/v2/people", 404)),
    **dict.fromkeys(("X-HTTP-Path-Override", "X-MS-Original-URL", "X-Original-Request-URI"), ("/v2/people", 404)),
    **dict.fromkeys(("X-HTTP-Verb", "X-Request-Method-Override", "X-REST-Method"), ("DELETE", 405)),
}
NARROWED = {
    "read_only": replace(OPEN, read_only=True),
    "reject_paths": replace(OPEN, reject_paths=("/v2/people",)),
    "accept_paths": replace(OPEN, accept_paths=("/v2/a", "/v2/b")),
}


@pytest.mark.parametrize("rule", NARROWED)
@pytest.mark.parametrize("name", OVERRIDES)
def test_a_header_that_asks_for_another_method_or_path_is_refused_wherever_a_rule_narrows(name: str, rule: str) -> None:
    value, status = OVERRIDES[name]
    refused = refusal("/v2/a", f"{name}: {value}", policy=NARROWED[rule])
    assert (refused.status, refused.members["rule"]) == (status, f"policy.{rule}")
    assert refused.hint == "Ask whoever runs this proxy, if it should."
    assert ask("/v2/a", f"{name}: {value}") == (Route.UPSTREAM, "/v2/a"), "and goes up where none does"


@pytest.mark.parametrize(
    "query",
    [
        "_method=DELETE",
        "a=b&_method=delete",
        "a;_method=PUT",
        "%5fmethod=DELETE",
        "_method",
        "X-HTTP-Method-Override=PUT",
    ],
)
def test_so_is_rails_parameter_for_another_method(query: str) -> None:
    for policy in NARROWED.values():
        assert refusal(f"/v2/a?{query}", policy=policy).status == 405
    assert ask(f"/v2/a?{query}") == (Route.UPSTREAM, f"/v2/a?{query}")


@pytest.mark.parametrize(
    "headers",
    [["X-Original-Name: a"], ["X-Methodical: 1"], ["X-Request-Id: 1"], ["X-Path-Length: 1"], ["Referer: /v2/x"]],
)
def test_a_header_that_only_looks_like_it_passes(headers: list[str]) -> None:
    for policy in NARROWED.values():
        assert ask("/v2/a?method=x&a_method=y", *headers, policy=policy)[0] is Route.UPSTREAM


@pytest.mark.parametrize("accept", ["/v2/people", "/v2/people/"])
def test_an_accept_opens_no_longer_name_than_its_own(accept: str) -> None:
    assert isinstance(refusal("/v2/people_stages", policy=replace(OPEN, accept_paths=(accept,))), NotFound)
    assert ask("/v2/people/1", policy=replace(OPEN, accept_paths=(accept,)))[0] is Route.UPSTREAM


@pytest.mark.parametrize("target", ["/", "/v2", "/_slproxy", "/x"])
@pytest.mark.parametrize("accept", [("/v2/",), ("/v2/people",), ("/v3/", "/v2/"), ("/v3/a/b",)])
def test_there_is_a_hint_whatever_is_accepted(accept: tuple[str, ...], target: str) -> None:
    hint = refusal(target, policy=replace(OPEN, accept_paths=accept)).hint
    assert any(path in hint for path in (*accept, OWN_PAGES))


def test_the_proxys_own_pages_are_its_own_whatever_is_accepted_or_rejected() -> None:
    for policy in (OPEN, replace(OPEN, accept_paths=("/",)), replace(OPEN, reject_paths=("/",))):
        for target in (OWN_PAGES, "/_slproxy/status.json", "/_slproxy/metrics?a=b", "/_slproxy/nothing", *PROBES):
            assert ask(target, policy=policy) == (Route.OWN_PAGE, target)


@pytest.mark.parametrize(
    "target", ["/_slproxy/../v2/a", "/_slproxy/%2e%2e/v2/a", "/_slproxy/healthz/..", "/_slproxy/a%00"]
)
def test_the_own_pages_are_no_way_around_the_rules_of_a_target(target: str) -> None:
    assert isinstance(refusal(target), BadTarget)


@pytest.mark.parametrize(
    ("target", "limit", "passes"),
    [
        ("/v2/a" + "b" * 27, 32, True),
        ("/v2/a" + "b" * 28, 32, False),
        ("/v2/?" + "b" * 40, 32, False),
        ("http://localhost/v2/" + "b" * 40, 32, False),
        ("*" * 33, 32, False),
        ("/v2/?q=" + "é" * 20, 32, False),
    ],
)
def test_a_target_over_the_limit_in_bytes_is_414(target: str, limit: int, passes: bool) -> None:
    policy = replace(OPEN, max_target=limit)
    if passes:
        assert ask(target, policy=policy) == (Route.UPSTREAM, target)
    else:
        refused = refusal(target, policy=policy)
        assert isinstance(refused, TooLarge)
        assert (refused.type, refused.status) == ("too-large", 414)


# Absolute form (T4)


@pytest.mark.parametrize(
    ("target", "origin_form"),
    [
        ("http://127.0.0.1:8642/v2/a", "/v2/a"),
        ("http://localhost/v2/a?b=//c#".rstrip("#"), "/v2/a?b=//c"),
        ("http://localhost:1/v2/a", "/v2/a"),
        ("http://localhost:/v2/a", "/v2/a"),
        ("HTTP://LOCALHOST:8642/v2/A%2f?", "/v2/A%2f?"),
        ("http://[::1]:8642/v2/a", "/v2/a"),
        ("http://[::1]/v2/a?b=http://evil.test/", "/v2/a?b=http://evil.test/"),
        ("http://127.9.9.9/v2/a", "/v2/a"),
    ],
)
def test_an_absolute_target_that_names_this_proxy_is_taken_as_its_origin_form(target: str, origin_form: str) -> None:
    assert ask(target) == (Route.UPSTREAM, origin_form)


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.test/v2/a",
        "http://api.salesloft.com/v2/a",
        "https://api.salesloft.com/v2/a",
        "https://localhost:8642/v2/a",
        "http://localhost@evil.test/v2/a",
        "http://localhost:8642@evil.test/v2/a",
        "http://evil.test@localhost/v2/a",
        "http://user:pw@localhost:8642/v2/a",
        "http://@localhost/v2/a",
        "http://localhost\\@evil.test/v2/a",
        "http://localhost;@evil.test/v2/a",
        "http://localhost%00.evil.test/v2/a",
        "http://localhost%2eevil.test/v2/a",
        "http://localhos%74/v2/a",
        "http://localhost.evil.test/v2/a",
        "http://localhost./v2/a",
        "http://evil.test:80/v2/a?http://localhost/",
        "http:///v2/a",
        "http://:8642/v2/a",
        "http:////localhost/v2/a",
        "http://127.1/v2/a",
        "http://0/v2/a",
        "http://0.0.0.0/v2/a",
        "http://2130706433/v2/a",
        "http://0x7f000001/v2/a",
        "http://0177.0.0.1/v2/a",
        "http://[::]/v2/a",
        "http://[::1/v2/a",
        "http://::1/v2/a",
        "http://[::1]evil.test/v2/a",
        "http://[127.0.0.1]/v2/a",
        "http://localhost:65536/v2/a",
        "http://localhost:99999/v2/a",
        "http://localhost:-1/v2/a",
        "http://localhost:+80/v2/a",
        "http://localhost:8o/v2/a",
        "http://localhost:80:80/v2/a",
        "http:// localhost/v2/a",
        "http://localhost\t/v2/a",
        "http://ⓛocalhost/v2/a",
        "http://lo\u0441alhost/v2/a",
    ],
    ids=ascii,
)
def test_an_absolute_target_of_another_host_is_421(target: str) -> None:
    refused = refusal(target)
    assert isinstance(refused, HostRefused)
    assert (refused.type, refused.status) == ("host-refused", 421)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/v2/../x", 400),
        ("http://localhost/v2/%2e%2e/x", 400),
        ("http://localhost//evil.test/v2/a", 400),
        ("http://localhost#@evil.test/v2/a", 400),
        ("http://localhost?@evil.test/v2/a", 404),
        ("http://localhost/oauth/token", 404),
        ("http://localhost", 404),
    ],
)
def test_the_origin_form_of_an_absolute_target_is_checked_like_any_other(target: str, status: int) -> None:
    assert refusal(target).status == status


@pytest.mark.parametrize("host", [None, "evil.test"])
def test_an_absolute_target_does_not_stand_in_for_host(host: str | None) -> None:
    assert refusal("http://localhost/v2/a", host=host).status == (400 if host is None else 421)


# The methods (docs/hazards.md, T5)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
def test_the_methods_of_the_contract_are_let_in(method: str) -> None:
    assert ask(method=method) == (Route.UPSTREAM, "/v2/a")


@pytest.mark.parametrize(
    ("method", "status"),
    [("TRACE", 405), ("CONNECT", 405)]
    + [(name, 501) for name in ("PRI", "get", "Get", "QUERY", "PROPFIND", "LOCK", "POSTX", "X", "", "GET ", "GÉT")],
)
def test_another_method_is_405_or_501_with_allow(method: str, status: int) -> None:
    for target in ("/v2/a", "/_slproxy/status.json"):
        refused = refusal(target, method=method)
        assert isinstance(refused, MethodRefused)
        assert (refused.type, refused.status) == ("method-refused", status)
        assert refused.headers[0][0] == "Allow"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
@pytest.mark.parametrize(
    ("target", "read_only", "allowed"),
    [
        ("/v2/a", False, "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE"),
        ("/v2/a", True, "GET, HEAD, OPTIONS"),
        ("evil.test:443", True, "GET, HEAD, OPTIONS"),
        ("/_slproxy/status.json", False, "GET, HEAD"),
        ("/_slproxy/status.json", True, "GET, HEAD"),
    ],
)
def test_allow_names_what_passes_there(method: str, target: str, read_only: bool, allowed: str) -> None:
    refused = refusal(target, method=method, policy=replace(OPEN, read_only=read_only))
    assert refused.headers == (("Allow", allowed),)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("CONNECT", "evil.test:443"),
        ("CONNECT", "localhost:8642"),
        ("OPTIONS", "*"),
        ("PRI", "*"),
        ("GET", "v2/a"),
        ("TRACE", "*"),
    ],
)
def test_what_is_no_request_for_a_reverse_proxy_is_refused(method: str, target: str) -> None:
    assert refusal(target, method=method).status == (
        405 if method in ("CONNECT", "TRACE") else 501 if method == "PRI" else 400
    )


@pytest.mark.parametrize("method", METHODS)
def test_read_only_lets_reads_pass_and_refuses_writes_with_allow(method: str) -> None:
    policy = replace(OPEN, read_only=True)
    if method in ("GET", "HEAD", "OPTIONS"):
        assert ask(policy=policy, method=method) == (Route.UPSTREAM, "/v2/a")
        return
    refused = refusal(policy=policy, method=method)
    assert isinstance(refused, MethodRefused)
    assert (refused.status, refused.headers) == (405, (("Allow", "GET, HEAD, OPTIONS"),))


# The host (docs/hazards.md, H4)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8642",
        "LocalHost:1",
        "localhost:",
        "localhost:0",
        "localhost:65535",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.9.9.9",
        "127.255.255.254:8642",
        "[::1]",
        "[::1]:80",
        "[::1]:",
        "[0:0:0:0:0:0:0:1]:80",
        "[0000::0001]",
    ],
)
def test_a_loopback_name_with_any_port_is_ours(host: str) -> None:
    assert ask(host=host) == (Route.UPSTREAM, "/v2/a")


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "evil.test",
        "localhost.evil.com",
        "evil.localhost.com",
        "localhost@evil",
        "evil@localhost",
        "localhost:8642@evil",
        "user:pw@localhost",
        "localhost, evil.com",
        "localhost,localhost",
        "localhost localhost",
        "localhost evil.com",
        " localhost",
        "localhost ",
        "localhost\t",
        "localhost/evil",
        "localhost/",
        "localhost#",
        "localhost?",
        "localhost\\evil",
        "localhost;",
        "localhost%00",
        "localhost%2e",
        "xlocalhost",
        "localhostx",
        "localhost.",
        "127.0.0.1.",
        ".localhost",
        "http://localhost",
        "//localhost",
        # Ports.
        "localhost:65536",
        "localhost:99999",
        "localhost:123456",
        "localhost:-1",
        "localhost:+1",
        "localhost:8o",
        "localhost:0x50",
        "localhost: 80",
        "localhost:80:80",
        "localhost:٨٠",
        # Other spellings of 127.0.0.1, and addresses that are not loopback.
        "127.1",
        "127.0.1",
        "127",
        "0",
        "0.0.0.0",
        "0.0.0.0:8642",
        "2130706433",
        "0x7f.0.0.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.01",
        "127.0.0.1/8",
        "127.0.0.256",
        "127.0.0.1.evil.com",
        "127.0.0.1.nip.io",
        "128.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "\uff11\uff12\uff17.0.0.1",
        "ⓛocalhost",
        "lo\u0441alhost",
        # IPv6.
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::]",
        "[::2]",
        "[::1].evil.com",
        "[::1]evil",
        "[::1]:99999",
        "[[::1]]",
        "[::1%25lo]",
        "[::1%lo]",
        "[::ffff:1.2.3.4]",
        "[::127.0.0.1]",
        "[fe80::1]",
        "[127.0.0.1]",
        "[localhost]",
        "[v1.localhost]",
    ],
    ids=ascii,
)
def test_another_host_is_421(host: str) -> None:
    refused = refusal(host=host)
    assert isinstance(refused, HostRefused)
    assert (refused.type, refused.status) == ("host-refused", 421)
    assert isinstance(refusal("/_slproxy/status.json", host=host), HostRefused)


@pytest.mark.parametrize(
    "more", [[], ["Host: localhost"], ["host: evil.com"], ["HOST: "], ["Host: localhost", "Host: localhost"]]
)
def test_a_request_needs_exactly_one_host(more: list[str]) -> None:
    refused = refusal("/v2/a", *more, host="localhost" if more else None)
    assert isinstance(refused, BadRequest)
    assert (refused.type, refused.status) == ("bad-request", 400)


@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("proxy.test", True),
        ("PROXY.Test:9000", True),
        ("slproxy", True),
        ("slproxy:80", True),
        ("my_service:80", True),
        ("10.0.0.7:8642", True),
        ("localhost", True),
        ("x.proxy.test", False),
        ("proxy.test.evil.com", False),
        ("xproxy.test", False),
        ("proxy.tes", False),
        ("proxy.test@evil.com", False),
        ("proxy.test:99999", False),
        ("10.0.0.70", False),
        ("slproxy.", False),
    ],
)
def test_a_name_in_accept_hosts_is_ours_and_no_other(host: str, let_in: bool) -> None:
    policy = replace(OPEN, accept_hosts=frozenset({"proxy.test", "slproxy", "my_service", "10.0.0.7"}))
    if let_in:
        assert ask(policy=policy, host=host) == (Route.UPSTREAM, "/v2/a")
    else:
        assert isinstance(refusal(policy=policy, host=host), HostRefused)


# The origin (docs/hazards.md, B1)


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("localhost:8642", ["Origin: http://localhost:8642"]),
        ("LOCALHOST:8642", ["Origin: http://localhost:8642"]),
        ("localhost", ["Origin: http://localhost"]),
        ("localhost:80", ["Origin: http://localhost"]),
        ("localhost:", ["Origin: http://localhost"]),
        ("127.0.0.1:8642", ["Origin: http://127.0.0.1:8642"]),
        ("[::1]:8642", ["Origin: http://[::1]:8642"]),
        ("localhost:8642", ["Origin: http://localhost:8642", "Sec-Fetch-Site: same-origin"]),
        ("localhost:8642", ["Sec-Fetch-Site: none"]),
        # A link that a person followed from a page of another port.
        (
            "localhost:8642",
            [
                "Sec-Fetch-Site: same-site",
                "Sec-Fetch-Mode: navigate",
                "Sec-Fetch-Dest: document",
                "Sec-Fetch-User: ?1",
            ],
        ),
        ("localhost:8642", ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate"]),
        ("localhost:8642", ["Referer: https://evil.test/"]),
    ],
)
def test_a_page_of_the_very_host_and_port_may_ask(host: str, headers: list[str]) -> None:
    assert ask("/v2/a", *headers, host=host) == (Route.UPSTREAM, "/v2/a")


@pytest.mark.parametrize("host", ["localhost", "localhost:", "localhost:80"])
def test_an_origin_with_an_empty_port_is_none_that_a_browser_writes(host: str) -> None:
    assert isinstance(refusal("/v2/a", "Origin: http://localhost:", host=host), OriginRefused)


@pytest.mark.parametrize(
    "headers",
    [
        ["Service-Worker: script"],
        ["service-worker:  Script "],
        ["Service-Worker: script", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: serviceworker"],
        ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Dest: serviceworker"],
        ["Service-Worker: script", "Origin: https://app.test"],
        ["Service-Worker: script", "Sec-Fetch-Site: none"],
    ],
    ids=repr,
)
def test_a_script_for_a_service_worker_is_403_whoever_asks(headers: list[str]) -> None:
    policy = replace(OPEN, allow_origins=frozenset({"https://app.test"}))
    for target in ("/v2/a", OWN_PAGES, "/_slproxy/status.json"):
        refused = refusal(target, *headers, policy=policy)
        assert isinstance(refused, OriginRefused)
        assert (refused.type, refused.status) == ("origin-refused", 403)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        # From https://evil.test, as browsers send it: img, script, form, beacon, no-cors fetch, preflight, iframe.
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"],
        ["Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"],
        ["Origin: null", "Sec-Fetch-Site: cross-site"],
        ["Origin: https://evil.test"],
        [
            "Origin: https://evil.test",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Private-Network: true",
        ],
        ["Origin: https://evil.test", "Connection: Upgrade", "Upgrade: websocket"],
        ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"],
        # A file, a sandboxed frame.
        ["Origin: null"],
        # A page of another port, scheme or spelling of this machine.
        ["Origin: http://localhost:3000"],
        ["Origin: http://localhost"],
        ["Origin: http://localhost:86421"],
        ["Origin: http://127.0.0.1:8642"],
        ["Origin: http://[::1]:8642"],
        ["Origin: https://localhost:8642"],
        ["Origin: ws://localhost:8642"],
        ["Origin: file://localhost:8642"],
        # Origins that are none.
        ["Origin: "],
        ["Origin: localhost:8642"],
        ["Origin: //localhost:8642"],
        ["Origin: http://localhost:8642/"],
        ["Origin: http://localhost:8642/v2/"],
        ["Origin: http://localhost:8642, https://evil.test"],
        ["Origin: http://localhost:8642 https://evil.test"],
        ["Origin: http://localhost:8642.evil.test"],
        ["Origin: http://localhost:8642@evil.test"],
        ["Origin: http://localhost:99999"],
        ["Origin: http://[::1"],
        ["Origin: *"],
        # Two of them, or what contradicts itself.
        ["Origin: http://localhost:8642", "Origin: https://evil.test"],
        ["Origin: https://evil.test", "Origin: http://localhost:8642"],
        ["Origin: http://localhost:8642", "Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: CROSS-SITE"],
        ["Sec-Fetch-Site:  cross-site "],
        ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
        # A page on another port of localhost, without an Origin: an image, a script, a frame, a window it opens.
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Sec-Fetch-User: ?1"],
        ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
        ["Origin: http://evil@localhost:8642"],
        ["Origin: http://local\thost:8642"],
        ["Origin: http://localhost:8642?evil"],
    ],
    ids=repr,
)
def test_a_web_page_of_another_origin_is_403(method: str, headers: list[str]) -> None:
    for target in ("/v2/a", OWN_PAGES, "/_slproxy/status.json"):
        refused = refusal(target, *headers, method=method)
        assert isinstance(refused, OriginRefused)
        assert (refused.type, refused.status, refused.headers) == ("origin-refused", 403, ())


def test_a_rebound_name_is_refused_though_it_looks_like_its_own_page() -> None:
    # docs/hazards.md, trap 9: the page of evil.test, now at 127.0.0.1, asks its own origin.
    for headers in ([], ["Origin: http://evil.test:8642"], ["Sec-Fetch-Site: same-origin"]):
        assert isinstance(refusal("/v2/a", *headers, host="evil.test:8642"), HostRefused)


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        (["Origin: https://app.test"], True),
        # A browser says cross-site of each page in allow_origins, or there would be nothing to allow.
        (["Origin: https://app.test", "Sec-Fetch-Site: cross-site"], True),
        (["Origin: http://localhost:8642"], True),
        (["Origin: https://app.test:8443"], False),
        (["Origin: http://app.test"], False),
        (["Origin: https://x.app.test"], False),
        (["Origin: https://app.test.evil.test"], False),
        (["Origin: https://app.test", "Origin: https://evil.test"], False),
        (["Origin: https://evil.test", "Origin: https://app.test"], False),
        (["Sec-Fetch-Site: cross-site"], False),
        (["Origin: null"], False),
    ],
    ids=repr,
)
def test_a_page_in_allow_origins_may_ask_and_no_other(headers: list[str], let_in: bool) -> None:
    policy = replace(OPEN, allow_origins=frozenset({"https://app.test"}))
    if let_in:
        assert ask("/v2/a", *headers, policy=policy) == (Route.UPSTREAM, "/v2/a")
    else:
        assert isinstance(refusal("/v2/a", *headers, policy=policy), OriginRefused)


# What has been here (docs/hazards.md, H3)


def test_a_request_that_has_been_here_is_508_and_one_that_has_been_elsewhere_is_let_in() -> None:
    refused = refusal("/v2/a", "Via: 1.1 x", "Via: 1.1 y, 1.1 slproxy-7f3a")
    assert isinstance(refused, Loop)
    assert (refused.type, refused.status) == ("loop", 508)
    assert ask("/v2/a", "Via: 1.1 x, 1.1 slproxy-0000") == (Route.UPSTREAM, "/v2/a")


# The local key


def basic(password: str, user: str = "user", encoding: str = "utf-8") -> str:
    return base64.b64encode(f"{user}:{password}".encode(encoding)).decode()


@pytest.mark.parametrize(
    ("key", "header"),
    [
        (KEY, f"X-Slproxy-Key: {KEY}"),
        (KEY, f"x-slproxy-key: {KEY}"),
        (KEY, f"Authorization: Bearer {KEY}"),
        (KEY, f"authorization: bearer {KEY}"),
        (KEY, f"Authorization: BEARER   {KEY}"),
        (KEY, f"Authorization: Basic {basic(KEY)}"),
        (KEY, f"Authorization: basic {basic(KEY)}"),
        (KEY, f"Authorization: Basic {basic(KEY, user='')}"),
        (KEY, f"Authorization: Basic {basic(KEY, user='jane@company.com')}"),
        ("a:b:c", f"Authorization: Basic {basic('a:b:c')}"),
        ("with space", "X-Slproxy-Key: with space"),
        ("Bearer x", "X-Slproxy-Key: Bearer x"),
        (UTF8_KEY, f"X-Slproxy-Key: {UTF8_KEY}"),
        (UTF8_KEY, f"Authorization: Bearer {UTF8_KEY}"),
        # The challenge says charset="UTF-8" (RFC 7617 §2.1), so this is what a client that reads it sends.
        (UTF8_KEY, f"Authorization: Basic {basic(UTF8_KEY)}"),
    ],
)
def test_the_local_key_opens_in_each_of_its_three_places(key: str, header: str) -> None:
    policy = replace(OPEN, key=Secret(key))
    for target, place in (("/v2/a", Route.UPSTREAM), ("/_slproxy/status.json", Route.OWN_PAGE)):
        assert ask(target, header, policy=policy) == (place, target)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["X-Slproxy-Key: "],
        ["X-Slproxy-Key: wrong"],
        [f"X-Slproxy-Key: {KEY}x"],
        [f"X-Slproxy-Key: {KEY[:-1]}"],
        [f"X-Slproxy-Key: {KEY.upper()}"],
        [f"X-Slproxy-Key: {KEY}, {KEY}"],
        [f"X-Slproxy-Key: Bearer {KEY}"],
        ["X-Slproxy-Key: é"],
        [f"X-Slproxy_Key: {KEY}"],
        [f"Authorization: {KEY}"],
        ["Authorization: Bearer"],
        ["Authorization: Bearer "],
        ["Authorization: Bearer wrong"],
        [f"Authorization: Bearer{KEY}"],
        [f"Authorization: Token {KEY}"],
        [f"Authorization: Digest {basic(KEY)}"],
        [f"Authorization: Bearer {basic(KEY)}"],
        ["Authorization: Basic"],
        ["Authorization: Basic !!!"],
        ["Authorization: Basic é"],
        [f"Authorization: Basic {KEY}"],
        [f"Authorization: Basic {basic('wrong')}"],
        [f"Authorization: Basic {basic('', user=KEY)}"],
        [f"Authorization: Basic {base64.b64encode(KEY.encode()).decode()}"],
        [f"Authorization: Basic {basic('x:' + KEY)}"],
        [f"Proxy-Authorization: Bearer {KEY}"],
        [f"Cookie: key={KEY}"],
    ],
    ids=repr,
)
def test_a_missing_or_wrong_local_key_is_401_with_a_challenge(headers: list[str]) -> None:
    for target in ("/v2/a", f"/v2/a?key={KEY}", "/_slproxy/status.json", OWN_PAGES):
        refused = refusal(target, *headers, policy=LOCKED)
        assert isinstance(refused, KeyRequired)
        assert (refused.type, refused.status) == ("key-required", 401)
        assert {name for name, _ in refused.headers} == {"WWW-Authenticate"}
        assert {value.split()[0] for _, value in refused.headers} == {"Basic", "Bearer"}
        assert KEY not in f"{refused.detail} {refused.hint} {refused.headers}"


def test_one_right_key_among_wrong_ones_opens() -> None:
    assert ask("/v2/a", "X-Slproxy-Key: wrong", f"Authorization: Bearer {KEY}", policy=LOCKED)[0] is Route.UPSTREAM


def test_without_a_local_key_no_credentials_are_asked_for_and_any_are_let_in() -> None:
    assert ask("/v2/a", "Authorization: Bearer theirs", "X-Slproxy-Key: any")[0] is Route.UPSTREAM


def test_a_policy_never_shows_its_key() -> None:
    assert KEY not in f"{LOCKED} {LOCKED!r}"


# The probes


@pytest.mark.parametrize("target", [*PROBES, PROBES[0] + "?verbose"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_probe_needs_neither_host_nor_key_nor_origin(target: str, method: str) -> None:
    policy = replace(LOCKED, read_only=True)
    for host in (None, "10.1.2.3:8642", "evil.test"):
        answered = ask(target, "Origin: https://evil.test", policy=policy, method=method, host=host)
        assert answered == (Route.PROBE, target)
    assert ask(target, policy=policy, method=method) == (Route.OWN_PAGE, target)


@pytest.mark.parametrize(
    "target",
    [
        "/_slproxy/healthz/",
        "/_slproxy/healthz.json",
        "/_slproxy/health%7a",
        "/_slproxy/HEALTHZ",
        "/_slproxy/readyz/../status.json",
        "/_slproxy/",
        "/_slproxy/metrics",
        "/_slproxy/status.json?/_slproxy/healthz",
        "/v2/_slproxy/healthz",
    ],
)
def test_what_only_looks_like_a_probe_is_behind_the_checks(target: str) -> None:
    refusal(target, policy=LOCKED)
    refusal(target, host="evil.test")


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_a_probe_with_another_method_is_behind_the_checks(method: str) -> None:
    assert isinstance(refusal(PROBES[0], policy=LOCKED, method=method), KeyRequired)
    assert isinstance(refusal(PROBES[0], host="evil.test", method=method), HostRefused)


# The order: the first rule that is broken is the one that is told


def test_the_rules_are_held_in_the_order_of_the_contract() -> None:
    policy = replace(LOCKED, read_only=True, max_target=100)
    broken: dict[str, str | None] = {
        "target": "/v2/../" + "a" * 100,
        "method": "POST",
        "host": "evil.test",
        "origin": "https://evil.test",
        "via": "1.1 slproxy-7f3a",
        "key": "wrong",
    }
    mended = [
        ("target", "/v2/../a", 414),
        ("target", "/oauth/token", 400),
        ("target", "/v2/a", 404),
        ("host", None, 421),
        ("host", "localhost", 400),
        ("origin", "http://localhost", 403),
        ("via", "1.1 x", 508),
        ("key", KEY, 401),
        ("method", "GET", 405),
    ]
    seen = []
    for name, value, _ in mended:
        refused = refusal(
            str(broken["target"]),
            f"Origin: {broken['origin']}",
            f"Via: {broken['via']}",
            f"X-Slproxy-Key: {broken['key']}",
            policy=policy,
            method=str(broken["method"]),
            host=broken["host"],
        )
        seen.append(refused.status)
        broken[name] = value
    assert seen == [status for _, _, status in mended]


def test_names_that_no_host_has_do_not_fill_the_memory() -> None:
    # They are judged before the local key is asked for, in an absolute target as in Host.
    with pytest.raises(HostRefused):
        ask(f"http://{'a' * 300}/v2/a")
    with pytest.raises(HostRefused):
        ask(host="a" * 300)
    assert refused_in_kib([f"http://{number:05}{'a' * 30_000}/v2/" for number in range(300)]) < 2000


def refused_in_kib(targets: list[str]) -> float:
    """Return how much memory is kept of targets that were refused."""
    tracemalloc.start()
    try:
        for target in targets:
            with pytest.raises(Refused):
                ask(target)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / 1024
    finally:
        tracemalloc.stop()
