"""Time to the floor: the simulation of ``benchmarks.pacing`` within 1.10 of it."""

from __future__ import annotations

import pytest

from benchmarks.pacing import LIMIT, Row, Team, a_minute, naive, paced, redis_server

# It is arithmetic: the same whatever versions we stand on.
pytestmark = pytest.mark.heavy

SEEDS = range(3)


def within(row: Row, *, ratio: float, refused: float) -> None:
    """Hold a row to a share of the floor, and to so many 429s upstream for each 1,000 requests."""
    assert row.ratio <= ratio, row
    assert row.refused_per_1000 <= refused, row
    assert row.seen_by_clients == 0, row


@pytest.mark.parametrize("seed", SEEDS)
def test_alone_a_job_takes_the_least_time_that_the_budget_allows(seed: int) -> None:
    within(paced("", seed), ratio=1.02, refused=0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_beside_others_who_spend_untold(seed: int) -> None:
    within(paced("", seed, external_spend=0.3), ratio=1.10, refused=1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_a_minute_that_slides(seed: int) -> None:
    within(paced("", seed, team=Team(LIMIT, "sliding")), ratio=1.2, refused=2.0)


@pytest.mark.parametrize("external_spend", [0.0, 0.3])
def test_four_replicas_with_a_redis(external_spend: float) -> None:
    with redis_server() as redis:
        if redis is None:
            pytest.skip("there is no redis-server")
        within(
            paced("", 1, processes=4, redis=redis, external_spend=external_spend),
            ratio=1.02 if not external_spend else 1.10,
            refused=1.0,
        )


@pytest.mark.parametrize("ahead", [-1.0, 0.5, 2.0])
def test_where_date_tells_another_time_than_the_one_that_counts(ahead: float) -> None:
    """That both are one clock is inferred only (docs/salesloft.md, Rate limit)."""
    within(paced("", 1, ahead=ahead), ratio=1.02, refused=1.0)


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_more_clients_than_a_minute_serves(seed: int) -> None:
    within(paced("", seed, clients=200, external_spend=0.3), ratio=1.10, refused=1.0)


def test_no_replica_is_left_out_when_many_ask() -> None:
    with redis_server() as redis:
        if redis is None:
            pytest.skip("there is no redis-server")
        within(paced("", 1, processes=4, redis=redis, clients=80), ratio=1.02, refused=0.0)


def test_replicas_in_a_minute_that_slides_go_by_their_replies() -> None:
    with redis_server() as redis:
        if redis is None:
            pytest.skip("there is no redis-server")
        row = paced("", 1, processes=1, redis=redis, team=Team(LIMIT, "sliding"), requests=1500)
        within(row, ratio=1.10, refused=1.0)


def test_four_processes_that_share_nothing() -> None:
    within(paced("", 1, processes=4), ratio=1.05, refused=12.0)


def test_clients_that_help_themselves_see_what_they_do_not_see_through_slproxy() -> None:
    """The model is no friend of ours: without a proxy it refuses."""
    row = naive("", 1, pause=a_minute)
    assert row.seen_by_clients > 100
    assert row.ratio > paced("", 1).ratio


def test_no_client_overdraws_a_budget_of_its_own_however_many_replicas_it_asks() -> None:
    with redis_server() as redis:
        if redis is None:
            pytest.skip("there is no redis-server")
        row = paced("", 1, processes=3, redis=redis, clients=10, own_budget=50)
    assert row.most_of_a_minute == 50
    assert row.seen_by_clients == 0
    # Ten times 50 of 600: what holds them is their own budgets, which they spend as if there was nothing else.
    assert row.seconds <= 1.1 * row.floor * LIMIT / (10 * 50)
