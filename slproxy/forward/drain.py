"""Drain: whether the proxy is shutting down, and by when. One for the whole process, whatever a reload replaces."""

from __future__ import annotations

import math


class Drain:
    """The end of the proxy; no request is taken once it ``has_begun``, and those in flight have until ``ends_at``."""

    def __init__(self) -> None:
        # Monotonic, in seconds.
        self.ends_at = math.inf

    @property
    def has_begun(self) -> bool:
        """Whether the proxy is shutting down."""
        return self.ends_at < math.inf

    def begin(self, *, ends_at: float) -> None:
        """Shut down: those in flight have until ``ends_at``, those of before a reload as well."""
        self.ends_at = min(self.ends_at, ends_at)
