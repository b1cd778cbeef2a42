"""The sandbox's budget: a team's cost per clock minute."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import ClientSession

from slproxy.sandbox import Options, running
from slproxy.sandbox.limits.budget import MinuteBudget, cost
from tests.support.sandboxes import bearer

MINUTE = 1_750_000_020.0


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([], 1),
        (["1"], 1),
        (["100"], 1),
        (["101"], 3),
        (["150"], 3),
        (["151"], 8),
        (["250"], 8),
        (["251"], 10),
        (["500"], 10),
        (["501"], 30),
        (["99999"], 30),
        (["-5"], 1),
        (["two"], 1),
        (["501", "1"], 1),
    ],
)
def test_a_deep_page_costs_more(pages: Sequence[str], expected: int) -> None:
    assert cost(pages) == expected


def test_a_budget_lasts_one_clock_minute() -> None:
    budget = MinuteBudget(10)
    assert budget.spend(7, MINUTE + 59.9)
    assert budget.remaining(MINUTE + 59.9) == 3
    assert not budget.spend(4, MINUTE + 59.9)
    assert budget.remaining(MINUTE + 59.9) == 3, "what is refused is not spent"
    assert budget.remaining(MINUTE + 60) == 10
    assert budget.spend(10, MINUTE + 60)
    assert budget.remaining(MINUTE + 60) == 0


async def test_every_answer_tells_its_cost_what_is_left_and_the_time() -> None:
    async with running(clock=lambda: MINUTE + 5) as sandbox, ClientSession() as session:
        headers = bearer(sandbox)
        told = []
        for target in ("/v2/me", "/v2/people?page=151", "/v2/nothing"):
            async with session.get(sandbox.url + target, headers=headers) as response:
                told.append(
                    tuple(
                        response.headers[f"x-ratelimit-{n}"]
                        for n in ("endpoint-cost", "remaining-minute", "limit-minute")
                    )
                )
                assert parsedate_to_datetime(response.headers["Date"]).timestamp() == MINUTE + 5
        assert told == [("1", "599", "600"), ("8", "591", "600"), ("1", "590", "600")]


async def test_over_budget_is_429_until_the_next_clock_minute() -> None:
    async with running(Options(budget=5), clock=lambda: MINUTE) as sandbox, ClientSession() as session:
        headers = bearer(sandbox)

        async def ask(target: str) -> int:
            async with session.get(sandbox.url + target, headers=headers) as response:
                if response.status == 429:
                    assert await response.json() == {"error": "API rate limit exceeded"}
                    assert "Retry-After" not in response.headers
                    assert response.headers["x-ratelimit-remaining-minute"] == str(sandbox.remaining())
                return response.status

        sandbox.spend(3)
        assert await ask("/v2/people?page=101") == 429
        assert [await ask("/v2/me") for _ in range(3)] == [200, 200, 429]
        sandbox.advance(60)
        assert await ask("/v2/people?page=101") == 200
        sandbox.spend(1_000)
        assert sandbox.remaining() == 0
