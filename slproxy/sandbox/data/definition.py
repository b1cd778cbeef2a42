"""API definition: which operations exist, what they take and what they answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TypeAlias
from urllib.parse import unquote

WrittenType: TypeAlias = str | list[str]

# The published definition is visibly wrong here: updating a note would answer a person, reading a task a step, the
# activity histories would be paged but single, and job data would be results though a JobData schema waits unused.
DATA: Mapping[tuple[str, str], WrittenType] = {
    ("PUT", "/v2/notes/{id}"): "Note",
    ("GET", "/v2/tasks/{id}"): "Task",
    ("GET", "/v2/activity_histories"): ["ActivityHistory"],
    ("GET", "/v2/bulk_jobs/{bulk_jobs_id}/job_data"): ["JobData"],
}
# A job's data are records to work on, not strings, and a membership without its two ends means nothing.
BODY: Mapping[tuple[str, str], Mapping[str, WrittenType]] = {
    ("POST", "/v2/bulk_jobs/{bulk_jobs_id}/job_data"): {"data": ["object"]},
}
REQUIRED: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("POST", "/v2/cadence_memberships"): ("person_id", "cadence_id"),
}
# `locale` stands in every captured /v2/me (docs/salesloft.md, API); a resource's type is a word, not a number.
FIELDS: Mapping[str, Mapping[str, WrittenType]] = {
    "User": {"locale": "string"},
    "ActivityHistory": {"resource_type": "string"},
}


@dataclass(frozen=True)
class FieldType:
    """Name a type: `string`, `integer`, … or a schema, one or many of it."""

    name: str
    many: bool = False


FieldTypes: TypeAlias = Mapping[str, FieldType]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Hold one operation; its path has no `.json`, which is optional on the wire."""

    method: str
    path: str
    status: int
    data: FieldType | None
    query: FieldTypes
    body: FieldTypes
    required: tuple[str, ...]

    @property
    def collection(self) -> str:
        """Name where its records live: the path without `/v2/` and a last `{id}`."""
        return self.path.removeprefix("/v2/").removesuffix("/{id}")

    @property
    def one(self) -> bool:
        """Tell whether it names one record."""
        return self.path.endswith("/{id}")


@dataclass(frozen=True)
class Definition:
    """Hold all operations and schemas."""

    operations: tuple[Operation, ...]
    schemas: Mapping[str, FieldTypes]

    def match(self, method: str, path: str) -> tuple[Operation, Mapping[str, str]] | None:
        """Return the operation at a raw path and the values of its placeholders, or None.

        HEAD reads as GET; another method on a known path matches nothing, as a Rails router has it.
        """
        wanted = segments(path)
        for operation in self.operations:
            if operation.method == ("GET" if method == "HEAD" else method):
                found = fit(operation.path.split("/")[1:], wanted)
                if found is not None:
                    return operation, found
        return None

    def schema(self, operation: Operation) -> FieldTypes:
        """Return the fields of what an operation answers."""
        return self.schemas[operation.data.name] if operation.data else {}


def segments(path: str) -> list[str]:
    """Split a raw path into decoded names, less the optional `.json` and trailing slash (docs/salesloft.md, API)."""
    names = [unquote(name) for name in path.removesuffix("/").split("/")[1:]]
    return [*names[:-1], names[-1].removesuffix(".json")] if names else []


def fit(pattern: list[str], wanted: list[str]) -> Mapping[str, str] | None:
    """Return the placeholders' values where the names fit the pattern."""
    if len(pattern) != len(wanted):
        return None
    values: dict[str, str] = {}
    for expected, name in zip(pattern, wanted, strict=True):
        if expected.startswith("{") and name:
            values[expected[1:-1]] = name
        elif expected != name:
            return None
    return values


def kind(written: WrittenType) -> FieldType:
    """Read a type as the file writes it: `"string"`, or `["string"]` for many."""
    return FieldType(written) if isinstance(written, str) else FieldType(written[0], many=True)


def kinds(written: Mapping[str, WrittenType]) -> FieldTypes:
    """Read the types of named fields."""
    return {name: kind(value) for name, value in written.items()}


@cache
def definition() -> Definition:
    """Read the definition once, with its corrections."""
    source = json.loads((resources.files(__package__) / "operations.json").read_text("utf-8"))
    operations = []
    for entry in source["operations"]:
        path = entry["path"].removesuffix(".json")
        key = (entry["method"], path)
        data = DATA.get(key, entry.get("data"))
        operations.append(
            Operation(
                method=entry["method"],
                path=path,
                status=entry["status"],
                data=kind(data) if data else None,
                query=kinds(entry.get("query", {})),
                body=kinds({**entry.get("body", {}), **BODY.get(key, {})}),
                required=tuple(entry.get("required", REQUIRED.get(key, ()))),
            )
        )
    operations.sort(key=lambda operation: operation.path.count("{"))  # a literal name wins over a placeholder
    schemas = {name: kinds({**fields, **FIELDS.get(name, {})}) for name, fields in source["schemas"].items()}
    return Definition(tuple(operations), schemas)
