"""Fixtures and options that more than one file of tests wants."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from slproxy.sandbox import Sandbox
from tests.support import forkserver, replicas, workers
from tests.support.costs import Costs
from tests.support.redis import redis_server
from tests.support.sandboxes import running_sandbox

# Properties are tried with the same cases each time, and a slow machine fails none of them; others are looked for with
# ``--hypothesis-profile search``.
settings.register_profile(
    "same", max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("same"), max_examples=10_000, derandomize=False)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what makes the long runs longer."""
    parser.addoption("--fuzz", type=int, default=4_000, help="mutated messages that the fuzz tests send; CI: 20000")
    parser.addoption("--ledger", type=int, default=5_000, help="POSTs that the ledger test sends")
    parser.addoption(
        "--kills", type=int, default=20, help="kills around a renewal; from 100 on, a login gets each signal everywhere"
    )
    parser.addoption("--kills-to", type=Path, help="file for the figures of the kill test, in JSON")
    parser.addoption("--long", action="store_true", help="also what takes minutes, at its full length")
    parser.addoption("--podman", metavar="PATH", help="run the image in podman: this one, which has it (.ci/image)")
    parser.addoption("--packages", action="store_true", help="build the packages, and install them in new environments")
    parser.addoption("--data", metavar="PATH", help="load by dlt and Singer, which this environment has (make data)")
    parser.addoption("--site", metavar="FOLDER", help="check the site that was built there (make docs)")
    parser.addoption("--costs", type=int, metavar="N", help="also print the N files and tests that cost most")


def pytest_configure(config: pytest.Config) -> None:
    # A settings file that a group may write does not count where nobody named it (docs/contract.md, Settings).
    os.umask(0o022)
    if (rows := config.getoption("--costs")) is not None:
        config.pluginmanager.register(Costs(rows))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Collect no garbage while a failure is worded: what is left open would be worded in the middle of it.

    Up to Python 3.11 ``ast.parse`` within ``ast.parse`` is a SystemError, and the end of all tests of the worker:
    https://github.com/python/cpython/issues/106905
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return (yield)
    finally:
        if collecting:
            gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Load the tests, together with the other workers; collect no garbage meanwhile, nor ever of what they are."""
    gc.disable()
    try:
        worker = getattr(session.config, "workerinput", None)
        if worker is not None:
            workers.load(int(worker["workerid"].removeprefix("gw")), worker["workercount"], session.config.args)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Say what ``-n auto`` means."""
    return workers.count()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> workers.Scheduling:
    return workers.Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def only_forked_programs_are_measured() -> None:
    """Keep coverage out of programs that die at each system call, or on a disk that has no room for its file."""
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        forkserver.server()
        del os.environ["COVERAGE_PROCESS_CONFIG"]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """A fake SalesLoft on a socket of its own."""
    async with running_sandbox() as running:
        yield running


@pytest.fixture(params=["file", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[replicas.Place]:
    """A store for several processes."""
    if request.param == "file":
        yield replicas.in_a_file(tmp_path / "stored" / "token.json")
        return
    with redis_server() as url:
        async with replicas.in_redis(url) as made:
            yield made
