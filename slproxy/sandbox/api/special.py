"""Special operations: those that do more, or less, than CRUD on a collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256

from slproxy.sandbox.api.call import ApiResponse, OperationCall, invalid_fields, not_found
from slproxy.sandbox.api.crud import get_or_404, listing, public_fields, single, write
from slproxy.sandbox.data.definition import definition
from slproxy.sandbox.data.records import ME, TEAM
from slproxy.sandbox.data.references import CrmRecord, reference, reference_to
from slproxy.sandbox.data.values import timestamp

UPSERT_KEYS: Mapping[str, tuple[str, ...]] = {
    "people": ("email_address", "id", "crm_id"),
    "accounts": ("domain", "id", "crm_id"),
}


def me(call: OperationCall) -> ApiResponse:
    """Answer with Jane Smith, whoever the token was issued to."""
    return single(call, get_or_404(call, "users", ME))


def team(call: OperationCall) -> ApiResponse:
    """Answer with the one team."""
    return single(call, get_or_404(call, "team", TEAM))


def upsert_person(call: OperationCall) -> ApiResponse:
    """Create or update a person."""
    return upsert(call, "people", "person")


def upsert_account(call: OperationCall) -> ApiResponse:
    """Create or update an account."""
    return upsert(call, "accounts", "account")


def upsert(call: OperationCall, collection: str, name: str) -> ApiResponse:
    """Update the record whose `upsert_key` has the value given, or create it; by address or domain if not told."""
    key = call.values.get("upsert_key") or UPSERT_KEYS[collection][0]
    if key not in UPSERT_KEYS[collection]:
        raise invalid_fields({"upsert_key": ["is not included in the list"]})
    wanted = call.values.get(str(key))
    if wanted is None:
        raise invalid_fields({str(key): ["can't be blank"]})
    found = call.records.find_by(collection, str(key), wanted)
    if found is None and key == "id":
        raise not_found()
    schema = definition().schemas[name.capitalize()]
    values = {field: value for field, value in call.values.items() if field not in ("id", "upsert_key")}
    record = write(replace(call, schema=schema, values=values), collection, found)
    upsert_type = "update" if found else "create"
    return ApiResponse(
        call.operation.status, {"data": {name: public_fields(schema, record), "upsert_type": upsert_type}}
    )


def complete(call: OperationCall) -> ApiResponse:
    """Complete an action or a task."""
    for name, collection, done in (("action_id", "actions", "status"), ("task_id", "tasks", "current_state")):
        if call.values.get(name) is not None:
            get_or_404(call, collection, call.values[name])[done] = "completed"
    return ApiResponse(call.operation.status, {"data": {"updated_at": timestamp(call.now)}})


def start_action(call: OperationCall) -> ApiResponse:
    """Mark an action as in progress."""
    if call.values.get("action_id") is None:
        raise invalid_fields({"action_id": ["can't be blank"]})
    record = get_or_404(call, "actions", call.values["action_id"])
    record |= {"status": "in_progress", "updated_at": timestamp(call.now)}
    return single(call, record)


def create_task(call: OperationCall) -> ApiResponse:
    """Create a task, or answer with the one of the same idempotency key, so that a POST may be repeated."""
    key = call.values.get("idempotency_key")
    for record in call.records.all("tasks"):
        if key and record.get("idempotency_key") == key:
            return single(call, record)
    record = write(call, "tasks", None)
    record["idempotency_key"] = key
    return single(call, record)


def job_data(call: OperationCall) -> ApiResponse:
    """List a job's data, or their results."""
    job = call.ids["bulk_jobs_id"]
    get_or_404(call, "bulk_jobs", job)
    records = call.records.all(f"bulk_jobs/{job}/job_data")
    finished = call.operation.path.endswith("/results")
    return listing(call, [r for r in records if not finished or r["status"] != "pending"])


def add_job_data(call: OperationCall) -> ApiResponse:
    """Give a job more data to work on."""
    key = call.ids["bulk_jobs_id"]
    job = get_or_404(call, "bulk_jobs", key)
    data = call.values.get("data")
    if not isinstance(data, list) or not data:
        raise invalid_fields({"data": ["can't be blank"]})
    for one in data:
        values: CrmRecord = {"bulk_job": {"id": job["id"]}, "record": one, "status": "pending"}
        call.records.add(f"bulk_jobs/{key}/job_data", "JobData", values, call.now)
    job["total"] = len(call.records.all(f"bulk_jobs/{key}/job_data"))
    return ApiResponse(call.operation.status, {"data": {"records": len(data)}})


def run_job(call: OperationCall) -> ApiResponse:
    """Update a job; one that is ready is done at once."""
    key = call.ids["id"]
    job = write(call, "bulk_jobs", get_or_404(call, "bulk_jobs", key))
    if job["ready_to_execute"]:
        for record in call.records.all(f"bulk_jobs/{key}/job_data"):
            done = timestamp(call.now)
            record |= {"status": "success", "started_at": done, "finished_at": done, "resource": record["record"]}
    return single(call, job)


