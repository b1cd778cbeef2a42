"""Costs: what a request takes of the team's budget, predicted from its target and learned from replies.

Costs are whole numbers; a page of a list costs by its number (docs/salesloft.md, Rate limit).
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from urllib.parse import unquote_plus

# A page above the first number costs the second (docs/salesloft.md, Rate limit).
PAGE_COSTS = ((500, 30), (250, 10), (150, 8), (100, 3))
# How many endpoints are remembered; SalesLoft has some 120 operations.
MAX_ENDPOINTS = 500
# How much of a path names an endpoint, in characters.
MAX_PATH = 100

_ID = re.compile(r"(?<=/)(?:[0-9]+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?=[/.]|\Z)")
# However many zeros there are before it.
_PAGE = re.compile(r"0*+([0-9]{1,9})")


@functools.lru_cache(maxsize=1024)
def endpoint_of(method: str, path: str) -> str:
    """Return the name of an endpoint, such as ``GET /v2/people/{id}``.

    Ids of records, ``.json`` and a last slash are left out: they make no other endpoint.
    """
    return f"{method} {_ID.sub('{id}', path).rstrip('/').removesuffix('.json') or '/'}"


def page_cost(query: str) -> int:
    """Return the cost by the ``page`` of a raw query; the last one counts, as in Rails."""
    for part in reversed(query.split("&")):
        name, _, value = part.partition("=")
        if unquote_plus(name) == "page":
            page = _PAGE.fullmatch(unquote_plus(value))
            known = 1 if page is None else int(page[1])
            return next((cost for above, cost in PAGE_COSTS if known > above), 1)
    return 1


class Costs:
    """What the endpoints were last said to cost, the least recently learned forgotten first."""

    def __init__(self) -> None:
        self._learned: OrderedDict[tuple[str, int], int] = OrderedDict()

    def predict(self, method: str, target: str) -> tuple[str, int, int]:
        """Return the endpoint of a request, what its page costs by the table, and what it will cost.

        That is what was learned of the endpoint at that page cost, else the table's. An endpoint that costs more than 1
        on its first pages costs no less on the deep ones. A long path is cut.
        """
        path, _, query = target.partition("?")
        endpoint = endpoint_of(method, path[:MAX_PATH])
        may_have_page = query.startswith("page=") or "&page=" in query or "%" in query
        page = page_cost(query) if may_have_page else 1
        learned = self._learned.get((endpoint, page))
        if learned is None:
            learned = max(page, self._learned.get((endpoint, 1), 1)) if page > 1 else 1
        return endpoint, page, learned

    def learn(self, endpoint: str, page_cost: int, cost: int) -> None:
        """Learn what the upstream said that a request cost (``x-ratelimit-endpoint-cost``)."""
        self._learned[endpoint, page_cost] = cost
        self._learned.move_to_end((endpoint, page_cost))
        if len(self._learned) > MAX_ENDPOINTS:
            self._learned.popitem(last=False)
