"""Rate limit headers: what a reply tells of the budget."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from slproxy.pace import RateLimitHeaders
from tests.support.desk import UNIX


@pytest.mark.parametrize(
    ("status", "headers", "what"),
    [
        (200, {}, RateLimitHeaders()),
        (200, {"x-ratelimit-endpoint-cost": "5"}, RateLimitHeaders(cost=5)),
        (200, {"x-ratelimit-endpoint-cost": "0"}, RateLimitHeaders(cost=0)),
        (200, {"x-ratelimit-remaining-minute": "0"}, RateLimitHeaders(remaining=0)),
        (200, {"x-ratelimit-remaining-minute": "-3"}, RateLimitHeaders(remaining=0)),
        (200, {"x-ratelimit-endpoint-cost": "-3"}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "many"}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "12.5"}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "9" * 10}, RateLimitHeaders()),
        (200, {"x-ratelimit-remaining-minute": "٣"}, RateLimitHeaders()),
        (200, {"x-ratelimit-limit-minute": "900"}, RateLimitHeaders(limit=900)),
        (200, {"x-ratelimit-limit-minute": "0"}, RateLimitHeaders()),
        (200, {"Date": formatdate(UNIX, usegmt=True)}, RateLimitHeaders(date=UNIX)),
        (200, {"Date": "yesterday"}, RateLimitHeaders()),
        (200, {"Date": formatdate(UNIX, usegmt=True), "Age": "7"}, RateLimitHeaders()),
        (401, {}, RateLimitHeaders(unauthorized=True)),
        (429, {}, RateLimitHeaders(refused=True)),
        (429, {"Retry-After": "7"}, RateLimitHeaders(refused=True, retry_after=7.0)),
        (
            429,
            {"Retry-After": formatdate(UNIX + 9, usegmt=True), "Date": formatdate(UNIX, usegmt=True)},
            RateLimitHeaders(refused=True, retry_after=9.0, date=UNIX),
        ),
        (429, {"Retry-After": formatdate(UNIX + 109, usegmt=True)}, RateLimitHeaders(refused=True, retry_after=9.0)),
        (503, {"Retry-After": "7"}, RateLimitHeaders()),
    ],
)
def test_what_a_reply_tells(status: int, headers: dict[str, str], what: RateLimitHeaders) -> None:
    first = {name.lower().encode(): value.encode() for name, value in headers.items()}
    assert RateLimitHeaders.parse(status, first, now=UNIX + 100) == what
