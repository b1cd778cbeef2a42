"""Operations of SalesLoft's API, by the templates of their paths: what a log and a metric tell many paths by.

The names are those of SalesLoft's published definition (docs/salesloft.md, API), less ``.json``, which it takes or
leaves at the end of a path.
"""

from __future__ import annotations

import functools

# What is no operation that is known.
OTHER = "other"

TEMPLATES = (
    "/v2/account_stages",
    "/v2/account_stages/{id}",
    "/v2/account_tiers",
    "/v2/account_tiers/{id}",
    "/v2/account_upserts",
    "/v2/accounts",
    "/v2/accounts/{id}",
    "/v2/action_details/call_instructions",
    "/v2/action_details/call_instructions/{id}",
    "/v2/actions",
    "/v2/actions/{id}",
    "/v2/activities",
    "/v2/activities/calls",
    "/v2/activities/calls/{id}",
    "/v2/activities/emails",
    "/v2/activities/emails/{id}",
    "/v2/activity_histories",
    "/v2/bulk_jobs",
    "/v2/bulk_jobs/{bulk_jobs_id}/job_data",
    "/v2/bulk_jobs/{bulk_jobs_id}/results",
    "/v2/bulk_jobs/{id}",
    "/v2/cadence_exports/{id}",
    "/v2/cadence_imports",
    "/v2/cadence_memberships",
    "/v2/cadence_memberships/{id}",
    "/v2/cadences",
    "/v2/cadences/{id}",
    "/v2/calendar/events",
    "/v2/calendar/events/upsert",
    "/v2/call_data_records",
    "/v2/call_data_records/{id}",
    "/v2/call_dispositions",
    "/v2/call_sentiments",
    "/v2/conversations/calls",
    "/v2/crm_activities",
    "/v2/crm_activities/{id}",
    "/v2/crm_activity_fields",
    "/v2/crm_users",
    "/v2/custom_fields",
    "/v2/custom_fields/{id}",
    "/v2/custom_roles",
    "/v2/custom_roles/{id}",
    "/v2/email_template_attachments",
    "/v2/email_templates",
    "/v2/email_templates/{id}",
    "/v2/external_emails",
    "/v2/groups",
    "/v2/groups/{id}",
    "/v2/imports",
    "/v2/imports/{id}",
    "/v2/live_website_tracking_parameters",
    "/v2/me",
    "/v2/meetings",
    "/v2/meetings/settings/searches",
    "/v2/meetings/settings/{id}",
    "/v2/meetings/{id}",
    "/v2/mime_email_payloads/{id}",
    "/v2/notes",
    "/v2/notes/{id}",
    "/v2/ongoing_actions",
    "/v2/pending_emails",
    "/v2/pending_emails/{id}",
    "/v2/people",
    "/v2/people/{id}",
    "/v2/person_stages",
    "/v2/person_stages/{id}",
    "/v2/person_upserts",
    "/v2/phone_number_assignments",
    "/v2/phone_number_assignments/{id}",
    "/v2/phone_numbers/caller_ids",
    "/v2/phone_numbers/recording_settings/{id}",
    "/v2/saved_list_views",
    "/v2/saved_list_views/{id}",
    "/v2/steps",
    "/v2/steps/{id}",
    "/v2/successes",
    "/v2/tags",
    "/v2/tasks",
    "/v2/tasks/{id}",
    "/v2/team",
    "/v2/team_template_attachments",
    "/v2/team_templates",
    "/v2/team_templates/{id}",
    "/v2/third_party_live_feed_items",
    "/v2/users",
    "/v2/users/{id}",
    "/v2/webhook_subscriptions",
    "/v2/webhook_subscriptions/{id}",
)


class _Names:
    """What may follow the beginning of a path: names, any name at all, or its end."""

    __slots__ = ("any", "named", "template")

    def __init__(self) -> None:
        self.named: dict[str, _Names] = {}
        self.any: _Names | None = None
        self.template = OTHER

    def add(self, template: str) -> None:
        """Add a template."""
        names = self
        for name in template.split("/"):
            if name.startswith("{"):
                names.any = names.any or _Names()
                names = names.any
            else:
                names = names.named.setdefault(name, _Names())
        names.template = template


def _tree() -> _Names:
    tree = _Names()
    for template in TEMPLATES:
        tree.add(template)
    return tree


_TREE = _tree()


@functools.lru_cache(maxsize=1024)
def operation_of(path: str) -> str:
    """Return the template of a path, such as ``/v2/people/{id}``, or ``other``."""
    names = _TREE
    for name in path.removesuffix(".json").split("/"):
        # A literal name wins over a placeholder, which no empty name fills.
        following = names.named.get(name) or (names.any if name else None)
        if following is None:
            return OTHER
        names = following
    return names.template
