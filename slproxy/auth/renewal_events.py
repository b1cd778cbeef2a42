"""Renewal events: listeners are told, and none of their defects costs a token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from slproxy.observe import Renewal

log = logging.getLogger("slproxy.auth")


def tell(listeners: Iterable[Callable[[Renewal], None]], renewal: Renewal) -> None:
    """Tell each listener of a renewal; one that fails is logged, and ends neither this renewal nor the next ones."""
    for each in listeners:
        try:
            each(renewal)
        except Exception:
            # The outermost frame of a listener: what it raises is its own defect.
            log.exception("a defect in a listener, told of a renewal")
