"""Metrics as a scrape gets them, and requests to count."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from slproxy.observe import Attempt, BudgetReading, Exchange, Metrics, Readings, Tally, Wait

# What is so at some moment.
READINGS = Readings(
    version="1.2.3",
    is_ready=True,
    needs_login=False,
    token_expiry=1_800_000_000.0,
    budget=BudgetReading(limit=600, quota=540, remaining=500, interactive=1, bulk=2, by_others=70),
    in_flight=3,
    client_connections=4,
    upstream_connections=5,
)

Series = dict[str, float]


def page_of(tally: Tally, readings: Readings = READINGS) -> str:
    """Return the page of what was counted."""
    return Metrics(tally, lambda: readings).page("")[1].decode()


def series(page: str) -> Series:
    """Return the value of each series, by its name with its labels in order: ``name{a=1,b=2}``."""
    found: Series = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, f"{name} is there twice"
            found[name] = sample.value
    return found


def exchange(
    *,
    method: str = "GET",
    path: str = "/v2/me.json",
    seconds: float = 3.0,
    status: int = 200,
    client: str = "curl",
    bulk: bool = False,
    error: str = "",
    aborted: str = "",
    not_retried: str = "",
    attempts: tuple[Attempt, ...] = (),
    waits: tuple[Wait, ...] = (),
) -> Exchange:
    """Return a request that has ended."""
    made = Exchange(
        method=method,
        path=path,
        began=10.0,
        ended=10.0 + seconds,
        status=status,
        client=client,
        bulk=bulk,
        error=error,
        aborted=aborted,
        not_retried=not_retried,
    )
    made.attempts.extend(attempts)
    made.waits.extend(waits)
    return made


def attempt(status: int | None = 200, *, reason: str = "", fault: str = "", cost: int = 1) -> Attempt:
    return Attempt(began=10.0, ended=10.2, status=status, reason=reason, fault=fault, cost=cost)
