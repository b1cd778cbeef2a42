"""HTTP dates and Retry-After."""

from __future__ import annotations

import functools
import re
from datetime import UTC

# In characters; the longest of the three forms has 33 (RFC 9110 §5.6.7).
LONGEST_DATE = 64
_DELTA_SECONDS = re.compile(r"[0-9]+")


def http_date(now: float) -> str:
    """Return a Unix time as an HTTP date (RFC 9110 §5.6.7)."""
    from email.utils import formatdate  # noqa: PLC0415  # takes its time to load, and most commands need no date

    return formatdate(now, usegmt=True)


def retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for (RFC 9110 §10.2.3), or ``None`` if it is absent or junk."""
    if value is None:
        return None
    if _DELTA_SECONDS.fullmatch(value.strip()):
        return float(value)
    then = parsed_date(value)
    return None if then is None else max(then - now, 0.0)


def parsed_date(value: str) -> float | None:
    """Return the Unix time of an HTTP date, or ``None`` if it is none."""
    # The replies of a second share it; what is longer than any date is not kept.
    return _parsed_date(value) if len(value) <= LONGEST_DATE else _parsed_date.__wrapped__(value)


@functools.lru_cache(maxsize=64)
def _parsed_date(value: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # as above

    try:
        date = parsedate_to_datetime(value)
        # RFC 9110 §5.6.7: every form is in UTC, also asctime's, which does not say so.
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
