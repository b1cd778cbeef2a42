"""The sandbox's resources: every operation, then what is particular about lists, writes and single resources."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

import pytest
from aiohttp import ClientSession

from slproxy.sandbox import Options, Sandbox, running

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


@dataclass
class Client:
    """Speak to a sandbox with a good token."""

    session: ClientSession
    sandbox: Sandbox

    async def ask(self, method: str, target: str, **options: object) -> tuple[int, dict[str, object]]:
        """Return the status and the JSON body, empty where there is none."""
        headers = {"Authorization": f"Bearer {self.sandbox.options.api_key}"}
        async with self.session.request(
            method,
            self.sandbox.url + target,
            headers=headers | dict(options.pop("headers", {})),  # type: ignore[call-overload]
            **options,  # type: ignore[arg-type]
        ) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else {}

    async def rows(self, target: str) -> list[dict[str, object]]:
        """Return a list's data."""
        status, body = await self.ask("GET", target)
        assert status == 200, body
        data = body["data"]
        assert isinstance(data, list)
        return data

    async def row(self, method: str, target: str, **options: object) -> dict[str, object]:
        """Return one record."""
        status, body = await self.ask(method, target, **options)
        assert status in (200, 201), body
        data = body["data"]
        assert isinstance(data, dict)
        return data


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running(Options(), clock=lambda: NOW) as sandbox, ClientSession() as session:
        yield Client(session, sandbox)


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
async def test_an_operation_answers_with_its_status_and_shape(
    method: str, path: str, status: int, shape: str | list[str], fields: Mapping[str, str | list[str]], client: Client
) -> None:
    named = path.replace("{bulk_jobs_id}", "1").replace("{id}", "1").removesuffix(".json")
    params = {"person_id": "1", "cadence_id": "1"} if "cadence_memberships" in path and method == "POST" else None
    for number, target in enumerate((named + ".json", named, named + "/", named + ".json/")):
        body = {name: sample(name, kind) for name, kind in fields.items()}
        # What must be unique is, on each round.
        body |= {name: f"{number}.{body[name]}" for name in ("domain", "email_address") if name in body}
        if "upserts" in path:
            body["upsert_key"] = "domain" if "account" in path else "email_address"
        answered, reply = await client.ask(method, target, json=body or None, params=params)
        if method == "DELETE":
            assert (answered, reply) == ((404, {"error": "Not Found"}) if number else (status, {}))
            continue
        assert answered == status, reply
        assert reply["data"], "an operation must have something to show"
        assert not faulty(shape, reply["data"], str(shape))


def test_the_walk_covers_every_operation() -> None:
    assert len(DEFINITION["operations"]) == 121
    assert len(DEFINITION["schemas"]) == 69


async def test_me_is_jane_smith_of_team_3(client: Client) -> None:
    me = await client.row("GET", "/v2/me.json")
    assert me["id"] == 1
    assert (me["name"], me["first_name"], me["last_name"]) == ("Jane Smith", "Jane", "Smith")
    assert (me["email"], me["time_zone"], me["locale"]) == ("jane@company.com", "US/Eastern", "US")
    assert me["active"] is True
    team = me["team"]
    assert isinstance(team, dict)
    assert team["id"] == 3
    assert team["name"] == (await client.row("GET", "/v2/team"))["name"]


async def test_every_reference_to_a_stored_record_leads_somewhere(client: Client) -> None:
    base = "https://api.salesloft.com"
    links: set[str] = set()
    for target in (
        "/v2/people?per_page=100",
        "/v2/activities/calls",
        "/v2/activities/emails",
        "/v2/tasks",
        "/v2/notes",
    ):
        for row in await client.rows(target):
            links |= {str(value["_href"]) for value in row.values() if isinstance(value, dict) and "_href" in value}
    assert len(links) > 50
    for link in links:
        status, _ = await client.ask("GET", link.removeprefix(base))
        assert status == 200, link


# Lists


async def test_a_list_is_paged_by_25_and_counts_only_on_request(client: Client) -> None:
    _, body = await client.ask("GET", "/v2/people.json")
    assert body["metadata"] == {"paging": {"per_page": 25, "current_page": 1, "next_page": 2, "prev_page": None}}
    _, body = await client.ask("GET", "/v2/people.json?include_paging_counts=true&page=5")
    assert body["metadata"] == {
        "paging": {
            "per_page": 25,
            "current_page": 5,
            "next_page": None,
            "prev_page": 4,
            "total_pages": 5,
            "total_count": 120,
        }
    }


@pytest.mark.parametrize(
    ("query", "per_page", "page", "rows"),
    [
        ("per_page=0", 1, 1, 1),
        ("per_page=-4", 1, 1, 1),
        ("per_page=1000", 100, 1, 100),
        ("page=0", 25, 1, 25),
        ("page=-1", 25, 1, 25),
        ("page=99", 25, 99, 0),
        ("per_page=100&page=2", 100, 2, 20),
    ],
)
async def test_paging_out_of_range_is_silently_corrected_and_echoed(
    query: str, per_page: int, page: int, rows: int, client: Client
) -> None:
    status, body = await client.ask("GET", f"/v2/people?{query}")
    assert status == 200
    paging = body["metadata"]["paging"]  # type: ignore[index]
    assert (paging["per_page"], paging["current_page"], len(body["data"])) == (per_page, page, rows)  # type: ignore[arg-type]


async def test_groups_are_never_paged_and_users_only_with_a_page(client: Client) -> None:
    assert (await client.ask("GET", "/v2/groups?page=2&per_page=1"))[1]["metadata"] == {}
    assert (await client.ask("GET", "/v2/users?per_page=1"))[1]["metadata"] == {}
    assert len(await client.rows("/v2/users?per_page=1")) == 6
    assert len(await client.rows("/v2/users?per_page=1&page=1")) == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/people?ids[]=3&ids[]=5", {3, 5}),
        ("/v2/people?ids%5B%5D=3&ids%5b%5d=5", {3, 5}),
        ("/v2/people?ids=3,5", {3, 5}),
        ("/v2/people?ids=3&nonsense=1", {3}),
        ("/v2/people?ids=3&owner_id[]=99", set()),
        ("/v2/users?guid[]=" + JANE, {1}),
        ("/v2/users?search=AISHA", {3}),
        ("/v2/users?active=false", {6}),
        ("/v2/users?ids=1&has_crm_user=true", {1}),
        ("/v2/account_tiers?name[]=Tier 2", {2}),
        ("/v2/steps?cadence_id=2&type=phone", {6}),
        ("/v2/notes?associated_with_id=3&ids=2", {2}),
        ("/v2/accounts?ids=1,2&archived=true", set()),
        ("/v2/accounts?ids=1,2&archived=false", {1, 2}),
        ("/v2/accounts?name=Alder %26 Finch", {3}),
        ("/v2/tags?search=vip", {1}),
        ("/v2/cadence_memberships?person_id=7", {7}),
        ("/v2/activities/calls?person_id[]=3", {1}),
        ("/v2/custom_fields?field_type=company", {3}),
        ("/v2/bulk_jobs?id[gt]=0", {1}),
        ("/v2/bulk_jobs?id[gt]=1", set()),
    ],
)
async def test_a_filter_keeps_what_it_names(target: str, expected: set[int], client: Client) -> None:
    found = await client.rows(target)
    if "associated_with_id" in target:
        assert [row["associated_with"]["id"] for row in found] == [3]  # type: ignore[index]
    assert {row["id"] for row in found} == expected


@pytest.mark.parametrize(
    ("target", "field", "expected"),
    [
        ("/v2/people?account_id=4&per_page=100", "account", 4),
        ("/v2/people?person_stage_id[]=2&per_page=100", "person_stage", 2),
        ("/v2/people?owned_by_guid[]=" + JANE, "owner", 1),
        ("/v2/accounts?account_stage_id=2", "company_stage", 2),
        ("/v2/cadence_memberships?cadence_id=1", "cadence", 1),
        ("/v2/tasks?user_id[]=2", "user", 2),
        ("/v2/activities/emails?cadence_id=1", "cadence", 1),
    ],
)
async def test_a_filter_by_id_looks_into_the_embedded_resource(
    target: str, field: str, expected: int, client: Client
) -> None:
    found = await client.rows(target)
    assert found
    assert {row[field]["id"] for row in found} == {expected}  # type: ignore[index]


async def test_custom_fields_tags_and_addresses_filter(client: Client) -> None:
    red = await client.rows("/v2/people?custom_fields[Favorite%20Color]=red")
    assert red
    assert all(row["custom_fields"] == {"Favorite Color": "red"} for row in red)
    assert all("conference" in row["tags"] for row in await client.rows("/v2/accounts?tag[]=conference"))  # type: ignore[operator]
    address = red[0]["email_address"]
    found = await client.rows(f"/v2/people?email_addresses[]={address}")
    assert [row["id"] for row in found] == [red[0]["id"]]
    assert await client.rows("/v2/people?email_addresses[]=nobody@nowhere.example") == []


@pytest.mark.parametrize("bound", ["gt", "gte", "lt", "lte"])
async def test_a_time_bounds_a_list(bound: str, client: Client) -> None:
    middle = await client.row("GET", "/v2/accounts/12")
    at = str(middle["updated_at"])
    # An unencoded plus has become a space on its way; SalesLoft's offsets are negative, so this one is made positive.
    shifted = datetime.fromisoformat(at).astimezone(datetime.fromisoformat("2024-01-01T00:00:00+02:00").tzinfo)
    found = {row["id"] for row in await client.rows(f"/v2/accounts?updated_at[{bound}]={shifted.isoformat()}")}
    assert (
        found
        == {
            "gt": set(range(13, 26)),
            "gte": set(range(12, 26)),
            "lt": set(range(1, 12)),
            "lte": set(range(1, 13)),
        }[bound]
    )


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [25, 24, 23]),
        ("sort_direction=asc", [1, 2, 3]),
        ("sort_by=updated_at&sort_direction=DESC", [25, 24, 23]),
        ("sort_by=name&sort_direction=ASC", [3, 2, 4]),
        ("sort_by=name&sort_direction=desc", [20, 19, 18]),
    ],
)
async def test_a_list_is_sorted_latest_first_unless_told_otherwise(query: str, ids: list[int], client: Client) -> None:
    assert [row["id"] for row in await client.rows(f"/v2/accounts?per_page=3&{query}")] == ids


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/v2/people?ids=x", "ids"),
        ("/v2/people?updated_at[gt]=yesterday", "updated_at"),
        ("/v2/people?do_not_contact=perhaps", "do_not_contact"),
        ("/v2/people?sort_by=colour", "sort_by"),
        ("/v2/people?sort_by=account", "sort_by"),
        ("/v2/people?sort_direction=up", "sort_direction"),
        ("/v2/people?page=two", "page"),
        ("/v2/people?per_page=many", "per_page"),
        ("/v2/people?include_paging_counts=some", "include_paging_counts"),
        ("/v2/cadences?archived=x", "archived"),
    ],
)
async def test_a_bad_value_in_a_query_is_422(target: str, field: str, client: Client) -> None:
    status, body = await client.ask("GET", target)
    assert status == 422
    assert list(body["errors"]) == [field]  # type: ignore[call-overload]


# Writes


async def test_a_person_is_created_read_updated_and_deleted(client: Client) -> None:
    person = await client.row(
        "POST",
        "/v2/people",
        json={"email_address": "a@b.example", "first_name": "Ada", "last_name": "Wu", "account_id": 2},
    )
    assert person["display_name"] == "Ada Wu"
    assert person["account"] == {"id": 2, "_href": "https://api.salesloft.com/v2/accounts/2"}
    assert person["created_at"] == person["updated_at"] == "2025-06-15T10:07:00.000000-05:00"
    target = f"/v2/people/{person['id']}"
    client.sandbox.advance(1.5)
    updated = await client.row("PUT", target + ".json", json={"title": "CEO", "account_id": None})
    assert (updated["title"], updated["account"], updated["first_name"]) == ("CEO", None, "Ada")
    assert updated["updated_at"] == "2025-06-15T10:07:01.500000-05:00"
    assert await client.row("GET", target) == updated
    assert (await client.rows("/v2/people?per_page=1&updated_at[gt]=2025-06-15"))[0] == updated
    assert await client.ask("DELETE", target) == (204, {})
    for method in ("GET", "PUT", "DELETE"):
        assert await client.ask(method, target, json={} if method == "PUT" else None) == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    ("target", "body", "errors"),
    [
        ("/v2/accounts", {}, {"name": ["can't be blank"], "domain": ["can't be blank"]}),
        ("/v2/accounts", {"name": " ", "domain": "x.example"}, {"name": ["can't be blank"]}),
        ("/v2/people", {"first_name": 5}, {"first_name": ["must be a string"]}),
        ("/v2/people", {"account_id": "x"}, {"account_id": ["must be an integer"]}),
        ("/v2/people", {"account_id": 999}, {"account_id": ["does not exist"]}),
        ("/v2/people", {"do_not_contact": "x"}, {"do_not_contact": ["must be true or false"]}),
        ("/v2/people", {"tags": 1}, {"tags": ["must be a list"]}),
        ("/v2/people", {"custom_fields": "x"}, {"custom_fields": ["must be an object"]}),
        ("/v2/cadence_memberships", {}, {"person_id": ["can't be blank"], "cadence_id": ["can't be blank"]}),
        (
            "/v2/tasks",
            {
                "subject": "s",
                "person_id": 1,
                "user_id": 1,
                "task_type": "call",
                "due_date": "soon",
                "current_state": "scheduled",
            },
            {"due_date": ["is not a valid date"]},
        ),
        (
            "/v2/notes",
            {"content": "c", "associated_with_type": "person", "associated_with_id": 999},
            {"associated_with_id": ["does not exist"]},
        ),
        ("/v2/person_upserts", {"upsert_key": "shoe"}, {"upsert_key": ["is not included in the list"]}),
        ("/v2/person_upserts", {"upsert_key": "crm_id"}, {"crm_id": ["can't be blank"]}),
        ("/v2/bulk_jobs/1/job_data", {"data": []}, {"data": ["can't be blank"]}),
    ],
)
async def test_a_write_that_cannot_be_taken_is_422(
    target: str, body: object, errors: Mapping[str, Sequence[str]], client: Client
) -> None:
    assert await client.ask("POST", target, json=body) == (422, {"errors": errors})


async def test_an_email_address_is_taken_once_whatever_its_case(client: Client) -> None:
    await client.row("POST", "/v2/people", json={"email_address": "a@b.example"})
    status, body = await client.ask("POST", "/v2/people", json={"email_address": "A@B.example"})
    assert (status, body) == (422, {"errors": {"email_address": ["has already been taken"]}})
    person = await client.row("PUT", "/v2/people/1", json={"email_address": "one@b.example"})
    assert await client.row("PUT", "/v2/people/1", json={"email_address": "one@b.example"}) == person


async def test_an_update_may_leave_out_required_fields_that_the_record_has(client: Client) -> None:
    assert (await client.row("PUT", "/v2/accounts/1", json={"city": "Rome"}))["city"] == "Rome"
    status, body = await client.ask("PUT", "/v2/accounts/1", json={"name": ""})
    assert (status, body) == (422, {"errors": {"name": ["can't be blank"]}})


async def test_a_body_may_be_a_form_or_only_a_query(client: Client) -> None:
    form = {
        "first_name": "Ada",
        "account_id": "3",
        "do_not_contact": "true",
        "tags[]": "vip",
        "custom_fields[Hue]": "red",
    }
    person = await client.row("POST", "/v2/people", data=form)
    assert (person["first_name"], person["do_not_contact"], person["tags"]) == ("Ada", True, ["vip"])
    assert person["custom_fields"] == {"Hue": "red"}
    membership = await client.row("POST", f"/v2/cadence_memberships?person_id={person['id']}&cadence_id=2&user_id=4")
    assert membership["person"]["id"] == person["id"]  # type: ignore[index]
    assert membership["user"]["id"] == 4  # type: ignore[index]
    assert (await client.row("POST", "/v2/imports"))["name"] is None


async def test_a_compressed_json_body_is_read(client: Client) -> None:
    body = gzip.compress(b'{"name": "Cold"}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert (await client.row("POST", "/v2/person_stages", data=body, headers=headers))["name"] == "Cold"
    assert client.sandbox.requests[-1].body == body


@pytest.mark.parametrize("body", [b"{", b'{"name": NaN}', b"[" * 100_000])
async def test_json_that_does_not_parse_is_400(body: bytes, client: Client) -> None:
    headers = {"Content-Type": "application/json"}
    status, answered = await client.ask("POST", "/v2/person_stages", data=body, headers=headers)
    assert (status, list(answered)) == (400, ["error"])


async def test_an_upsert_creates_then_updates(client: Client) -> None:
    body = {"upsert_key": "email_address", "email_address": "a@b.example", "first_name": "Ada"}
    created = await client.row("POST", "/v2/person_upserts.json", json=body)
    updated = await client.row("POST", "/v2/person_upserts.json", json=body | {"first_name": "Eve"})
    assert (created["upsert_type"], updated["upsert_type"]) == ("create", "update")
    first, second = created["person"], updated["person"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["id"], second["first_name"]) == (second["id"], "Eve")
    nobody = await client.row("POST", "/v2/person_upserts", json={"upsert_key": "crm_id", "crm_id": "none"})
    assert nobody["upsert_type"] == "create", "people without a CRM id have none, which is no id"
    account = await client.row("POST", "/v2/account_upserts", json={"upsert_key": "id", "id": 4, "city": "Rome"})
    assert account["upsert_type"] == "update"
    assert (await client.row("GET", "/v2/accounts/4"))["city"] == "Rome"


async def test_a_task_with_the_same_idempotency_key_is_made_once(client: Client) -> None:
    body = {"subject": "s", "person_id": "1", "user_id": 1, "task_type": "call", "current_state": "scheduled"}
    body |= {"due_date": "2030-01-01", "idempotency_key": "k"}
    first = await client.row("POST", "/v2/tasks", json=body)
    assert await client.row("POST", "/v2/tasks", json=body) == first
    assert await client.row("POST", "/v2/tasks", json=body | {"idempotency_key": "l"}) != first


async def test_a_completed_task_says_when_and_by_whom(client: Client) -> None:
    task = await client.row("PUT", "/v2/tasks/1", json={"current_state": "completed"})
    assert task["due_at"] == str(task["due_date"]) + "T00:00:00.000000+00:00"
    assert task["completed_at"] == "2025-06-15T10:07:00.000000-05:00"
    assert task["completed_by"] == task["user"]


async def test_a_bulk_job_that_is_ready_is_done_and_has_results(client: Client) -> None:
    job = await client.row("POST", "/v2/bulk_jobs", json={"type": "LeadUpdate"})
    target = f"/v2/bulk_jobs/{job['id']}"
    assert await client.row("POST", target + "/job_data", json={"data": [{"id": 1}, {"id": 2}]}) == {"records": 2}
    assert await client.rows(target + "/results") == []
    done = await client.row("PUT", target, json={"ready_to_execute": True})
    assert (done["state"], done["total"], done["processed"]) == ("done", 2, 2)
    assert [row["status"] for row in await client.rows(target + "/results")] == ["success", "success"]


async def test_an_archived_account_is_found_by_that(client: Client) -> None:
    assert (await client.row("PUT", "/v2/accounts/5", json={"archived": True}))["archived_at"]
    assert [row["id"] for row in await client.rows("/v2/accounts?archived=true")] == [5]


async def test_a_caller_is_named_by_number(client: Client) -> None:
    person = await client.row("PUT", "/v2/people/1", json={"phone": "+14045550199"})
    (caller,) = await client.rows("/v2/phone_numbers/caller_ids.json?phone_number=%2B14045550199")
    assert caller["display_name"] == person["display_name"]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v2/people/999"),
        ("GET", "/v2/people/x"),
        ("GET", "/v2/nothing"),
        ("GET", "/v2/people/1/2"),
        ("GET", "/v2/"),
        ("POST", "/v2/me"),
        ("PATCH", "/v2/people/1"),
        ("DELETE", "/v2/people"),
        ("OPTIONS", "/v2/people"),
        ("GET", "/"),
        ("GET", "/v3/people"),
    ],
)
async def test_what_is_not_there_is_404(method: str, target: str, client: Client) -> None:
    assert await client.ask(method, target) == (404, {"error": "Not Found"})


async def test_head_answers_as_get_without_a_body(client: Client) -> None:
    assert await client.ask("HEAD", "/v2/me") == (200, {})


async def test_a_recording_is_a_redirect_to_another_host(client: Client) -> None:
    headers = {"Authorization": f"Bearer {client.sandbox.options.api_key}"}
    url = client.sandbox.url + "/v2/conversations/5/recording"
    async with client.session.get(url, headers=headers, allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"].startswith("https://recordings.example.com/5.mp3?")


# Authentication


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (None, "No Bearer Token attached to request, please see documentation at developers.salesloft.com"),
        ("Basic YTpi", "No Bearer Token attached to request, please see documentation at developers.salesloft.com"),
        ("Bearer nonsense", "Invalid Bearer token"),
        ("Bearer", "Invalid Bearer token"),
    ],
)
@pytest.mark.parametrize("target", ["/v2/me", "/v2/nothing/there"])
async def test_authentication_comes_before_routing(
    target: str, authorization: str | None, error: str, client: Client
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    async with client.session.get(client.sandbox.url + target, headers=headers) as response:
        assert response.status == 401
        assert await response.json() == {"error": error}
        assert "WWW-Authenticate" not in response.headers
    assert client.sandbox.remaining() == 600


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_v2_api_key_is_a_bearer_token_in_any_case(scheme: str) -> None:
    key = "v2_ak_3_" + "0f" * 32
    async with running(Options(api_key=key)) as sandbox, ClientSession() as session:
        target, headers = sandbox.url + "/v2/me", {"Authorization": f"{scheme} {key}"}
        response = await session.get(target, headers=headers)
        assert response.status == 200
