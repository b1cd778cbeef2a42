"""Metrics: what is scraped is in the format that was asked for, and as Prometheus wants it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from slproxy.observe import Metrics, Tally, Wait
from tests.support.docs import table
from tests.support.metrics import READINGS, attempt, exchange, page_of, series

TEXT, OPENMETRICS = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0"


def full() -> Tally:
    """Return what was counted of a request to which everything happened."""
    tally = Tally()
    tally.request_ended(
        exchange(
            error="over-budget",
            aborted="client left",
            not_retried="method not repeatable",
            attempts=(attempt(503), attempt(reason="503")),
            waits=(Wait(reason="rate limit", began=1.0, ended=2.0),),
        )
    )
    return tally


def asked(accept: str) -> tuple[str, str]:
    content_type, body = Metrics(full(), lambda: READINGS).page(accept)
    return content_type, body.decode()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", TEXT),
        # Prometheus 2.42, and 3.
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75", OPENMETRICS),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3",
            OPENMETRICS,
        ),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0"),
        # What is no version, or none that there is, is not repeated.
        ("application/openmetrics-text;version=x", TEXT),
        ("application/openmetrics-text;version=99.0.0\x7f;charset=x", TEXT),
        ("text/plain;version=1.0.0;x=<script>", TEXT),
        (";;,=,;version=", TEXT),
    ],
)
def test_the_format_is_what_accept_asks_for(accept: str, content_type: str) -> None:
    told, body = asked(accept)
    assert told.startswith(content_type)
    assert body.endswith("# EOF\n") == (content_type == OPENMETRICS)


def test_openmetrics_parses_and_says_the_same() -> None:
    _, body = asked("application/openmetrics-text;version=1.0.0")
    families = openmetrics_families(body)  # type: ignore[no-untyped-call]
    samples = [sample for family in families for sample in family.samples]
    assert len(samples) == len(series(page_of(full())))


def test_promtool_finds_nothing_to_say_of_the_names() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool here (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page_of(full()).encode(), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    tally, evil = Tally(), 'a"} 1\nslproxy_ready{x="\\'
    tally.request_ended(exchange(client=evil))
    assert series(page_of(tally))[f"slproxy_client_requests_total{{client={evil}}}"] == 1


def test_without_a_budget_and_an_expiry_none_is_told() -> None:
    found = series(page_of(Tally(), replace(READINGS, budget=None, token_expiry=None)))
    assert not any("slproxy_budget" in name or "expiry" in name for name in found)
    assert found["slproxy_connections{side=client}"] == 4


def test_each_metric_is_documented_with_its_type_and_labels() -> None:
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for names, kind, labels, _ in table("metrics.md", "Names")
        for name in re.findall(r"`(\w+)`", names)
    }
    page, found = page_of(full()), {}
    for name, kind in re.findall(r"^# TYPE (slproxy_\w+) (\w+)$", page, re.MULTILINE):
        sample = re.search(rf"^{name}(?:_bucket)?(?:\{{(.*)\}})? ", page, re.MULTILINE)
        assert sample is not None, name
        found[name] = (kind, set(re.findall(r'(\w+)="', sample[1] or "")) - {"le"})
    assert documented == found
