"""Answer the API's requests: which operation, which records, what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import body
from .crud import Answer, Call, RefusedError, invalid, missing, plainly
from .definition import Definition
from .odd import ODD
from .query import parse
from .records import Records


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """Hold what an answer depends on: the target as received, and the body with its content headers."""

    method: str
    target: str
    content_type: str = ""
    encoding: str = ""
    body: bytes = b""


def answer(definition: Definition, records: Records, arrival: Arrival, now: float) -> Answer:
    """Answer a request that has passed authentication and budget."""
    path, _, raw = arrival.target.partition("?")
    try:
        matched = definition.match(arrival.method, path)
        if matched is None:
            return recording(arrival.method, path) or missing().answer
        operation, ids = matched
        query = parse(raw)
        # Some operations take all they need in the query, and their POST has no body: docs/salesloft.md, API.
        given: Mapping[str, object] = {
            **body.nested(query),
            **body.fields(arrival.body, arrival.content_type, arrival.encoding),
        }
        writes = operation.method in ("POST", "PUT") and not (
            operation.data and operation.data.many and operation.query
        )
        values, errors = body.checked(operation, given) if writes else ({}, {})
        if errors:
            return invalid(errors).answer
        call = Call(
            operation=operation,
            kinds=definition.schema(operation),
            ids=ids,
            query=query,
            values=values,
            records=records,
            now=now,
        )
        return ODD.get((operation.method, operation.path), plainly)(call)
    except RefusedError as refused:
        return refused.answer
    except body.BodyError as unreadable:
        return Answer(400, {"error": str(unreadable)})


def recording(method: str, path: str) -> Answer | None:
    """Send a reader of a conversation's recording to a signed URL on another host (docs/salesloft.md, API)."""
    names = path.removesuffix("/").split("/")
    if method in ("GET", "HEAD") and names[:3] == ["", "v2", "conversations"] and names[4:] == ["recording"]:
        url = f"https://recordings.example.com/{names[3]}.mp3?X-Amz-Expires=300&X-Amz-Signature={'5a' * 32}"
        return Answer(302, None, {"Location": url})
    return None
