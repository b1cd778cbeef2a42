"""HTTP basics: header fields and dates."""

from slproxy.http.dates import http_date, parsed_date, retry_after
from slproxy.http.fields import ByName, Fields, RawHeaders, by_name, encoded, size

__all__ = [
    "ByName",
    "Fields",
    "RawHeaders",
    "by_name",
    "encoded",
    "http_date",
    "parsed_date",
    "retry_after",
    "size",
]