def export_cadence(call: OperationCall) -> ApiResponse:
    """Answer with a cadence and its steps, fit to be imported."""
    cadence = get_or_404(call, "cadences", call.ids["id"])
    steps = [
        {"name": step["name"], "day": step["day"], "type": step["type"]}
        for step in call.records.all("steps")
        if step["cadence"] == reference("cadence", int(call.ids["id"]))
    ]
    content = {"settings": {"name": cadence["name"]}, "steps": steps}
    return ApiResponse(call.operation.status, {"data": {"cadence_content": content}})


def import_cadence(call: OperationCall) -> ApiResponse:
    """Create a cadence from an exported one, or an empty one."""
    content = call.values.get("cadence_content")
    settings = [one.get("settings") for one in (content,) if isinstance(one, Mapping)] + [call.values.get("settings")]
    names = [one["name"] for one in settings if isinstance(one, Mapping) and one.get("name")]
    values: CrmRecord = {"name": (names or ["Imported cadence"])[0], "owner": reference("owner", ME)}
    cadence = call.records.add("cadences", "Cadence", values, call.now)
    return single(call, {"cadence": reference_to("cadence", cadence)})


def upsert_event(call: OperationCall) -> ApiResponse:
    """Create or update a calendar event by the id that its calendar gave it."""
    key = str(call.values.get("id"))
    return single(call, write(call, "calendar/events", call.records.find("calendar/events", key)))


def external_email(call: OperationCall) -> ApiResponse:
    """Take an email, and answer with its message id."""
    write(call, "external_emails", None)
    digest = sha256(str(call.values["raw"]).encode()).hexdigest()[:24]
    return single(call, {"message_id": f"<{digest}@mail.example.com>"})


def tracking(call: OperationCall) -> ApiResponse:
    """Answer with the parameter that tells who follows a link."""
    person = call.values.get("person_id")
    if person is None:
        raise invalid_fields({"person_id": ["can't be blank"]})
    get_or_404(call, "people", person)
    value = sha256(f"person {person}".encode()).hexdigest()[:32]
    return single(call, {"parameters": [{"name": "sbrc", "value": value}]})


def meeting_settings(call: OperationCall) -> ApiResponse:
    """Search the meeting settings, by POST."""
    return listing(call, call.records.all("meetings/settings"))


def caller_ids(call: OperationCall) -> ApiResponse:
    """Name the people who call from a number."""
    number = call.query.last("phone_number")
    found: list[CrmRecord] = []
    for person in call.records.all("people"):
        if person["phone"] and number in (None, person["phone"], person["mobile_phone"], person["home_phone"]):
            account = call.records.find("accounts", (person["account"] or {}).get("id"))  # type: ignore[attr-defined]
            found.append(
                {
                    "account_name": account["name"] if account else None,
                    "display_name": person["display_name"],
                    "person": reference_to("person", person),
                    "title": person["title"],
                }
            )
    return ApiResponse(call.operation.status, {"data": found, "metadata": {}})


def live_feed_item(call: OperationCall) -> ApiResponse:
    """Add an item to the live feed; the answer is a list of one."""
    record = write(call, "third_party_live_feed_items", None)
    return ApiResponse(call.operation.status, {"data": [public_fields(call.schema, record)]})


SPECIAL: Mapping[tuple[str, str], Callable[[OperationCall], ApiResponse]] = {
    ("GET", "/v2/me"): me,
    ("GET", "/v2/team"): team,
    ("POST", "/v2/person_upserts"): upsert_person,
    ("POST", "/v2/account_upserts"): upsert_account,
    ("POST", "/v2/activities"): complete,
    ("POST", "/v2/ongoing_actions"): start_action,
    ("POST", "/v2/tasks"): create_task,
    ("GET", "/v2/bulk_jobs/{bulk_jobs_id}/job_data"): job_data,
    ("GET", "/v2/bulk_jobs/{bulk_jobs_id}/results"): job_data,
    ("POST", "/v2/bulk_jobs/{bulk_jobs_id}/job_data"): add_job_data,
    ("PUT", "/v2/bulk_jobs/{id}"): run_job,
    ("GET", "/v2/cadence_exports/{id}"): export_cadence,
    ("POST", "/v2/cadence_imports"): import_cadence,
    ("POST", "/v2/calendar/events/upsert"): upsert_event,
    ("POST", "/v2/external_emails"): external_email,
    ("POST", "/v2/live_website_tracking_parameters"): tracking,
    ("POST", "/v2/meetings/settings/searches"): meeting_settings,
    ("GET", "/v2/phone_numbers/caller_ids"): caller_ids,
    ("POST", "/v2/third_party_live_feed_items"): live_feed_item,
}
