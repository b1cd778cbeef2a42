"""What a request costs: the table of docs/salesloft.md, Rate limit, and what the upstream has said."""

from __future__ import annotations

import pytest

from slproxy.pace.costs import MAX_ENDPOINTS, MAX_PATH, Costs


@pytest.mark.parametrize(
    ("page", "cost"),
    [
        ("0", 1), ("1", 1), ("100", 1), ("101", 3), ("150", 3), ("151", 8), ("250", 8), ("251", 10), ("500", 10),
        ("501", 30), ("999999999", 30), ("0501", 30), ("-501", 1), ("+501", 1), ("5e3", 1), ("", 1), ("9" * 40, 1),
    ],
)  # fmt: skip
def test_the_cost_of_a_page(page: str, cost: int) -> None:
    assert Costs().predict("GET", f"/v2/people?page={page}")[1:] == (cost, cost)


@pytest.mark.parametrize(
    ("query", "cost"),
    [
        ("", 1),
        ("per_page=501", 1),
        ("page", 1),
        ("page[]=501", 1),
        ("per_page=100&page=501&sort_by=name", 30),
        ("page=1&page=501", 30),
        ("page=501&page=1", 1),
        ("p%61ge=501", 30),
        ("page=%3501", 30),
        ("page=0000000000501", 30),
        ("page=0000000000001", 1),
        ("page=0", 1),
        ("page=%35%30%31", 30),
        ("page=%zz", 1),
        ("%70age=%ff%fe", 1),
    ],
)
def test_the_page_that_a_query_asks_for(query: str, cost: int) -> None:
    assert Costs().predict("GET", f"/v2/people?{query}")[1:] == (cost, cost)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/v2/people", "/v2/people"),
        ("/v2/people/", "/v2/people"),
        ("/v2/people.json", "/v2/people"),
        ("/v2/people?page=2", "/v2/people"),
        ("/v2/people/1234567890", "/v2/people/{id}"),
        ("/v2/people/1.json", "/v2/people/{id}"),
        ("/v2/people/1/stage/2", "/v2/people/{id}/stage/{id}"),
        ("/v2/calls/0d9c5f1e-43A2-4a3e-9c1d-0123456789ab", "/v2/calls/{id}"),
        ("/v2/oauth2", "/v2/oauth2"),
        ("/v2/", "/v2"),
        ("/", "/"),
    ],
)
def test_ids_make_no_other_endpoint(target: str, name: str) -> None:
    assert Costs().predict("GET", target)[0] == f"GET {name}"


def test_a_long_path_is_cut() -> None:
    endpoint, page, cost = Costs().predict("GET", "/v2/" + "x" * 5000 + "?page=501")
    assert (endpoint, page, cost) == ("GET " + ("/v2/" + "x" * 5000)[:MAX_PATH], 30, 30)


def foreseen(costs: Costs, target: str, method: str = "GET") -> int:
    return costs.predict(method, target)[2]


def test_what_a_reply_has_told_is_foreseen() -> None:
    costs = Costs()
    first, second, deep = "/v2/a", "/v2/a?page=101", "/v2/a?page=501"
    assert [foreseen(costs, target) for target in (first, second, deep)] == [1, 3, 30]
    costs.learn("GET /v2/a", 1, 5)
    # A page that costs more by the table costs no less than the first ones.
    assert [foreseen(costs, target) for target in (first, second, deep)] == [5, 5, 30]
    assert foreseen(costs, first, "POST") == foreseen(costs, "/v2/b") == 1
    costs.learn("GET /v2/a", 30, 2)
    assert [foreseen(costs, target) for target in (first, deep)] == [5, 2]
    costs.learn("GET /v2/a", 1, 1)
    assert foreseen(costs, first) == 1
    costs.learn("GET /v2/a", 1, 0)
    assert foreseen(costs, first) == 0


def test_the_endpoint_that_was_learned_the_longest_ago_is_forgotten_first() -> None:
    costs = Costs()
    names = ["".join(chr(ord("a") + int(digit)) for digit in str(number)) for number in range(MAX_ENDPOINTS)]
    for name in names:
        costs.learn(f"GET /v2/{name}", 1, 5)
    costs.learn(f"GET /v2/{names[0]}", 1, 5)
    costs.learn("GET /v2/more", 1, 5)
    assert [foreseen(costs, f"/v2/{name}") for name in (*names[:3], "more")] == [5, 1, 5, 5]
