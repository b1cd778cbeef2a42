"""What tests cost: processor time and wall time, by test and by file; ``--costs`` prints them.

The processor time is that of the test's worker and of the processes that it has waited for: a server that runs for a
whole module counts where the module ends.
"""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Generator

import pytest

from tests.support import forkserver

CPU = "cpu"


def spent() -> float:
    """Return the seconds that this process and its ended children have worked."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both) + forkserver.server().worked


class Costs:
    """Plugin: a worker measures each phase of a test, and whoever prints the summary adds them up."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._before = spent()
        # Processor and wall time, by test.
        self._costs: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now = spent()
        report.user_properties = [*report.user_properties, (CPU, now - self._before)]
        self._before = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        costs = self._costs[report.nodeid]
        costs[0] += sum(float(str(value)) for name, value in report.user_properties if name == CPU)
        costs[1] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for test, costs in self._costs.items():
            for of in (files[test.partition("::")[0]], files["in all"]):
                of[0] += costs[0]
                of[1] += costs[1]
        for title, rows in (("file", files), ("test", self._costs)):
            terminalreporter.section(f"costs by {title}: seconds of processor, seconds in all")
            for name, (cpu, wall) in sorted(rows.items(), key=lambda row: -row[1][0])[: self._rows]:
                terminalreporter.write_line(f"{cpu:8.2f} {wall:8.2f}  {name}")
