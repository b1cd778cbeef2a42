"""List queries: filters, order and paging."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import TypeAlias
from urllib.parse import parse_qsl

from slproxy.sandbox.data.definition import FieldType, FieldTypes, Operation
from slproxy.sandbox.data.references import CrmRecord
from slproxy.sandbox.data.values import BadValueError, boolean, integer, moment

Predicate: TypeAlias = Callable[[CrmRecord], bool]
# Finds the ids of the users with a guid.
Users: TypeAlias = Callable[[str], int | None]

PER_PAGE, MOST_PER_PAGE = 25, 100
PAGING = {"per_page", "page", "include_paging_counts", "limit_paging_counts", "sort_by", "sort_direction"}
# Never paged, and paged only with `page`: docs/salesloft.md, API. The two others name no `page` in the definition.
UNPAGED = {"/v2/groups", "/v2/phone_numbers/caller_ids", "/v2/webhook_subscriptions"}
PAGED_ON_REQUEST = {"/v2/users"}

SEARCHED = ("name", "title", "subject", "display_name", "email", "email_address")
# Filters that are not named after the field they look at; the first one that a schema has is taken.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "account_stage_id": ("company_stage",),
    "archived": ("archived_at",),
    "associated_with_type": ("associated_type",),
    "bounced": ("bouncing",),
    "cadence_id": ("cadences",),
    "email_addresses": ("recipient_email_address",),
    "has_call": ("call",),
    "has_crm_user": ("crm_connected",),
    "last_contacted": ("last_contacted_at",),
    "linked_to_team_template": ("team_template",),
    "new": ("untouched",),
    "owned_by_guid": ("owner",),
    "person_id": ("called_person", "recipient"),
    "phone_number": ("phone",),
    "pinned": ("pinned_at",),
    "replied": ("last_replied_at",),
    "success": ("success_count",),
    "tag": ("tags",),
    "user_guid": ("user",),
    "user_guids": ("user",),
}
BOUNDS: Mapping[str, Callable[[float, float], bool]] = {"[gt]": gt, "[gte]": ge, "[lt]": lt, "[lte]": le}
SORTABLE = {"string", "boolean", "integer", "number", "date", "date-time"}


@dataclass(frozen=True)
class Query:
    """Hold the parameters in order: the name, what stands in brackets after it, and the value."""

    terms: tuple[tuple[str, str, str], ...]

    def named(self, name: str) -> list[tuple[str, str]]:
        """Return the brackets and values of a parameter."""
        return [(bracket, value) for term, bracket, value in self.terms if term == name]

    def last(self, name: str) -> str | None:
        """Return the last value of a plain parameter, which is the one that Rails takes."""
        values = [value for bracket, value in self.named(name) if not bracket]
        return values[-1] if values else None


def parse_query(raw: str) -> Query:
    """Read a raw query, or a form; brackets may be percent-encoded."""
    terms = []
    for key, value in parse_qsl(raw, keep_blank_values=True):
        name, bracket, rest = key.partition("[")
        terms.append((name, bracket + rest, value))
    return Query(tuple(terms))


def select(
    operation: Operation, fields: FieldTypes, query: Query, records: Sequence[CrmRecord], users: Users
) -> list[CrmRecord]:
    """Return the records that pass every filter, in order; raise QueryError where a value cannot be read."""
    errors: dict[str, list[str]] = {}
    tests: list[Predicate] = []
    for name, declared in operation.query.items():
        terms = query.named(name)
        if name in PAGING or not terms:
            continue  # a filter that the operation does not name is ignored: docs/salesloft.md, API
        try:
            tests.extend(predicates(name, declared, terms, fields, users))
        except BadValueError as bad:
            errors[name] = [str(bad)]
    try:
        order = ordering(operation, fields, query)
    except OrderError as bad:
        errors[bad.parameter] = [str(bad)]
    if errors:
        raise QueryError(errors)
    return order([record for record in records if all(test(record) for test in tests)])


class QueryError(ValueError):
    """Hold the 422's errors by parameter."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        """Keep them."""
        super().__init__(errors)
        self.errors = errors


class OrderError(BadValueError):
    """Say which parameter asks for an order that does not exist."""

    def __init__(self, parameter: str) -> None:
        """Word it as Rails does."""
        super().__init__("is not included in the list")
        self.parameter = parameter


def field_of(name: str, fields: FieldTypes) -> str | None:
    """Return the field that a filter looks at, or None where there is no sensible one."""
    names = (
        name,
        *ALIASES.get(name, ()),
        *(re.sub(pattern, put, name) for pattern, put in (("_ids?$", ""), ("_ids?$", "s"), ("s$", ""), ("es$", ""))),
    )
    return next((candidate for candidate in names if candidate in fields), None)


def predicates(
    name: str, declared: FieldType, terms: Sequence[tuple[str, str]], fields: FieldTypes, users: Users
) -> list[Predicate]:
    """Return the tests that a filter's terms make; raise BadValueError."""
    if name in ("search", "_query"):
        wanted = terms[-1][1].casefold()
        return [lambda record: any(wanted in str(record.get(field) or "").casefold() for field in SEARCHED)]
    field = field_of(name, fields)
    if field is None:
        return []
    kind = fields[field]
    plain = [
        part
        for bracket, value in terms
        if re.fullmatch(r"(\[\d*\])?", bracket)
        for part in (value.split(",") if declared.many and not bracket else [value])
    ]
    made: list[Predicate] = []
    for bracket, value in terms:
        if bracket in BOUNDS and kind.name in ("integer", "date", "date-time"):
            made.append(comparison(field, kind, bracket, value))
        elif kind.name == "object" and bracket.startswith("["):
            made.append(nested_equals(field, bracket[1:-1], value))
    if plain:
        made.append(equals(name, declared, field, kind, plain, users))
    return made


