"""Seed data: the team that a fresh sandbox starts with, one record a line in ``team.json``.

A record has only the fields that differ from an unset one, and a reference is the id alone.
"""

from __future__ import annotations

import json
from importlib import resources

from slproxy.sandbox.data.definition import Definition, FieldType
from slproxy.sandbox.data.records import CrmRecords
from slproxy.sandbox.data.references import reference


def seeded(definition: Definition) -> CrmRecords:
    """Return a team's records, fresh ones each time: whoever gets them writes to them."""
    records = CrmRecords(definition)
    for collection, held in json.loads((resources.files(__package__) / "team.json").read_text("utf-8")).items():
        fields = definition.schemas[held["schema"]]
        for row in held["records"]:
            values = {name: expanded(name, fields.get(name), value) for name, value in row.items()}
            records.add(collection, held["schema"], values, at=0.0)
    return records


def expanded(name: str, kind: FieldType | None, value: object) -> object:
    """Return a field's value with its ids as references, where it refers to records."""
    if kind is not None and kind.name == "EmbeddedResource":
        if isinstance(value, int):
            return reference(name, value)
        if isinstance(value, list):
            return [reference(name, each) for each in value]
    return value
