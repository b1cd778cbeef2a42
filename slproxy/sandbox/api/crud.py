"""CRUD: list, read, create, update and delete the records of a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slproxy.sandbox.api.call import ApiResponse, OperationCall, invalid_fields, not_found
from slproxy.sandbox.api.query import QueryError, paginate, select
from slproxy.sandbox.data.definition import FieldType, FieldTypes
from slproxy.sandbox.data.records import ME, OWNED, TEAM, derive
from slproxy.sandbox.data.references import CrmRecord, reference
from slproxy.sandbox.data.values import blank, timestamp

# The schema of a collection's records, where the operation's answer has another: an upsert answers more than a record.
SCHEMAS: Mapping[str, str] = {"people": "Person", "accounts": "Account"}
# What a new record has unless the request says otherwise.
NEW: Mapping[str, Mapping[str, object]] = {
    "BulkJob": {"state": "open", "total": 0, "processed": 0, "errors": 0},
    "CadenceMembership": {"current_state": "active", "currently_on_cadence": True},
    "CustomField": {"field_type": "person", "value_type": "text"},
    "Import": {"current_people_count": 0, "imported_people_count": 0},
    "Person": {"locale": "US/Eastern", "untouched": True, "success_count": 0},
    "Subscription": {"enabled": True, "tenant_id": TEAM},
}


def public_fields(schema: FieldTypes, record: CrmRecord) -> CrmRecord:
    """Return the fields of a record that its schema has; others are only there to filter by."""
    return {name: record.get(name) for name in schema}


def single(call: OperationCall, record: CrmRecord) -> ApiResponse:
    """Answer with one record."""
    return ApiResponse(call.operation.status, {"data": public_fields(call.schema, record)})


def listing(call: OperationCall, records: Sequence[CrmRecord]) -> ApiResponse:
    """Answer with the page of records that the query asks for."""
    try:
        found = select(call.operation, call.schema, call.query, records, call.records.user)
        on_page, metadata = paginate(call.operation, call.query, found)
    except QueryError as bad:
        raise invalid_fields(bad.errors) from None
    data = [public_fields(call.schema, record) for record in on_page]
    return ApiResponse(call.operation.status, {"data": data, "metadata": metadata})


def get_or_404(call: OperationCall, collection: str, key: object) -> CrmRecord:
    """Return a record, or end the call with 404."""
    record = call.records.find(collection, key)
    if record is None:
        raise not_found()
    return record


def addressed(call: OperationCall) -> CrmRecord:
    """Return the record that the path names, or end the call with 404."""
    return get_or_404(call, call.operation.collection, call.ids["id"])


def check_required(call: OperationCall, record: CrmRecord | None) -> None:
    """End the call with 422 where a required field is blank.

    An update may leave out what its record has already: Rails validates the record, not the request.
    """
    absent = {
        name: ["can't be blank"]
        for name in call.operation.required
        if blank(call.values.get(name, record.get(name) if record else None))
    }
    if absent:
        raise invalid_fields(absent)


def write(call: OperationCall, collection: str, record: CrmRecord | None) -> CrmRecord:
    """Create a record, or update the one given; end the call with 422 where a value does not fit."""
    check_required(call, record)
    values, errors = call.records.changes(call.schema, call.values, call.now)
    errors |= call.records.uniqueness_errors(collection, values, record)
    if errors:
        raise invalid_fields(errors)
    if record is None:
        schema = SCHEMAS.get(collection, call.operation.data.name if call.operation.data else "")
        defaults = dict(NEW.get(schema, {}))
        owned = [name for name in OWNED if call.schema.get(name) == FieldType("EmbeddedResource")]
        defaults |= {name: reference(name, ME) for name in owned}
        record = call.records.add(collection, schema, defaults | values, call.now)
    else:
        before, after = record.get("custom_fields"), values.get("custom_fields")
        if isinstance(before, dict) and isinstance(after, dict):
            values["custom_fields"] = before | after
        record |= values
        if "updated_at" in record:
            record["updated_at"] = timestamp(call.now)
    derive(collection, record, call.now)
    return record


def default_response(call: OperationCall) -> ApiResponse:
    """Answer an operation that does what its method says."""
    operation = call.operation
    match operation.method:
        case "GET" if not operation.one:
            return listing(call, call.records.all(operation.collection))
        case "GET":
            return single(call, addressed(call))
        case "POST":
            return single(call, write(call, operation.collection, None))
        case "PUT":
            return single(call, write(call, operation.collection, addressed(call)))
        case _:
            addressed(call)
            call.records.drop(operation.collection, call.ids["id"])
            return ApiResponse(operation.status, None)
