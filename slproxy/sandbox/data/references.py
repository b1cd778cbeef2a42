"""References: the short form in which one record names another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from slproxy.sandbox.data.values import integer

CrmRecord: TypeAlias = dict[str, object]

# Links are absolute, and name the real host: docs/salesloft.md, API.
API_URL = "https://api.salesloft.com/v2"

# The collection that a field refers to; any other field refers to its own plural.
REFERENCES: Mapping[str, str] = {
    "action": "actions",
    "action_details": "action_details/call_instructions",
    "booked_by_user": "users",
    "call": "activities/calls",
    "called_person": "people",
    "company_stage": "account_stages",
    "completed_by": "users",
    "created_by_user": "users",
    "creator": "users",
    "details": "action_details/call_instructions",
    "email": "activities/emails",
    "last_completed_step": "steps",
    "last_completed_step_cadence": "cadences",
    "last_contacted_by": "users",
    "last_contacted_person": "people",
    "last_modified_user": "users",
    "latest_action": "actions",
    "latest_cadence": "cadences",
    "latest_call": "activities/calls",
    "latest_email": "activities/emails",
    "latest_step": "steps",
    "most_recent_cadence": "cadences",
    "owner": "users",
    "person": "people",
    "recipient": "people",
    "role": "custom_roles",
    "template_owner": "users",
    "accessible_groups": "groups",
    "added_stage": "person_stages",
    "bounced_stage": "person_stages",
    "finished_stage": "person_stages",
    "replied_stage": "person_stages",
}


def reference(field: str, identity: int) -> CrmRecord:
    """Return the short form of a record that a field refers to."""
    return {"id": identity, "_href": f"{API_URL}/{REFERENCES.get(field, plural(field))}/{identity}"}


def plural(field: str) -> str:
    """Return the collection that is named after a field."""
    return field if field.endswith("s") else field.removesuffix("y") + ("ies" if field.endswith("y") else "s")


def reference_to(field: str, record: CrmRecord) -> CrmRecord:
    """Return the short form of a record at hand."""
    return reference(field, integer(record["id"]))
