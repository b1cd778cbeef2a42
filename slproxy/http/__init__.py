"""HTTP's own notions: header fields and dates."""

from slproxy.http.dates import MINUTE, parsed_date, retry_after
from slproxy.http.fields import ByName, Fields, RawHeaders, by_name, size

__all__ = [
    "MINUTE",
    "ByName",
    "Fields",
    "RawHeaders",
    "by_name",
    "parsed_date",
    "retry_after",
    "size",
]
