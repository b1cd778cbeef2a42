"""List, read, create, update and delete records of any resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .definition import Kind, Kinds, Operation
from .query import Query, QueryError, Record, chosen, page
from .records import OWNED, Records, embed, settle
from .values import blank, timestamp

ME, TEAM = 1, 3  # Jane Smith and her team: docs/salesloft.md, API

NEW: Mapping[str, Mapping[str, object]] = {
    "BulkJob": {"state": "open", "total": 0, "processed": 0, "errors": 0},
    "CadenceMembership": {"current_state": "active", "currently_on_cadence": True},
    "CustomField": {"field_type": "person", "value_type": "text"},
    "Import": {"current_people_count": 0, "imported_people_count": 0},
    "Person": {"locale": "US/Eastern", "untouched": True, "success_count": 0},
    "Subscription": {"enabled": True, "tenant_id": TEAM},
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """Hold one call of an operation, its body read and checked."""

    operation: Operation
    kinds: Kinds
    ids: Mapping[str, str]
    query: Query
    values: Mapping[str, object]
    records: Records
    now: float


@dataclass(frozen=True)
class Answer:
    """Hold a status and what stands in the JSON body; None is an empty body."""

    status: int
    body: Mapping[str, object] | None
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """Stop a call with an answer."""

    def __init__(self, answer: Answer) -> None:
        """Keep the answer."""
        super().__init__(answer)
        self.answer = answer


def missing() -> RefusedError:
    """Return the 404 for what is not there."""
    return RefusedError(Answer(404, {"error": "Not Found"}))


def invalid(errors: Mapping[str, list[str]]) -> RefusedError:
    """Return the 422 for what cannot be taken."""
    return RefusedError(Answer(422, {"errors": errors}))


def shown(kinds: Kinds, record: Record) -> Record:
    """Return the fields of a record that its schema has; some are kept only to filter by."""
    return {name: record.get(name) for name in kinds}


def single(call: Call, record: Record) -> Answer:
    """Answer with one record."""
    return Answer(call.operation.status, {"data": shown(call.kinds, record)})


def listing(call: Call, records: Sequence[Record]) -> Answer:
    """Answer with the page of records that the query asks for."""
    try:
        found = chosen(call.operation, call.kinds, call.query, records, call.records.user)
        cut, metadata = page(call.operation, call.query, found)
    except QueryError as bad:
        raise invalid(bad.errors) from None
    data = [shown(call.kinds, record) for record in cut]
    return Answer(call.operation.status, {"data": data, "metadata": metadata})


def named(call: Call) -> Record:
    """Return the record that the path names, or refuse with 404."""
    record = call.records.find(call.operation.collection, call.ids["id"])
    if record is None:
        raise missing()
    return record


def filled(call: Call, record: Record | None) -> None:
    """Refuse with 422 where a required field is blank.

    An update may leave out what its record has already: Rails validates the record, not the request.
    """
    absent = {
        name: ["can't be blank"]
        for name in call.operation.required
        if blank(call.values.get(name, record.get(name) if record else None))
    }
    if absent:
        raise invalid(absent)


def write(call: Call, collection: str, record: Record | None) -> Record:
    """Create a record, or update the one given; refuse with 422 what it cannot hold."""
    filled(call, record)
    values, errors = call.records.written(call.kinds, call.values, call.now)
    errors |= call.records.taken(collection, values, record)
    if errors:
        raise invalid(errors)
    if record is None:
        schema = SCHEMAS.get(collection, call.operation.data.name if call.operation.data else "")
        made = dict(NEW.get(schema, {}))
        made |= {name: embed(name, ME) for name in OWNED if call.kinds.get(name) == Kind("EmbeddedResource")}
        record = call.records.add(collection, schema, made | values, call.now)
    else:
        custom = record.get("custom_fields"), values.get("custom_fields")
        if isinstance(custom[0], dict) and isinstance(custom[1], dict):
            values["custom_fields"] = custom[0] | custom[1]
        record |= values
        if "updated_at" in record:
            record["updated_at"] = timestamp(call.now)
    settle(collection, record, call.now)
    return record


# Upserts answer more than the record that they write.
SCHEMAS: Mapping[str, str] = {"people": "Person", "accounts": "Account"}


def plainly(call: Call) -> Answer:
    """Answer an operation that does to its collection what its method says."""
    operation = call.operation
    match operation.method:
        case "GET" if not operation.one:
            return listing(call, call.records.all(operation.collection))
        case "GET":
            return single(call, named(call))
        case "POST":
            return single(call, write(call, operation.collection, None))
        case "PUT":
            return single(call, write(call, operation.collection, named(call)))
        case _:
            named(call)
            call.records.drop(operation.collection, call.ids["id"])
            return Answer(operation.status, None)
