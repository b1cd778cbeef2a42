"""Make what the team has done: calls, emails, notes, tasks, meetings."""

from __future__ import annotations

from collections.abc import Mapping

from .crud import ME, TEAM
from .names import CADENCES, COMPANIES, STEPS
from .query import Record
from .records import embed, guid, linked
from .sower import Sower
from .values import integer


def activities(sower: Sower) -> None:
    """Put half of the people on a cadence, and do what comes of it."""
    for person in sower.records.all("people")[:60]:
        number = integer(person["id"])
        cadence = sower.dice.randint(1, len(CADENCES))
        step = (cadence - 1) * len(STEPS) + sower.dice.randint(1, len(STEPS))
        ends: Mapping[str, Record] = {
            "person": embed("person", number),
            "cadence": embed("cadence", cadence),
            "user": sower.user(),
        }
        person["cadences"] = [embed("cadence", cadence)]
        person["most_recent_cadence"] = embed("cadence", cadence)
        action = sower.add(
            "actions",
            "Action",
            **ends,
            step=embed("step", step),
            type=STEPS[(step - 1) % len(STEPS)][1],
            due=True,
            due_on=sower.ago(0),
            status="pending",
            action_details=embed("action_details", step),
        )
        sower.add(
            "cadence_memberships",
            "CadenceMembership",
            **ends,
            added_at=sower.ago(3),
            currently_on_cadence=number % 6 != 0,
            current_state="active" if number % 6 else "completed",
            latest_action=linked("latest_action", action),
        )
        counts = sower.records.all("cadences")[cadence - 1]["counts"]
        assert isinstance(counts, dict)
        counts["cadence_people"] += 1
        if number % 2:
            tasks_and_notes(sower, number)
        if number % 3 == 0:
            call(sower, number, ends, linked("action", action), embed("step", step))


def tasks_and_notes(sower: Sower, number: int) -> None:
    """Make what one user keeps about a person."""
    person, user = embed("person", number), sower.user()
    done = number % 5 == 0
    sower.add(
        "tasks",
        "Task",
        person=person,
        user=user,
        created_by_user=embed("user", ME),
        subject=sower.dice.choice(("Send the proposal", "Call back", "Share the case study")),
        task_type=sower.dice.choice(("call", "email", "general")),
        current_state="completed" if done else "scheduled",
        due_date=sower.ago(-5)[:10],
    )
    sower.add(
        "notes",
        "Note",
        content=sower.dice.choice(("Prefers email.", "Budget is decided in June.", "Asked for a demo.")),
        associated_type="person",
        associated_with=person,
        user=user,
    )
    sower.add(
        "activity_histories",
        "ActivityHistory",
        type="added_note",
        resource_type="person",
        resource_id=number,
        occurred_at=sower.ago(0),
        user_guid=guid("users", integer(user["id"])),
        static_data={"content": "Prefers email."},
    )


def call(sower: Sower, number: int, ends: Mapping[str, Record], action: Record, step: Record) -> None:
    """Make a call, its record and the success it led to."""
    to, duration = sower.phone(), sower.dice.randint(5, 900)
    recording = {
        "url": "https://recordings.example.com/1.mp3",
        "status": "completed",
        "recording_status": "completed",
    }
    made = sower.add(
        "activities/calls",
        "Call",
        called_person=ends["person"],
        cadence=ends["cadence"],
        user=ends["user"],
        action=action,
        step=step,
        to=to,
        duration=duration,
        disposition=sower.dice.choice(("Connected", "Left Voicemail", "No Answer")),
        sentiment=sower.dice.choice(("Interested", "Not Interested")),
        recordings=[recording],
    )
    sower.add(
        "call_data_records",
        "CallDataRecord",
        call=linked("call", made),
        called_person=ends["person"],
        user=ends["user"],
        call_type="call",
        call_uuid=guid("call_data_records", number),
        direction="outbound",
        status="completed",
        to=to,
        duration=duration,
        recording=recording,
        **{"from": sower.phone()},
    )
    person = sower.records.find("people", number)
    assert person is not None
    sower.add(
        "successes",
        "Success",
        person=ends["person"],
        user=ends["user"],
        latest_cadence=ends["cadence"],
        latest_call=linked("call", made),
        latest_action=action,
        latest_step=step,
        succeeded_at=sower.ago(0),
    )
    person["success_count"] = 1


