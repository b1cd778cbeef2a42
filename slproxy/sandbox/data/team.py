"""Make the team: who works there, whom they know and how they go about it."""

from __future__ import annotations

from slproxy.sandbox.data.names import CADENCES, COMPANIES, FIRST, LAST, STEPS, TITLES
from slproxy.sandbox.data.records import ME, TEAM, guid, reference, reference_to
from slproxy.sandbox.data.seeder import Seeder
from slproxy.sandbox.data.values import integer

PEOPLE = 120
COMPANY = "Company Inc."

NAMED = (
    ("account_stages", "AccountStage", ("New", "Prospecting", "Customer", "Lost")),
    ("account_tiers", "AccountTier", ("Tier 1", "Tier 2", "Tier 3")),
    ("person_stages", "PersonStage", ("Open", "Attempting", "Replied", "Bounced", "Do Not Contact")),
    ("call_dispositions", "CallDisposition", ("Connected", "Left Voicemail", "No Answer", "Wrong Number")),
    ("call_sentiments", "CallSentiment", ("Interested", "Not Interested", "Call Back Later")),
    ("tags", "Tag", ("vip", "newsletter", "conference", "referral")),
    ("custom_roles", "CustomRole", ("Admin", "Manager", "User")),
)
ORDERED = ("AccountStage", "AccountTier", "PersonStage")
USERS = (("Jane", "Smith"), ("Marcus", "Lee"), ("Aisha", "Bello"), ("Tom", "Novak"), ("Rita", "Costa"), ("Ken", "Ito"))


def settings(seeder: Seeder) -> None:
    """Make stages, tiers, dispositions, fields, tags, roles and groups."""
    for collection, schema, names in NAMED:
        for order, name in enumerate(names):
            seeder.add(collection, schema, name=name, **({"order": order} if schema in ORDERED else {}))
    for name, field_type in (("Favorite Color", "person"), ("Contract End", "person"), ("Segment", "company")):
        seeder.add("custom_fields", "CustomField", name=name, field_type=field_type, value_type="text")
    for number, parent in ((1, None), (2, 1), (3, 1)):
        name = ("Company", "Sales East", "Sales West")[number - 1]
        seeder.add("groups", "Group", name=name, parent_id=parent, accessible_groups=[reference("group", number)])


def users(seeder: Seeder) -> None:
    """Make the team and its users, Jane Smith first."""
    seeder.add(
        "team",
        "Team",
        id=TEAM,
        name=COMPANY,
        plan="enterprise",
        license_limit=25,
        email_daily_limit=1000,
        group_privacy_setting="public",
        team_visibility_default="all",
        allow_automated_email_steps=True,
        click_tracking_default=True,
    )
    for number, (first, last) in enumerate(USERS, 1):
        address = f"{first}@company.com".lower()
        seeder.add(
            "users",
            "User",
            guid=guid("users", number),
            name=f"{first} {last}",
            first_name=first,
            last_name=last,
            email=address,
            sending_email_address=address,
            from_address=address,
            email_client_email_address=address,
            email_client_configured=True,
            email_signature=f"{first} {last}<br>Company Inc.",
            email_signature_type="html",
            time_zone="US/Eastern",
            locale="US",
            active=number != len(USERS),
            team=reference("team", TEAM) | {"name": COMPANY},
            team_admin=number == ME,
            role=reference("role", 1 if number == ME else 3),
            group=reference("group", 2 if number % 2 else 3),
            job_role="Manager" if number == ME else "SDR",
            phone_number_assignment=reference("phone_number_assignment", number),
            click_to_call_enabled=True,
            crm_connected=number <= 3,
            work_country="US",
        )
        seeder.add(
            "phone_number_assignments", "PhoneNumberAssignment", number=seeder.phone(), user=reference("user", number)
        )
        seeder.add("phone_numbers/recording_settings", "RecordingSetting", recording_default=bool(number % 2))
        if number <= 3:
            seeder.add("crm_users", "CrmUser", crm_id=f"0055e00000{number:05}AAA", user=reference("user", number))


