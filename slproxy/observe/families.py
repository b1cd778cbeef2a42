"""Families: the metrics under their names (docs/metrics.md, Names), as Prometheus would have them.

https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from slproxy.observe.readings import BudgetReading, Readings
from slproxy.observe.tally import Histogram, Tally
from slproxy.observe.top_labels import OTHER, TopLabels

PRIORITIES = ("interactive", "bulk")


def registry(tally: Tally, read: Callable[[], Readings]) -> CollectorRegistry:
    """Return all that is scraped: the proxy's own, the process, and Python's collector of garbage."""
    made = CollectorRegistry()
    made.register(_Families(tally, read))
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=made)
    return made


class _Families(Collector):
    """The proxy's own metrics, made anew for each scrape."""

    def __init__(self, tally: Tally, read: Callable[[], Readings]) -> None:
        self._tally, self._read = tally, read

    def describe(self) -> Iterable[Metric]:
        """Tell of no names: a registry would read everything for them."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        yield from _requests(self._tally)
        yield from _attempts(self._tally)
        yield from _shares("client", self._tally.clients)
        yield from _shares("operation", self._tally.operations)
        yield from _now(self._read())


def _requests(tally: Tally) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "slproxy_requests", "Requests that have ended, less those for the proxy's own pages.", labels=("method", "code")
    )
    for (method, status), count in tally.requests.items():
        requests.add_metric((method, str(status or OTHER)), count)
    yield requests
    durations = HistogramMetricFamily(
        "slproxy_request_duration_seconds", "From a request's head to its answer's end.", labels=("priority",)
    )
    for priority, histogram in zip(PRIORITIES, tally.durations, strict=True):
        _add(durations, (priority,), histogram)
    yield durations
    waits = HistogramMetricFamily(
        "slproxy_wait_duration_seconds", "Times in which nothing was sent for a request.", labels=("reason", "priority")
    )
    for (reason, bulk), histogram in tally.waits.items():
        _add(waits, (_word(reason), PRIORITIES[bulk]), histogram)
    yield waits
    yield _counter("slproxy_problems", "Requests that the proxy answered with a problem.", "type", tally.problems)
    yield _counter("slproxy_aborts", "Answers that did not end well.", "reason", tally.aborts)
    yield _counter("slproxy_token_renewals", "Renewals of the token.", "result", tally.renewals)


def _attempts(tally: Tally) -> Iterator[Metric]:
    yield _counter(
        "slproxy_attempts", "Sends to SalesLoft, by the reply's status or what went wrong.", "outcome", tally.attempts
    )
    durations = HistogramMetricFamily(
        "slproxy_attempt_duration_seconds", "From a send to the head of SalesLoft's reply."
    )
    _add(durations, (), tally.attempt_durations)
    yield durations
    yield _counter("slproxy_retries", "Sends after the first, by what came of the one before.", "reason", tally.retries)
    yield _counter("slproxy_not_retried", "Failures with no further send, by why.", "reason", tally.not_retried)


def _shares(label: str, labels: TopLabels) -> Iterator[Metric]:
    """Yield what each client, or each operation, took."""
    requests = CounterMetricFamily(f"slproxy_{label}_requests", f"Accepted requests, by {label}.", labels=(label,))
    cost = CounterMetricFamily(f"slproxy_{label}_cost", f"What SalesLoft said they cost, by {label}.", labels=(label,))
    cells = {**labels.cells, OTHER: labels.other}
    for name, cell in cells.items():
        requests.add_metric((name,), cell.requests)
        cost.add_metric((name,), cell.cost)
    yield requests
    yield cost


def _now(readings: Readings) -> Iterator[Metric]:
    yield InfoMetricFamily("slproxy_build", "The version that runs.", {"version": readings.version})
    yield GaugeMetricFamily("slproxy_ready", "Whether readyz says yes.", readings.is_ready)
    yield GaugeMetricFamily(
        "slproxy_login_required", "Whether nothing but a new login helps: slproxy login.", readings.needs_login
    )
    expiry = GaugeMetricFamily("slproxy_token_expiry_timestamp_seconds", "When the token in use expires, in Unix time.")
    if readings.token_expiry is not None:
        expiry.add_metric((), readings.token_expiry)
    yield expiry
    yield GaugeMetricFamily("slproxy_requests_in_flight", "Requests that have not ended.", readings.in_flight)
    connections = GaugeMetricFamily("slproxy_connections", "Open connections, idle ones as well.", labels=("side",))
    connections.add_metric(("client",), readings.client_connections)
    connections.add_metric(("upstream",), readings.upstream_connections)
    yield connections
    if readings.budget is not None:
        yield from _budget(readings.budget)


def _budget(budget: BudgetReading) -> Iterator[Metric]:
    yield GaugeMetricFamily("slproxy_budget_limit", "Cost that the team may spend in a minute.", budget.limit)
    yield GaugeMetricFamily("slproxy_budget_quota", "What this proxy may spend of that.", budget.quota)
    yield GaugeMetricFamily("slproxy_budget_remaining", "What is left of that in this minute.", budget.remaining)
    yield CounterMetricFamily(
        "slproxy_external_cost", "Cost that others of the team have spent, as the budget shows.", budget.by_others
    )
    queued = GaugeMetricFamily("slproxy_queued_requests", "Requests that wait for the budget.", labels=("priority",))
    for priority, count in zip(PRIORITIES, (budget.interactive, budget.bulk), strict=True):
        queued.add_metric((priority,), count)
    yield queued


def _counter(name: str, what: str, label: str, counts: Mapping[str, int] | Mapping[int | str, int]) -> Metric:
    family = CounterMetricFamily(name, what, labels=(label,))
    for key, count in counts.items():
        family.add_metric((_word(str(key)),), count)
    return family


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram) -> None:
    family.add_metric(labels, histogram.buckets(), histogram.total)


def _word(text: str) -> str:
    """Return a label's value as one word."""
    return text.replace(" ", "_")
