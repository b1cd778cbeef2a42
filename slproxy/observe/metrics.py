"""Metrics: what was counted and what is read at the moment, as Prometheus scrapes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from slproxy.observe.readings import Readings
from slproxy.observe.tally import Tally

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

# What of Accept is understood: prometheus-client repeats any version in Content-Type, and fails on one that is none.
_RANGE = re.compile(
    r"(application/openmetrics-text|text/plain)"
    r"(\s*;\s*(version=(0\.0\.[14]|1\.0\.0)|charset=[\w-]+|escaping=[\w-]+|q=[\d.]+))*"
)


class Metrics:
    """The page for Prometheus; its library is loaded when somebody asks."""

    def __init__(self, tally: Tally, read: Callable[[], Readings]) -> None:
        self._tally, self._read = tally, read
        self._registry: CollectorRegistry | None = None

    def page(self, accept: str) -> tuple[str, bytes]:
        """Return its content type and text, in the format that ``accept``, a request's header, asks for."""
        # Takes 10 ms to load, and most proxies are never scraped.
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

        if self._registry is None:
            from slproxy.observe.families import registry  # noqa: PLC0415  # as above

            self._registry = registry(self._tally, self._read)
        ranges = (each.strip() for each in accept.split(","))
        encode, content_type = choose_encoder(",".join(each for each in ranges if _RANGE.fullmatch(each)))
        return content_type, encode(self._registry)
