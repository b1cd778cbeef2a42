"""The sandbox's operations: each answers with its status and shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from importlib import resources

import pytest

from slproxy.sandbox import Options
from slproxy.sandbox.salesloft import SalesLoft
from tests.support.salesloft import ApiClient

NOW = 1_750_000_020.0  # the start of a clock minute

DEFINITION = json.loads((resources.files("slproxy.sandbox.data") / "operations.json").read_text("utf-8"))
JANE = "f2106d80-64cc-574c-8fdf-04ea53e59b16"

# Where the published definition is visibly wrong; the sandbox answers the resource's own shape.
SHAPES: Mapping[tuple[str, str], str | list[str]] = {
    ("PUT", "/v2/notes/{id}.json"): "Note",
    ("GET", "/v2/tasks/{id}.json"): "Task",
    ("GET", "/v2/activity_histories"): ["ActivityHistory"],
    ("GET", "/v2/bulk_jobs/{bulk_jobs_id}/job_data"): ["JobData"],
}
FIELD_TYPES = {("ActivityHistory", "resource_type"): "string"}

# Values that a field's type alone does not tell.
SAMPLES: Mapping[str, object] = {
    "associated_with_type": "person",
    "custom_fields": {"Favorite Color": "red"},
    "data": [{"id": 1, "city": "Rome"}],
    "due_date": "2030-01-31",
    "domain": "fresh.example",
    "email_address": "fresh@fresh.example",
    "person_id": "1",
    "recording": {"url": "https://recordings.example.com/1.mp3"},
    "role_id": "1",
    "user_guid": JANE,
    "view_params": '{"owner": 1}',
}


@pytest.fixture
def client() -> ApiClient:
    return ApiClient(SalesLoft(Options(), clock=lambda: NOW))


def sample(name: str, kind: str | list[str]) -> object:
    if name in SAMPLES:
        return SAMPLES[name]
    if isinstance(kind, list):
        return [sample(name, kind[0])]
    if name.endswith(("_at", "_time")):
        return "2030-01-31T10:00:00-05:00"
    made: Mapping[str, object] = {"integer": 1, "number": 1.5, "boolean": True, "object": {}, "string": "1"}
    return made[kind]


def faulty(kind: str | list[str], value: object, where: str) -> list[str]:
    """Return what is wrong with a value of a type; null is always right."""
    if value is None:
        return []
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [error for index, one in enumerate(value) for error in faulty(kind[0], one, f"{where}[{index}]")]
    if kind in ("date", "date-time"):
        return [] if isinstance(value, str) and datetime.fromisoformat(value) else [f"{where} is no {kind}"]
    if kind in DEFINITION["schemas"]:
        if not isinstance(value, dict):
            return [f"{where} is no {kind}"]
        fields = DEFINITION["schemas"][kind].items()
        absent = [f"{where}.{name} is missing" for name, _ in fields if name not in value]
        return absent + [
            error
            for name, inner in fields
            for error in faulty(FIELD_TYPES.get((kind, name), inner), value.get(name), f"{where}.{name}")
        ]
    types: Mapping[str, type | tuple[type, ...]] = {
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "object": dict,
        "string": str,
    }
    wrong = not isinstance(value, types[kind]) or (kind in ("integer", "number") and isinstance(value, bool))
    return [f"{where} is no {kind}: {value!r}"] if wrong else []


WALK = [
    pytest.param(
        entry["method"],
        entry["path"],
        entry["status"],
        SHAPES.get((entry["method"], entry["path"]), entry.get("data")),
        entry.get("body", {}),
        id=f"{entry['method']} {entry['path']}",
    )
    for entry in DEFINITION["operations"]
]


@pytest.mark.parametrize(("method", "path", "status", "shape", "fields"), WALK)
def test_an_operation_answers_with_its_status_and_shape(
    method: str,
    path: str,
    status: int,
    shape: str | list[str],
    fields: Mapping[str, str | list[str]],
    client: ApiClient,
) -> None:
    named = path.replace("{bulk_jobs_id}", "1").replace("{id}", "1").removesuffix(".json")
    # Its fields are in the query, and it has no body.
    query = "?person_id=1&cadence_id=1" if "cadence_memberships" in path and method == "POST" else ""
    for number, target in enumerate((named + ".json", named, named + "/", named + ".json/")):
        body = {name: sample(name, kind) for name, kind in fields.items()}
        # What must be unique is, on each round.
        body |= {name: f"{number}.{body[name]}" for name in ("domain", "email_address") if name in body}
        if "upserts" in path:
            body["upsert_key"] = "domain" if "account" in path else "email_address"
        answered, reply = client.ask(method, target + query, document=body or None)
        if method == "DELETE":
            assert (answered, reply) == ((404, {"error": "Not Found"}) if number else (status, {}))
            continue
        assert answered == status, reply
        assert reply["data"], "an operation must have something to show"
        assert not faulty(shape, reply["data"], str(shape))


def test_the_walk_covers_every_operation() -> None:
    assert len(DEFINITION["operations"]) == 121
    assert len(DEFINITION["schemas"]) == 69


def test_me_is_jane_smith_of_team_3(client: ApiClient) -> None:
    me = client.row("GET", "/v2/me.json")
    assert me["id"] == 1
    assert (me["name"], me["first_name"], me["last_name"]) == ("Jane Smith", "Jane", "Smith")
    assert (me["email"], me["time_zone"], me["locale"]) == ("jane@company.com", "US/Eastern", "US")
    assert me["active"] is True
    team = me["team"]
    assert isinstance(team, dict)
    assert team["id"] == 3
    assert team["name"] == client.row("GET", "/v2/team")["name"]


def test_every_reference_to_a_stored_record_leads_somewhere(client: ApiClient) -> None:
    base = "https://api.salesloft.com"
    links: set[str] = set()
    for target in (
        "/v2/people?per_page=100",
        "/v2/activities/calls",
        "/v2/activities/emails",
        "/v2/tasks",
        "/v2/notes",
    ):
        for row in client.rows(target):
            links |= {str(value["_href"]) for value in row.values() if isinstance(value, dict) and "_href" in value}
    assert len(links) > 50
    for link in links:
        status, _ = client.ask("GET", link.removeprefix(base))
        assert status == 200, link
