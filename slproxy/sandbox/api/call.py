"""Operation call: what a client asks of an operation, and how it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slproxy.sandbox.api.query import Query
from slproxy.sandbox.data.definition import FieldTypes, Operation
from slproxy.sandbox.data.records import CrmRecords


@dataclass(frozen=True, kw_only=True)
class OperationCall:
    """Hold one call of an operation, its body read and checked; ``schema`` is that of the answer."""

    operation: Operation
    schema: FieldTypes
    ids: Mapping[str, str]
    query: Query
    values: Mapping[str, object]
    records: CrmRecords
    now: float


@dataclass(frozen=True)
class ApiResponse:
    """Hold a status and the JSON body; None is an empty body."""

    status: int
    body: Mapping[str, object] | None
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """End a call with a response."""

    def __init__(self, response: ApiResponse) -> None:
        """Keep the response."""
        super().__init__(response)
        self.response = response


def not_found() -> ApiError:
    """Return the 404 of a record that does not exist."""
    return ApiError(ApiResponse(404, {"error": "Not Found"}))


def invalid_fields(errors: Mapping[str, list[str]]) -> ApiError:
    """Return the 422 with the messages of each field."""
    return ApiError(ApiResponse(422, {"errors": errors}))