def accounts(seeder: Seeder) -> None:
    """Make the companies."""
    for number, (name, industry, city, state, country) in enumerate(COMPANIES, 1):
        domain = "".join(letter for letter in name.lower() if letter.isalnum()) + ".example"
        seeder.add(
            "accounts",
            "Account",
            name=name,
            conversational_name=name.split()[0],
            domain=domain,
            website=f"https://www.{domain}",
            industry=industry,
            city=city,
            state=state,
            country=country,
            postal_code=f"{seeder.dice.randint(10000, 99999)}",
            size=str(seeder.dice.choice((25, 120, 800, 5000))),
            founded=str(seeder.dice.randint(1950, 2020)),
            phone=seeder.phone(),
            locale="US/Eastern",
            crm_id=f"0015e00000{number:05}AAA",
            crm_object_type="account",
            company_stage=reference("company_stage", seeder.dice.randint(1, 4)),
            account_tier=reference("account_tier", seeder.dice.randint(1, 3)),
            owner=seeder.user(),
            creator=reference("creator", ME),
            custom_fields={"Segment": seeder.dice.choice(("SMB", "Mid-Market", "Enterprise"))},
            tags=["conference"] if number % 4 == 0 else [],
        )


def cadences(seeder: Seeder) -> None:
    """Make cadences and their steps."""
    for number, name in enumerate(CADENCES, 1):
        seeder.add(
            "cadences",
            "Cadence",
            name=name,
            cadence_function="outbound" if number % 2 else "inbound",
            shared=number != 5,
            team_cadence=number <= 2,
            remove_replies_enabled=True,
            remove_bounces_enabled=True,
            owner=seeder.user(),
            creator=reference("creator", ME),
            added_stage=reference("added_stage", 2),
            replied_stage=reference("replied_stage", 3),
            bounced_stage=reference("bounced_stage", 4),
            groups=[reference("group", 2)],
            tags=[],
        )
        for index, (title, kind) in enumerate(STEPS, 1):
            instruction = seeder.add(
                "action_details/call_instructions", "CallInstruction", instructions=f"{title}: ask about timing."
            )
            seeder.add(
                "steps",
                "Step",
                name=title,
                display_name=f"Day {index * 2 - 1}: {title}",
                day=index * 2 - 1,
                step_number=index,
                type=kind,
                cadence=reference("cadence", number),
                details=reference_to("details", instruction),
            )


def people(seeder: Seeder) -> None:
    """Make the people of the accounts."""
    seeder.add("imports", "Import", name="Conference list", current_people_count=40, imported_people_count=40)
    for number in range(1, PEOPLE + 1):
        first, last = seeder.dice.choice(FIRST), seeder.dice.choice(LAST)
        account = seeder.records.all("accounts")[number % len(COMPANIES)]
        company = integer(account["id"])
        counts = account["counts"]
        assert isinstance(counts, dict)
        counts["people"] += 1
        seeder.add(
            "people",
            "Person",
            first_name=first,
            last_name=last,
            email_address=f"{first}.{last}.{number}@{account['domain']}".lower(),
            title=seeder.dice.choice(TITLES),
            job_seniority=seeder.dice.choice(("executive", "director", "manager", "individual_contributor")),
            phone=seeder.phone() if number % 5 else None,
            mobile_phone=seeder.phone() if number % 3 == 0 else None,
            city=account["city"],
            state=account["state"],
            country=account["country"],
            work_city=account["city"],
            work_state=account["state"],
            work_country=account["country"],
            person_company_name=account["name"],
            person_company_website=account["website"],
            person_company_industry=account["industry"],
            locale="US/Eastern",
            locale_utc_offset=-300,
            crm_id=f"0035e00000{number:05}AAA",
            crm_object_type="contact",
            account=reference("account", company),
            owner=seeder.user(),
            person_stage=reference("person_stage", seeder.dice.randint(1, 5)),
            do_not_contact=number % 17 == 0,
            eu_resident=account["country"] in ("CZ", "DE", "GR", "DK", "IE", "ES"),
            tags=["vip"] if number % 10 == 0 else [],
            custom_fields={"Favorite Color": seeder.dice.choice(("red", "green", "blue"))},
            success_count=0,
            untouched=number % 4 == 0,
            last_contacted_at=None if number % 4 == 0 else seeder.ago(seeder.dice.uniform(1, 60)),
            **{"import": reference("import", 1) if number <= 40 else None},
        )
