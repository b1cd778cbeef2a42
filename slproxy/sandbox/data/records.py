"""Records: the team's data by collection and id, and how a body's fields are written to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from slproxy.sandbox.data.definition import Definition, FieldType, FieldTypes
from slproxy.sandbox.data.references import API_URL, REFERENCES, CrmRecord, plural, reference
from slproxy.sandbox.data.values import BadValueError, blank, integer, moment, timestamp

ME, TEAM = 1, 3  # Jane Smith and her team: docs/salesloft.md, API
# A new record belongs to the user who made it.
OWNED = ("user", "owner", "creator", "created_by_user")

# Fields that are written under one name and kept under another: the first one that the schema has.
WRITTEN: Mapping[str, tuple[str, ...]] = {"person_id": ("person", "called_person")}

UNIQUE: Mapping[str, str] = {"people": "email_address", "accounts": "domain"}


class CrmRecords:
    """Own all records, by collection and by id as a path spells it."""

    def __init__(self, definition: Definition) -> None:
        """Start empty."""
        self._definition = definition
        self._held: dict[str, dict[str, CrmRecord]] = {}
        self._last: dict[str, int] = {}

    def all(self, collection: str) -> list[CrmRecord]:
        """Return a collection's records, oldest first."""
        return list(self._held.get(collection, {}).values())

    def find(self, collection: str, key: object) -> CrmRecord | None:
        """Return a record, or None."""
        return self._held.get(collection, {}).get(str(key))

    def drop(self, collection: str, key: str) -> bool:
        """Delete a record; tell whether there was one."""
        return self._held.get(collection, {}).pop(key, None) is not None

    def add(self, collection: str, schema: str, values: Mapping[str, object], at: float) -> CrmRecord:
        """Make a record with every field of its schema; ids are never used twice."""
        kinds = self._definition.schemas[schema]
        number = self._last[collection] = self._last.get(collection, 0) + 1
        record: CrmRecord = {name: self._unset(kind) for name, kind in kinds.items()}
        if "id" in kinds:
            record["id"] = number if kinds["id"].name == "integer" else str(number)
        for name in ("created_at", "updated_at"):
            if name in kinds and name not in values:
                record[name] = timestamp(at)
        record |= values
        self._held.setdefault(collection, {})[str(record.get("id", number))] = record
        return record

    def _unset(self, kind: FieldType) -> object:
        if kind.many:
            return []
        if kind.name.endswith("Counts"):
            return dict.fromkeys(self._definition.schemas[kind.name], 0)
        return {"boolean": False, "object": {}}.get(kind.name)

    def find_by(self, collection: str, field: str, wanted: object) -> CrmRecord | None:
        """Return the oldest record whose field has a value; letter case is ignored, as in addresses and domains."""
        for record in self.all(collection):
            if record[field] is not None and str(record[field]).casefold() == str(wanted).casefold():
                return record
        return None

    def user(self, wanted: str) -> int | None:
        """Return the id of the user with a guid."""
        return next((integer(user["id"]) for user in self.all("users") if user["guid"] == wanted), None)

    def uniqueness_errors(
        self, collection: str, values: Mapping[str, object], record: CrmRecord | None
    ) -> dict[str, list[str]]:
        """Return the error where another record of the collection has a value already that must be unique."""
        field = UNIQUE.get(collection, "")
        other = self.find_by(collection, field, values[field]) if values.get(field) else None
        return {field: ["has already been taken"]} if other is not None and other is not record else {}

    def changes(
        self, kinds: FieldTypes, values: Mapping[str, object], now: float
    ) -> tuple[CrmRecord, dict[str, list[str]]]:
        """Return what the fields of a body become in a record, and the errors of those that do not fit."""
        made: CrmRecord = {}
        errors: dict[str, list[str]] = {}
        for name, value in values.items():
            try:
                made |= self._one(kinds, name, value, now)
            except BadValueError as bad:
                errors[name] = [str(bad)]
        if "associated_with" in kinds and "associated_with_id" in values:
            made["associated_type"] = values.get("associated_with_type")
            collection = {"person": "people", "account": "accounts"}.get(str(made["associated_type"]).lower())
            if collection is None:
                errors["associated_with_type"] = ["is not included in the list"]
            elif self.find(collection, values["associated_with_id"]) is None:
                errors["associated_with_id"] = ["does not exist"]
            else:
                made["associated_with"] = {
                    "id": values["associated_with_id"],
                    "_href": f"{API_URL}/{collection}/{values['associated_with_id']}",
                }
        return made, errors

    def _one(self, kinds: FieldTypes, name: str, value: object, now: float) -> CrmRecord:
        """Return the field, or none, that one field of a body is written to."""
        if name == "archived" and "archived_at" in kinds:
            return {"archived_at": timestamp(now) if value else None}
        if name == "user_guid" and "user" in kinds:
            found = self.user(str(value))
            if found is None:
                raise BadValueError("does not exist")
            return {"user": reference("user", found)}
        if name in kinds:
            return {name: stored_value(kinds[name], value)}
        for field in (*WRITTEN.get(name, ()), name.removesuffix("_id")):
            if name.endswith("_id") and field in kinds and kinds[field].name == "EmbeddedResource":
                return {field: None if value is None else self._reference(field, integer(value))}
        return {}

    def _reference(self, field: str, number: int) -> CrmRecord:
        held = self._held.get(REFERENCES.get(field, plural(field)))
        if held is not None and str(number) not in held:
            raise BadValueError("does not exist")
        return reference(field, number)


def stored_value(kind: FieldType, value: object) -> object:
    """Return a body's value in the type that the record keeps it in; raise BadValueError."""
    if value is None:
        return None
    if kind.name in ("date", "date-time"):
        moment(str(value))
    if kind.name == "object":
        if isinstance(value, str):
            value = from_json(value)
        if kind.many:
            return value if isinstance(value, list) else [value]
        return merged(value) if isinstance(value, list) else value
    return value


def from_json(text: str) -> object:
    """Read an object that came as text; raise BadValueError."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict | list):
        raise BadValueError("must be an object")
    return value


def merged(objects: Iterable[object]) -> CrmRecord:
    """Return several objects as one: the definition writes an account's custom fields as a list."""
    return {key: value for one in objects if isinstance(one, Mapping) for key, value in one.items()}


def derive(collection: str, record: CrmRecord, now: float) -> None:
    """Set the fields that are derived from others."""
    if collection == "people":
        record["display_name"] = " ".join(str(record[n]) for n in ("first_name", "last_name") if not blank(record[n]))
        address = record["email_address"]
        record["full_email_address"] = f'"{record["display_name"]}" <{address}>' if address else None
    elif collection == "users":
        record["full_email_address"] = f'"{record["name"]}" <{record["email"]}>'
    elif collection == "tasks":
        due = record["due_date"]
        if isinstance(due, str) and str(record["due_at"])[:10] != due:
            record |= {"due_at": moment(due).isoformat(timespec="microseconds"), "due_date": due[:10]}
        done = record["current_state"] == "completed"
        record["completed_at"] = (record["completed_at"] or timestamp(now)) if done else None
        record["completed_by"] = record["user"] if done else None
    elif collection == "bulk_jobs" and record["ready_to_execute"] and not record["marked_ready_at"]:
        record |= dict.fromkeys(("marked_ready_at", "started_at", "finished_at"), timestamp(now))
        record |= {"state": "done", "processed": record["total"]}