def comparable(kind: FieldType, value: object) -> float:
    """Return a number or a time as what can be ordered; raise BadValueError."""
    return integer(value) if kind.name == "integer" else moment(str(value)).timestamp()


def values_of(record: CrmRecord, field: str) -> list[object]:
    """Return what a field holds: many, one or nothing."""
    value = record.get(field)
    return value if isinstance(value, list) else [] if value is None else [value]


def comparison(field: str, kind: FieldType, bracket: str, value: str) -> Predicate:
    """Return the test of `field[gt]=value` and its like; raise BadValueError."""
    limit, beyond = comparable(kind, value), BOUNDS[bracket]
    return lambda record: any(beyond(comparable(kind, one), limit) for one in values_of(record, field))


def nested_equals(field: str, key: str, value: str) -> Predicate:
    """Return the test of `custom_fields[Key]=value`."""
    return lambda record: any(
        isinstance(one, Mapping) and str(one.get(key)) == value for one in values_of(record, field)
    )


def equals(
    name: str, declared: FieldType, field: str, kind: FieldType, values: Sequence[str], users: Users
) -> Predicate:
    """Return the test of `field=value`, of any of several values; raise BadValueError."""
    if kind.name == "boolean":
        wanted = boolean(values[-1])
        return lambda record: record[field] is wanted
    if declared.name == "boolean":
        # A yes or no about a field that is neither: is there anything in it?
        something = boolean(values[-1])
        return lambda record: any(values_of(record, field)) is something
    if kind.name == "EmbeddedResource":
        ids = {users(value) for value in values} if "guid" in name else {integer(value) for value in values}
        return lambda record: any(isinstance(one, Mapping) and one["id"] in ids for one in values_of(record, field))
    if kind.name in ("integer", "date", "date-time"):
        limits = {comparable(kind, value) for value in values}
        return lambda record: any(comparable(kind, one) in limits for one in values_of(record, field))
    return lambda record: any(str(one) in values for one in values_of(record, field))


def ordering(operation: Operation, fields: FieldTypes, query: Query) -> Callable[[list[CrmRecord]], list[CrmRecord]]:
    """Return what sorts the records; raise OrderError.

    One without a value comes before all that have one, ascending, and after them, descending (docs/salesloft.md, API).
    The default is `updated_at`, latest first, as for most of SalesLoft's lists; `id` where there is no such field.
    """
    default = "updated_at" if "updated_at" in fields else "id"
    by = (query.last("sort_by") if "sort_by" in operation.query else None) or default
    direction = (query.last("sort_direction") if "sort_direction" in operation.query else None) or "DESC"
    kind = fields.get(by, FieldType("object") if by != default else FieldType("integer"))
    if kind.many or kind.name not in SORTABLE:
        raise OrderError("sort_by")
    if direction.upper() not in ("ASC", "DESC"):
        raise OrderError("sort_direction")
    descending = direction.upper() == "DESC"

    def key(record: CrmRecord) -> tuple[float, str]:
        value = record[by]
        return (0.0, str(value)) if kind.name in ("string", "boolean") else (comparable(kind, value), "")

    def order(records: list[CrmRecord]) -> list[CrmRecord]:
        known = [record for record in records if record.get(by) is not None]
        known.sort(key=key, reverse=descending)
        unknown = [record for record in records if record.get(by) is None]
        return known + unknown if descending else unknown + known

    return order


def paginate(
    operation: Operation, query: Query, records: Sequence[CrmRecord]
) -> tuple[list[CrmRecord], Mapping[str, object]]:
    """Cut a page out, and return it with the metadata; raise QueryError for what is no number.

    Numbers out of range are silently corrected and echoed, and a page past the end is empty (docs/salesloft.md, API).
    """
    asked = query.last("page")
    if operation.path in UNPAGED or (operation.path in PAGED_ON_REQUEST and asked is None):
        return list(records), {}
    errors: dict[str, list[str]] = {}
    numbers = {"page": 1, "per_page": PER_PAGE}
    counted = False
    for name in ("page", "per_page", "include_paging_counts"):
        value = query.last(name)
        try:
            if value and name in numbers:
                numbers[name] = max(1, integer(value))
            elif value:
                counted = boolean(value)
        except BadValueError as bad:
            errors[name] = [str(bad)]
    if errors:
        raise QueryError(errors)
    current, size = numbers["page"], min(numbers["per_page"], MOST_PER_PAGE)
    paging: dict[str, object] = {
        "per_page": size,
        "current_page": current,
        "next_page": current + 1 if current * size < len(records) else None,
        "prev_page": current - 1 if current > 1 else None,
    }
    if counted:
        paging |= {"total_pages": -(-len(records) // size), "total_count": len(records)}
    return list(records[(current - 1) * size : current * size]), {"paging": paging}