def emails(sower: Sower) -> None:
    """Make templates with attachments, and the emails sent from them."""
    for number, title in enumerate(("Introduction", "Following up", "Case study", "One last try"), 1):
        texts = {"title": title, "subject": f"{title} | Company Inc.", "body": "<p>Hi {{first_name}},</p>"}
        shared = {
            "body_preview": "Hi {{first_name}},",
            "open_tracking_enabled": True,
            "click_tracking_enabled": True,
        }
        sower.add("team_templates", "TeamTemplate", **texts, **shared, last_modified_user=embed("user", ME))
        sower.add(
            "email_templates",
            "EmailTemplate",
            **texts,
            **shared,
            shared=True,
            template_owner=sower.user(),
            team_template=embed("team_template", number),
            groups=[embed("group", 2)],
        )
        file = {"attachment_id": number, "name": f"brochure-{number}.pdf", "attachment_file_size": 48_213}
        url = {"download_url": f"https://files.example.com/brochure-{number}.pdf"}
        sower.add(
            "email_template_attachments",
            "EmailTemplateAttachment",
            **file,
            **url,
            attachment_content_type="application/pdf",
            attachment_fingerprint=number * 1_000_003,
            scanned=True,
            email_template=embed("email_template", number),
        )
        sower.add(
            "team_template_attachments",
            "TeamTemplateAttachment",
            **file,
            **url,
            team_template=embed("team_template", number),
        )
    for number, membership in enumerate(sower.records.all("cadence_memberships")[:30], 1):
        ends = {name: membership[name] for name in ("cadence", "user")}
        person = sower.records.find("people", membership["person"]["id"])  # type: ignore[index]
        assert person is not None
        activity = sower.add(
            "crm_activities",
            "CrmActivity",
            person=membership["person"],
            user=membership["user"],
            activity_type="email",
            subject="Introduction",
            description="Sent an email",
            crm_id=f"00T5e00000{number:05}AAA",
        )
        sower.add(
            "activities/emails",
            "Email",
            **ends,
            recipient=membership["person"],
            recipient_email_address=person["email_address"],
            action=membership["latest_action"],
            email_template=embed("email_template", 1),
            crm_activity=linked("crm_activity", activity),
            subject="Introduction | Company Inc.",
            status="sent",
            personalization="12",
            sent_at=sower.ago(0),
            click_tracking=True,
            view_tracking=True,
        )
    for number in (1, 2):
        raw = f"From: jane@company.com\r\nTo: buyer{number}@example.com\r\nSubject: Hello\r\n\r\nHello.\r\n"
        mailbox = "jane@company.com"
        message_id = f"<{guid('mime', number)}@company.com>"
        sower.add("mime_email_payloads", "MimeEmailPayload", mailbox=mailbox, message_id=message_id, raw=raw)
        payload = embed("mime_email_payload", number)
        sower.add("pending_emails", "PendingEmail", mailbox=mailbox, mime_email_payload=payload)


def meetings(sower: Sower) -> None:
    """Make meetings, their calendar events and the settings they were booked by."""
    for number in range(1, 7):
        start, end = sower.ago(-number), sower.ago(-number - 1 / 48)
        user = sower.user()
        owner = guid("users", integer(user["id"]))
        event: Mapping[str, object] = {
            "title": f"Demo {number}",
            "description": "Product demo",
            "start_time": start,
            "end_time": end,
            "location": "https://meet.example.com/demo",
            "i_cal_uid": f"{guid('meetings', number)}@company.com",
            "status": "booked",
            "calendar_id": "jane@company.com",
        }
        sower.add(
            "calendar/events",
            "CalendarEvent",
            **event,
            id=f"event{number}",
            organizer="jane@company.com",
            creator="jane@company.com",
            provider="google",
            busy=True,
            tenant_id=TEAM,
            user_guid=owner,
        )
        sower.add(
            "meetings",
            "Meeting",
            **event,
            event_id=f"event{number}",
            event_source="salesloft",
            meeting_type="demo",
            calendar_type="google",
            person=embed("person", number),
            booked_by_user=user,
            recipient_email=sower.records.all("people")[number - 1]["email_address"],
            recipient_name=sower.records.all("people")[number - 1]["display_name"],
            account_id=str(number % len(COMPANIES) + 1),
        )
        sower.add(
            "meetings/settings",
            "MeetingSetting",
            user=embed("user", number),
            email_address=sower.records.all("users")[number - 1]["email"],
            title="Meeting with Company Inc.",
            default_meeting_length=30,
            time_zone="US/Eastern",
            calendar_type="google",
            primary_calendar_id="primary",
            user_slug=str(sower.records.all("users")[number - 1]["first_name"]).lower(),
        )


def jobs(sower: Sower) -> None:
    """Make what an integration leaves behind: a bulk job, fields, a view, a subscription."""
    job = sower.add("bulk_jobs", "BulkJob", name="Spring clean", type="LeadUpdate", state="done", total=3, processed=3)
    for number in (1, 2, 3):
        sower.add(
            f"bulk_jobs/{job['id']}/job_data",
            "JobData",
            bulk_job={"id": job["id"]},
            record={"id": number, "city": "Atlanta"},
            resource={"id": number},
            status="success",
            finished_at=sower.ago(0),
        )
    for field in ("Subject", "Status", "Priority"):
        sower.add(
            "crm_activity_fields",
            "CrmActivityField",
            field=field,
            title=field,
            field_type="string",
            source="salesforce",
            crm_object_type="task",
            salesforce_object_type="Task",
        )
    sower.add("saved_list_views", "SavedListView", name="My open leads", view="people", is_default=True)
    sower.add(
        "webhook_subscriptions",
        "Subscription",
        callback_url="https://hooks.example.com/salesloft",
        callback_token="sandbox-callback-token",  # noqa: S106  # a sample
        event_type="person_created",
        enabled=True,
        tenant_id=TEAM,
        user_guid=guid("users", ME),
    )
