"""Who runs which test under ``pytest -n``: the next worker that is free, but for files that go as a whole."""

from __future__ import annotations

import os

from xdist.scheduler import LoadScopeScheduling

# Files with a module's fixture that costs more than their tests: a browser, two other proxies, an image.
TOGETHER = {
    "tests/attacks/test_browser.py",
    "tests/attacks/test_oracle.py",
    "tests/clients/test_containers.py",
    "tests/clients/test_openapi.py",
}


def count() -> int:
    """Return how many workers pay: the tests wait more than they work."""
    return min(3 * (os.cpu_count() or 1), 12)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """xdist's scheduler of whole files, which takes the largest first, with a test for a file.

    Its own ``--dist loadgroup`` groups nothing under pytest 9.2: it sets a name of an item that no longer counts.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid
