"""Tally: what is counted of a request, at what cost, and that nothing makes it count without end."""

from __future__ import annotations

import random
import sys
import timeit
from collections import defaultdict

import pytest

from slproxy.errors import Problem
from slproxy.forward.rules import METHODS
from slproxy.observe import Attempt, Exchange, Renewal, Tally, Wait
from slproxy.observe import tally as counting
from slproxy.observe.exchange import WaitReason
from slproxy.operations import TEMPLATES
from tests.support.metrics import attempt, exchange, page_of, series

# What a scrape may hold in all (docs/contract.md, Metrics).
MAX_SERIES = 600
PATHS = (*TEMPLATES, "/v2/x/{id}")
WAITS: tuple[WaitReason, ...] = ("rate limit", "connection", "token", "backoff")


def counted(*exchanges: Exchange) -> dict[str, float]:
    tally = Tally()
    for each in exchanges:
        tally.request_ended(each)
    return series(page_of(tally))


def test_a_request_counts_by_method_code_client_and_operation_with_its_cost() -> None:
    found = counted(exchange(path="/v2/people/7.json", attempts=(attempt(503, cost=1), attempt(cost=3, reason="503"))))
    assert found["slproxy_requests_total{code=200,method=GET}"] == 1
    assert found["slproxy_client_requests_total{client=curl}"] == 1
    assert found["slproxy_client_cost_total{client=curl}"] == 4
    assert found["slproxy_operation_cost_total{operation=/v2/people/{id}}"] == 4
    assert found["slproxy_attempts_total{outcome=503}"] == found["slproxy_attempts_total{outcome=200}"] == 1
    assert found["slproxy_retries_total{reason=503}"] == 1


def test_what_is_no_known_operation_counts_as_other() -> None:
    found = counted(exchange(path="/v2/nothing/7", attempts=(attempt(404, cost=2),)))
    assert found["slproxy_operation_cost_total{operation=other}"] == 2


@pytest.mark.parametrize(
    ("of", "outcome"),
    [
        (attempt(None, fault="connection_refused"), "connection_refused"),
        (attempt(None), "abandoned"),
        (attempt(429), "429"),
    ],
)
def test_an_attempt_counts_by_its_status_or_by_why_there_was_none(of: Attempt, outcome: str) -> None:
    found = counted(exchange(attempts=(of,)))
    assert found[f"slproxy_attempts_total{{outcome={outcome}}}"] == 1
    assert found["slproxy_attempt_duration_seconds_count"] == (of.status is not None)


def test_durations_are_in_cumulative_buckets_whose_bounds_belong_to_them() -> None:
    found = counted(exchange(seconds=0.5), exchange(seconds=2.0), exchange(seconds=500.0), exchange(bulk=True))
    of = "slproxy_request_duration_seconds"
    bounds = ("0.25", "0.5", "1.0", "2.5", "120.0", "+Inf")
    assert [found[f"{of}_bucket{{le={bound},priority=interactive}}"] for bound in bounds] == [0, 1, 1, 2, 2, 3]
    assert found[f"{of}_sum{{priority=interactive}}"] == 502.5
    assert found[f"{of}_count{{priority=bulk}}"] == 1


def test_waits_are_told_by_reason_and_priority() -> None:
    found = counted(exchange(bulk=True, waits=(Wait(reason="rate limit", began=1.0, ended=41.0),)))
    of = "slproxy_wait_duration_seconds"
    assert found[f"{of}_sum{{priority=bulk,reason=rate_limit}}"] == 40
    assert found[f"{of}_bucket{{le=30.0,priority=bulk,reason=rate_limit}}"] == 0
    assert found[f"{of}_bucket{{le=60.0,priority=bulk,reason=rate_limit}}"] == 1


def test_a_problem_counts_by_its_type_and_each_type_is_there_from_the_start() -> None:
    before, after = counted(), counted(exchange(error="key-required", status=401, client=""))
    assert {value for name, value in before.items() if name.startswith("slproxy_problems_total")} == {0}
    assert after["slproxy_problems_total{type=key-required}"] == 1
    assert not any(name.startswith("slproxy_client_requests_total") and value for name, value in after.items())
    kinds = {each.type for each in leaves(Problem)}
    assert {f"slproxy_problems_total{{type={kind}}}" for kind in kinds} <= before.keys()


def leaves(of: type[Problem]) -> list[type[Problem]]:
    below = [leaf for each in of.__subclasses__() for leaf in leaves(each)]
    return below or [of]


def test_an_answer_that_did_not_end_well_counts_by_why() -> None:
    assert counted(exchange(aborted="client left"))["slproxy_aborts_total{reason=client_left}"] == 1


def test_the_proxys_own_pages_do_not_count() -> None:
    found, empty = (
        {name: value for name, value in each.items() if name.startswith("slproxy_")}
        for each in (counted(exchange(path="/_slproxy/readyz", client="")), counted())
    )
    assert found == empty


@pytest.mark.parametrize("method", METHODS)
def test_each_method_that_is_passed_on_counts_under_its_name(method: str) -> None:
    assert counted(exchange(method=method))[f"slproxy_requests_total{{code=200,method={method}}}"] == 1


@pytest.mark.parametrize(
    ("outcome", "result"),
    [
        ("renewed", "renewed"),
        ("taken over from another process", "taken_over"),
        ("SalesLoft refused the login.", "failed"),
        ("", "failed"),
    ],
)
def test_a_renewal_counts_by_its_result(outcome: str, result: str) -> None:
    tally = Tally()
    tally.renewal_ended(Renewal(reason="expiry", began=1.0, ended=2.0, outcome=outcome))
    found = series(page_of(tally))
    assert {name: value for name, value in found.items() if "renewals" in name and value} == {
        f"slproxy_token_renewals_total{{result={result}}}": 1
    }


def test_there_are_at_most_600_series_whatever_was_asked(request: pytest.FixtureRequest) -> None:
    """Random methods, paths, statuses, reasons and ten thousand clients; the busiest one has its own series.

    With ``--long`` a million requests; after the first ten thousand nothing is new.
    """
    rounds = 50 if request.config.getoption("--long") else 5
    tally, dice = Tally(), random.Random(17)
    busy = [exchange(client="busy", attempts=(attempt(),))]
    made = [
        exchange(
            method=dice.choice([*METHODS, f"M{number}"]),
            path=dice.choice(PATHS).format_map(defaultdict(lambda: f"{dice.getrandbits(64):x}")),
            status=dice.randrange(100, 1000),
            client=f"client-{number}" if number % 10 else "",
            bulk=dice.random() < 0.5,
            error="" if number % 10 else f"error-{number}",
            aborted=f"reason {number}" if number % 3 == 0 else "",
            attempts=(attempt(dice.randrange(100, 1000)), attempt(None, fault=f"fault-{number}", reason=f"{number}")),
            waits=tuple(Wait(reason=reason, began=1.0, ended=2.0) for reason in WAITS),
        )
        for number in range(10_000)
    ]
    for _ in range(rounds):
        for each in made:
            tally.request_ended(each)
            tally.request_ended(busy[0])
    found = series(page_of(tally))
    assert sum(name.startswith("slproxy_client_requests") for name in found) == counting.MAX_CLIENTS + 1
    assert found["slproxy_client_requests_total{client=busy}"] > rounds * 9_000
    assert sum(value for name, value in found.items() if name.startswith("slproxy_requests_total")) == rounds * 20_000
    assert len(found) <= MAX_SERIES


@pytest.mark.skipif(sys.gettrace() is not None, reason="coverage traces each line, which takes ten times as long")
def test_counting_a_request_costs_little() -> None:
    """It takes 0.7 µs of a processor that made a GET in 160; the bound is for machines that are busy."""
    tally, each = Tally(), exchange(attempts=(attempt(),))
    assert each.operation == "/v2/me"
    assert min(timeit.repeat(lambda: tally.request_ended(each), number=2_000, repeat=10)) / 2_000 < 5e-6
