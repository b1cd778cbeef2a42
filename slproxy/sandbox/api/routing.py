"""Routing: which operation a request calls, and with which values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slproxy.sandbox.api import body
from slproxy.sandbox.api.call import ApiError, ApiResponse, OperationCall, invalid_fields, not_found
from slproxy.sandbox.api.crud import default_response
from slproxy.sandbox.api.query import parse_query
from slproxy.sandbox.api.special import SPECIAL
from slproxy.sandbox.data.definition import Definition
from slproxy.sandbox.data.records import CrmRecords


@dataclass(frozen=True, kw_only=True)
class IncomingRequest:
    """Hold what a response depends on: the target as received, and the body with its content headers."""

    method: str
    target: str
    content_type: str = ""
    encoding: str = ""
    body: bytes = b""


def respond(definition: Definition, records: CrmRecords, request: IncomingRequest, now: float) -> ApiResponse:
    """Answer a request that has passed authentication and budget."""
    path, _, raw = request.target.partition("?")
    try:
        matched = definition.match(request.method, path)
        if matched is None:
            return recording(request.method, path) or not_found().response
        operation, ids = matched
        query = parse_query(raw)
        # Some operations take all they need in the query, and their POST has no body: docs/salesloft.md, API.
        given: Mapping[str, object] = {
            **body.form_fields(query),
            **body.body_fields(request.body, request.content_type, request.encoding),
        }
        writes = operation.method in ("POST", "PUT") and not (
            operation.data and operation.data.many and operation.query
        )
        values, errors = body.checked_fields(operation, given) if writes else ({}, {})
        if errors:
            return invalid_fields(errors).response
        call = OperationCall(
            operation=operation,
            schema=definition.schema(operation),
            ids=ids,
            query=query,
            values=values,
            records=records,
            now=now,
        )
        return SPECIAL.get((operation.method, operation.path), default_response)(call)
    except ApiError as error:
        return error.response
    except body.BodyError as unreadable:
        return ApiResponse(400, {"error": str(unreadable)})


def recording(method: str, path: str) -> ApiResponse | None:
    """Send a reader of a conversation's recording to a signed URL on another host (docs/salesloft.md, API)."""
    names = path.removesuffix("/").split("/")
    if method in ("GET", "HEAD") and names[:3] == ["", "v2", "conversations"] and names[4:] == ["recording"]:
        url = f"https://recordings.example.com/{names[3]}.mp3?X-Amz-Expires=300&X-Amz-Signature={'5a' * 32}"
        return ApiResponse(302, None, {"Location": url})
    return None
