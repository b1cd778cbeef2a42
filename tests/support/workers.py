"""Who runs which test under ``pytest -n``: the next worker that is free, but for files that go as a whole.

And how the workers share what they load, which takes each of them longer than most tests.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.support import ROOT

# Files with a module's fixture that costs more than their tests: a browser, two other proxies, an image.
TOGETHER = {
    "tests/attacks/test_browser.py",
    "tests/attacks/test_oracle.py",
    "tests/clients/test_image.py",
    "tests/clients/test_openapi.py",
    "tests/inspect/test_page_in_browser.py",
}


def count() -> int:
    """Return how many workers pay: the tests wait more than they work."""
    return min(3 * (os.cpu_count() or 1), 12)


def load(worker: int, workers: int, arguments: Sequence[str]) -> None:
    """Import the files of tests, each worker from another place on: what one has compiled, the others find.

    To rewrite and compile them takes twice as long as all else that a worker does before its first test.
    """
    paths = [Path(argument.partition("::")[0]) for argument in arguments]
    found = (file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path]))
    files = sorted(file for file in found if "node_modules" not in file.parts)
    first = len(files) * worker // workers
    for file in (*files[first:], *files[:first]):
        # What cannot be imported is told when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception), warnings.catch_warnings(action="error"):
            importlib.import_module(".".join(file.resolve().relative_to(ROOT).with_suffix("").parts))


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """xdist's scheduler of whole files, which takes the largest first, with a test for a file.

    Its own ``--dist loadgroup`` groups nothing under pytest 9.2: it sets a name of an item that no longer counts.
    """

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Forget what is done: at each test, xdist counts all that the worker has ever been given."""
        super().mark_test_complete(node, item_index, duration)
        given = self.assigned_work[node]
        scope = self._split_scope(self.registered_collections[node][item_index])
        if all(given[scope].values()):
            del given[scope]

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid
