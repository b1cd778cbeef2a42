"""The sandbox's writes: records created, updated and deleted, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from slproxy.sandbox import Options
from slproxy.sandbox.salesloft import SalesLoft
from tests.support.salesloft import ApiClient

NOW = 1_750_000_020.0  # the start of a clock minute


@pytest.fixture
def client() -> ApiClient:
    return ApiClient(SalesLoft(Options(), clock=lambda: NOW))


def test_a_person_is_created_read_updated_and_deleted(client: ApiClient) -> None:
    person = client.row(
        "POST",
        "/v2/people",
        document={"email_address": "a@b.example", "first_name": "Ada", "last_name": "Wu", "account_id": 2},
    )
    assert person["display_name"] == "Ada Wu"
    assert person["account"] == {"id": 2, "_href": "https://api.salesloft.com/v2/accounts/2"}
    assert person["created_at"] == person["updated_at"] == "2025-06-15T10:07:00.000000-05:00"
    target = f"/v2/people/{person['id']}"
    client.salesloft.advance(1.5)
    updated = client.row("PUT", target + ".json", document={"title": "CEO", "account_id": None})
    assert (updated["title"], updated["account"], updated["first_name"]) == ("CEO", None, "Ada")
    assert updated["updated_at"] == "2025-06-15T10:07:01.500000-05:00"
    assert client.row("GET", target) == updated
    assert client.rows("/v2/people?per_page=1&updated_at[gt]=2025-06-15")[0] == updated
    assert client.ask("DELETE", target) == (204, {})
    for method in ("GET", "PUT", "DELETE"):
        assert client.ask(method, target, document={} if method == "PUT" else None) == (404, {"error": "Not Found"})


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
def test_a_write_that_cannot_be_taken_is_422(
    target: str, body: object, errors: Mapping[str, Sequence[str]], client: ApiClient
) -> None:
    assert client.ask("POST", target, document=body) == (422, {"errors": errors})


def test_an_email_address_is_taken_once_whatever_its_case(client: ApiClient) -> None:
    client.row("POST", "/v2/people", document={"email_address": "a@b.example"})
    status, body = client.ask("POST", "/v2/people", document={"email_address": "A@B.example"})
    assert (status, body) == (422, {"errors": {"email_address": ["has already been taken"]}})
    person = client.row("PUT", "/v2/people/1", document={"email_address": "one@b.example"})
    assert client.row("PUT", "/v2/people/1", document={"email_address": "one@b.example"}) == person


def test_an_update_may_leave_out_required_fields_that_the_record_has(client: ApiClient) -> None:
    assert client.row("PUT", "/v2/accounts/1", document={"city": "Rome"})["city"] == "Rome"
    status, body = client.ask("PUT", "/v2/accounts/1", document={"name": ""})
    assert (status, body) == (422, {"errors": {"name": ["can't be blank"]}})


def test_a_body_may_be_a_form_or_only_a_query(client: ApiClient) -> None:
    form = {
        "first_name": "Ada",
        "account_id": "3",
        "do_not_contact": "true",
        "tags[]": "vip",
        "custom_fields[Hue]": "red",
    }
    person = client.row("POST", "/v2/people", form=form)
    assert (person["first_name"], person["do_not_contact"], person["tags"]) == ("Ada", True, ["vip"])
    assert person["custom_fields"] == {"Hue": "red"}
    membership = client.row("POST", f"/v2/cadence_memberships?person_id={person['id']}&cadence_id=2&user_id=4")
    assert membership["person"]["id"] == person["id"]  # type: ignore[index]
    assert membership["user"]["id"] == 4  # type: ignore[index]
    assert client.row("POST", "/v2/imports")["name"] is None


@pytest.mark.parametrize("body", [b"{", b'{"name": NaN}', b"[" * 100_000])
def test_json_that_does_not_parse_is_400(body: bytes, client: ApiClient) -> None:
    status, answered = client.ask("POST", "/v2/person_stages", body=body, content_type="application/json")
    assert (status, list(answered)) == (400, ["error"])


def test_an_upsert_creates_then_updates(client: ApiClient) -> None:
    body = {"upsert_key": "email_address", "email_address": "a@b.example", "first_name": "Ada"}
    created = client.row("POST", "/v2/person_upserts.json", document=body)
    updated = client.row("POST", "/v2/person_upserts.json", document=body | {"first_name": "Eve"})
    assert (created["upsert_type"], updated["upsert_type"]) == ("create", "update")
    first, second = created["person"], updated["person"]
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["id"], second["first_name"]) == (second["id"], "Eve")
    nobody = client.row("POST", "/v2/person_upserts", document={"upsert_key": "crm_id", "crm_id": "none"})
    assert nobody["upsert_type"] == "create", "people without a CRM id have none, which is no id"
    account = client.row("POST", "/v2/account_upserts", document={"upsert_key": "id", "id": 4, "city": "Rome"})
    assert account["upsert_type"] == "update"
    assert client.row("GET", "/v2/accounts/4")["city"] == "Rome"


def test_a_task_with_the_same_idempotency_key_is_made_once(client: ApiClient) -> None:
    body = {"subject": "s", "person_id": "1", "user_id": 1, "task_type": "call", "current_state": "scheduled"}
    body |= {"due_date": "2030-01-01", "idempotency_key": "k"}
    first = client.row("POST", "/v2/tasks", document=body)
    assert client.row("POST", "/v2/tasks", document=body) == first
    assert client.row("POST", "/v2/tasks", document=body | {"idempotency_key": "l"}) != first


def test_a_completed_task_says_when_and_by_whom(client: ApiClient) -> None:
    task = client.row("PUT", "/v2/tasks/1", document={"current_state": "completed"})
    assert task["due_at"] == str(task["due_date"]) + "T00:00:00.000000+00:00"
    assert task["completed_at"] == "2025-06-15T10:07:00.000000-05:00"
    assert task["completed_by"] == task["user"]


def test_a_bulk_job_that_is_ready_is_done_and_has_results(client: ApiClient) -> None:
    job = client.row("POST", "/v2/bulk_jobs", document={"type": "LeadUpdate"})
    target = f"/v2/bulk_jobs/{job['id']}"
    assert client.row("POST", target + "/job_data", document={"data": [{"id": 1}, {"id": 2}]}) == {"records": 2}
    assert client.rows(target + "/results") == []
    done = client.row("PUT", target, document={"ready_to_execute": True})
    assert (done["state"], done["total"], done["processed"]) == ("done", 2, 2)
    assert [row["status"] for row in client.rows(target + "/results")] == ["success", "success"]


def test_an_archived_account_is_found_by_that(client: ApiClient) -> None:
    assert client.row("PUT", "/v2/accounts/5", document={"archived": True})["archived_at"]
    assert [row["id"] for row in client.rows("/v2/accounts?archived=true")] == [5]


def test_a_caller_is_named_by_number(client: ApiClient) -> None:
    person = client.row("PUT", "/v2/people/1", document={"phone": "+14045550199"})
    (caller,) = client.rows("/v2/phone_numbers/caller_ids.json?phone_number=%2B14045550199")
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
def test_what_is_not_there_is_404(method: str, target: str, client: ApiClient) -> None:
    assert client.ask(method, target) == (404, {"error": "Not Found"})
