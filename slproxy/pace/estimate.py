"""Estimated wait: after how long a request would be sent, as things stand."""

from __future__ import annotations

import math
from collections.abc import Iterable

from slproxy.retry import MINUTE


def room_in(inside: int, *, waiting: int, in_flight: int, first_wait: float) -> int:
    """Return the seconds after which the first of so many requests ``inside`` will have ended.

    It is not known of those that SalesLoft has, or that have their answers: soon. Where hardly anybody but those inside
    is ``waiting`` for the budget, and the first of them for ``first_wait`` seconds, nobody ends earlier.
    """
    return 1 if in_flight or 2 * waiting < inside else max(1, math.ceil(first_wait))


def estimated_wait(
    costs: Iterable[int], *, blocked: float, opening: float, left: float, team: float, growth: float, per_minute: float
) -> float:
    """Return the seconds until the last of some requests is sent that go one after the other.

    Nothing is sent for ``blocked`` seconds; the next minute opens in ``opening`` and brings ``per_minute``. Of this one
    ``left`` is ours now and ``growth`` comes each second, while there is any ``team`` budget.
    """
    wait = blocked
    if blocked >= opening:
        left, growth = per_minute, 0.0
    for cost in costs:
        price = min(cost, per_minute)
        left -= price
        team -= price
        if left >= 0:
            continue
        if growth and team >= 0 and -left / growth < opening:
            wait = max(wait, -left / growth)
            continue
        wait = opening + MINUTE * max(0, math.floor((wait - opening) / MINUTE) + 1)
        left, growth = per_minute - price, 0.0
    return wait
