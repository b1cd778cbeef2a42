"""What a web page of an allowed origin is told, and what no other is."""

from __future__ import annotations

import pytest

from slproxy.forward import cors
from slproxy.http import ByName, by_name

APP = "https://app.test"
ORIGINS = frozenset({APP, "http://localhost:3000"})


def headers(*lines: str) -> ByName:
    return by_name([(name.encode(), value.encode()) for name, _, value in (line.partition(": ") for line in lines)])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([f"Origin: {APP}"], APP, id="a listed origin"),
        pytest.param([], None, id="no origin"),
        pytest.param(["Origin: null"], None, id="a sandboxed frame's"),
        pytest.param(["Origin: https://app.test.evil.com"], None, id="a longer one"),
        pytest.param(["Origin: https://app.test:8443"], None, id="another port"),
        pytest.param(["Origin: http://app.test"], None, id="another scheme"),
        pytest.param([f"Origin: {APP}", f"Origin: {APP}"], None, id="two"),
    ],
)
def test_only_an_exact_origin_of_the_list_is_allowed(lines: list[str], expected: str | None) -> None:
    assert cors.allowed(headers(*lines), ORIGINS) == expected


def test_an_answer_names_the_origin_that_asked_and_never_all_of_them() -> None:
    shared = cors.shared(headers(f"Origin: {APP}"), ORIGINS)
    assert ("Access-Control-Allow-Origin", APP) in shared
    assert ("Vary", "Origin") in shared
    assert not [name for name, _ in shared if name == "Access-Control-Allow-Credentials"]


def test_an_answer_to_anybody_else_still_varies_by_origin() -> None:
    assert cors.shared(headers(), ORIGINS) == [("Vary", "Origin")]
    assert cors.shared(headers("Origin: https://evil.test"), ORIGINS) == [("Vary", "Origin")]


def test_a_preflight_allows_the_methods_that_pass_and_the_headers_that_were_asked_for() -> None:
    asked = headers(
        f"Origin: {APP}", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization,x-a"
    )
    assert cors.is_preflight("OPTIONS", asked)
    assert cors.preflight(asked, ("GET", "PUT")) == [
        ("Access-Control-Allow-Methods", "GET, PUT"),
        ("Access-Control-Allow-Headers", "authorization,x-a"),
        ("Access-Control-Max-Age", str(cors.MAX_AGE)),
    ]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_options_is_a_preflight(method: str) -> None:
    assert not cors.is_preflight(method, headers(f"Origin: {APP}", "Access-Control-Request-Method: PUT"))


@pytest.mark.parametrize("lines", [[f"Origin: {APP}"], ["Access-Control-Request-Method: PUT"]])
def test_options_without_a_question_is_an_ordinary_request(lines: list[str]) -> None:
    assert not cors.is_preflight("OPTIONS", headers(*lines))


@pytest.mark.parametrize("asked", ["x a", "x,,y", "x: y", "é", ""])
def test_what_is_no_list_of_header_names_is_not_repeated(asked: str) -> None:
    answer = cors.preflight(headers(f"Access-Control-Request-Headers: {asked}"), ("GET",))
    assert "Access-Control-Allow-Headers" not in dict(answer)


def test_a_page_of_a_public_address_is_let_through_to_this_machine_when_it_asks() -> None:
    answer = cors.preflight(headers("Access-Control-Request-Private-Network: true"), ("GET",))
    assert ("Access-Control-Allow-Private-Network", "true") in answer
