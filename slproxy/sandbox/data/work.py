"""Make what the team has done: calls, emails, notes, tasks, meetings."""

from __future__ import annotations

from collections.abc import Mapping

from slproxy.sandbox.data.names import CADENCES, COMPANIES, STEPS
from slproxy.sandbox.data.records import ME, TEAM, CrmRecord, guid, reference, reference_to
from slproxy.sandbox.data.seeder import Seeder
from slproxy.sandbox.data.values import integer


def activities(seeder: Seeder) -> None:
    """Put half of the people on a cadence, and do what comes of it."""
    for person in seeder.records.all("people")[:60]:
        number = integer(person["id"])
        cadence = seeder.dice.randint(1, len(CADENCES))
        step = (cadence - 1) * len(STEPS) + seeder.dice.randint(1, len(STEPS))
        ends: Mapping[str, CrmRecord] = {
            "person": reference("person", number),
            "cadence": reference("cadence", cadence),
            "user": seeder.user(),
        }
        person["cadences"] = [reference("cadence", cadence)]
        person["most_recent_cadence"] = reference("cadence", cadence)
        action = seeder.add(
            "actions",
            "Action",
            **ends,
            step=reference("step", step),
            type=STEPS[(step - 1) % len(STEPS)][1],
            due=True,
            due_on=seeder.ago(0),
            status="pending",
            action_details=reference("action_details", step),
        )
        seeder.add(
            "cadence_memberships",
            "CadenceMembership",
            **ends,
            added_at=seeder.ago(3),
            currently_on_cadence=number % 6 != 0,
            current_state="active" if number % 6 else "completed",
            latest_action=reference_to("latest_action", action),
        )
        counts = seeder.records.all("cadences")[cadence - 1]["counts"]
        assert isinstance(counts, dict)
        counts["cadence_people"] += 1
        if number % 2:
            tasks_and_notes(seeder, number)
        if number % 3 == 0:
            call(seeder, number, ends, reference_to("action", action), reference("step", step))


def tasks_and_notes(seeder: Seeder, number: int) -> None:
    """Make what one user keeps about a person."""
    person, user = reference("person", number), seeder.user()
    done = number % 5 == 0
    seeder.add(
        "tasks",
        "Task",
        person=person,
        user=user,
        created_by_user=reference("user", ME),
        subject=seeder.dice.choice(("Send the proposal", "Call back", "Share the case study")),
        task_type=seeder.dice.choice(("call", "email", "general")),
        current_state="completed" if done else "scheduled",
        due_date=seeder.ago(-5)[:10],
    )
    seeder.add(
        "notes",
        "Note",
        content=seeder.dice.choice(("Prefers email.", "Budget is decided in June.", "Asked for a demo.")),
        associated_type="person",
        associated_with=person,
        user=user,
    )
    seeder.add(
        "activity_histories",
        "ActivityHistory",
        type="added_note",
        resource_type="person",
        resource_id=number,
        occurred_at=seeder.ago(0),
        user_guid=guid("users", integer(user["id"])),
        static_data={"content": "Prefers email."},
    )


def call(seeder: Seeder, number: int, ends: Mapping[str, CrmRecord], action: CrmRecord, step: CrmRecord) -> None:
    """Make a call, its record and the success it led to."""
    to, duration = seeder.phone(), seeder.dice.randint(5, 900)
    recording = {
        "url": "https://recordings.example.com/1.mp3",
        "status": "completed",
        "recording_status": "completed",
    }
    made = seeder.add(
        "activities/calls",
        "Call",
        called_person=ends["person"],
        cadence=ends["cadence"],
        user=ends["user"],
        action=action,
        step=step,
        to=to,
        duration=duration,
        disposition=seeder.dice.choice(("Connected", "Left Voicemail", "No Answer")),
        sentiment=seeder.dice.choice(("Interested", "Not Interested")),
        recordings=[recording],
    )
    seeder.add(
        "call_data_records",
        "CallDataRecord",
        call=reference_to("call", made),
        called_person=ends["person"],
        user=ends["user"],
        call_type="call",
        call_uuid=guid("call_data_records", number),
        direction="outbound",
        status="completed",
        to=to,
        duration=duration,
        recording=recording,
        **{"from": seeder.phone()},
    )
    person = seeder.records.find("people", number)
    assert person is not None
    seeder.add(
        "successes",
        "Success",
        person=ends["person"],
        user=ends["user"],
        latest_cadence=ends["cadence"],
        latest_call=reference_to("call", made),
        latest_action=action,
        latest_step=step,
        succeeded_at=seeder.ago(0),
    )
    person["success_count"] = 1


def emails(seeder: Seeder) -> None:
    """Make templates with attachments, and the emails sent from them."""
    for number, title in enumerate(("Introduction", "Following up", "Case study", "One last try"), 1):
        texts = {"title": title, "subject": f"{title} | Company Inc.", "body": "<p>Hi {{first_name}},</p>"}
        shared = {
            "body_preview": "Hi {{first_name}},",
            "open_tracking_enabled": True,
            "click_tracking_enabled": True,
        }
        seeder.add("team_templates", "TeamTemplate", **texts, **shared, last_modified_user=reference("user", ME))
        seeder.add(
            "email_templates",
            "EmailTemplate",
            **texts,
            **shared,
            shared=True,
            template_owner=seeder.user(),
            team_template=reference("team_template", number),
            groups=[reference("group", 2)],
        )
        file = {"attachment_id": number, "name": f"brochure-{number}.pdf", "attachment_file_size": 48_213}
        url = {"download_url": f"https://files.example.com/brochure-{number}.pdf"}
        seeder.add(
            "email_template_attachments",
            "EmailTemplateAttachment",
            **file,
            **url,
            attachment_content_type="application/pdf",
            attachment_fingerprint=number * 1_000_003,
            scanned=True,
            email_template=reference("email_template", number),
        )
        seeder.add(
            "team_template_attachments",
            "TeamTemplateAttachment",
            **file,
            **url,
            team_template=reference("team_template", number),
        )
    for number, membership in enumerate(seeder.records.all("cadence_memberships")[:30], 1):
        ends = {name: membership[name] for name in ("cadence", "user")}
        person = seeder.records.find("people", membership["person"]["id"])  # type: ignore[index]
        assert person is not None
        activity = seeder.add(
            "crm_activities",
            "CrmActivity",
            person=membership["person"],
            user=membership["user"],
            activity_type="email",
            subject="Introduction",
            description="Sent an email",
            crm_id=f"00T5e00000{number:05}AAA",
        )
        seeder.add(
            "activities/emails",
            "Email",
            **ends,
            recipient=membership["person"],
            recipient_email_address=person["email_address"],
            action=membership["latest_action"],
            email_template=reference("email_template", 1),
            crm_activity=reference_to("crm_activity", activity),
            subject="Introduction | Company Inc.",
            status="sent",
            personalization="12",
            sent_at=seeder.ago(0),
            click_tracking=True,
            view_tracking=True,
        )
    for number in (1, 2):
        raw = f"From: jane@company.com\r\nTo: buyer{number}@example.com\r\nSubject: Hello\r\n\r\nHello.\r\n"
        mailbox = "jane@company.com"
        message_id = f"<{guid('mime', number)}@company.com>"
        seeder.add("mime_email_payloads", "MimeEmailPayload", mailbox=mailbox, message_id=message_id, raw=raw)
        payload = reference("mime_email_payload", number)
        seeder.add("pending_emails", "PendingEmail", mailbox=mailbox, mime_email_payload=payload)


def meetings(seeder: Seeder) -> None:
    """Make meetings, their calendar events and the settings they were booked by."""
    for number in range(1, 7):
        start, end = seeder.ago(-number), seeder.ago(-number - 1 / 48)
        user = seeder.user()
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
        seeder.add(
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
        seeder.add(
            "meetings",
            "Meeting",
            **event,
            event_id=f"event{number}",
            event_source="salesloft",
            meeting_type="demo",
            calendar_type="google",
            person=reference("person", number),
            booked_by_user=user,
            recipient_email=seeder.records.all("people")[number - 1]["email_address"],
            recipient_name=seeder.records.all("people")[number - 1]["display_name"],
            account_id=str(number % len(COMPANIES) + 1),
        )
        seeder.add(
            "meetings/settings",
            "MeetingSetting",
            user=reference("user", number),
            email_address=seeder.records.all("users")[number - 1]["email"],
            title="Meeting with Company Inc.",
            default_meeting_length=30,
            time_zone="US/Eastern",
            calendar_type="google",
            primary_calendar_id="primary",
            user_slug=str(seeder.records.all("users")[number - 1]["first_name"]).lower(),
        )


def jobs(seeder: Seeder) -> None:
    """Make what an integration leaves behind: a bulk job, fields, a view, a subscription."""
    job = seeder.add("bulk_jobs", "BulkJob", name="Spring clean", type="LeadUpdate", state="done", total=3, processed=3)
    for number in (1, 2, 3):
        seeder.add(
            f"bulk_jobs/{job['id']}/job_data",
            "JobData",
            bulk_job={"id": job["id"]},
            record={"id": number, "city": "Atlanta"},
            resource={"id": number},
            status="success",
            finished_at=seeder.ago(0),
        )
    for field in ("Subject", "Status", "Priority"):
        seeder.add(
            "crm_activity_fields",
            "CrmActivityField",
            field=field,
            title=field,
            field_type="string",
            source="salesforce",
            crm_object_type="task",
            salesforce_object_type="Task",
        )
    seeder.add("saved_list_views", "SavedListView", name="My open leads", view="people", is_default=True)
    seeder.add(
        "webhook_subscriptions",
        "Subscription",
        callback_url="https://hooks.example.com/salesloft",
        callback_token="sandbox-callback-token",  # noqa: S106  # a sample
        event_type="person_created",
        enabled=True,
        tenant_id=TEAM,
        user_guid=guid("users", ME),
    )
