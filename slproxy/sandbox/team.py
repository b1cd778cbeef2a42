"""Make the team: who works there, whom they know and how they go about it."""

from __future__ import annotations

from .crud import ME, TEAM
from .names import CADENCES, COMPANIES, FIRST, LAST, STEPS, TITLES
from .records import embed, guid, linked
from .sower import Sower
from .values import integer

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


def settings(sower: Sower) -> None:
    """Make stages, tiers, dispositions, fields, tags, roles and groups."""
    for collection, schema, names in NAMED:
        for order, name in enumerate(names):
            sower.add(collection, schema, name=name, **({"order": order} if schema in ORDERED else {}))
    for name, field_type in (("Favorite Color", "person"), ("Contract End", "person"), ("Segment", "company")):
        sower.add("custom_fields", "CustomField", name=name, field_type=field_type, value_type="text")
    for number, parent in ((1, None), (2, 1), (3, 1)):
        name = ("Company", "Sales East", "Sales West")[number - 1]
        sower.add("groups", "Group", name=name, parent_id=parent, accessible_groups=[embed("group", number)])


def users(sower: Sower) -> None:
    """Make the team and its users, Jane Smith first."""
    sower.add(
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
        sower.add(
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
            team=embed("team", TEAM) | {"name": COMPANY},
            team_admin=number == ME,
            role=embed("role", 1 if number == ME else 3),
            group=embed("group", 2 if number % 2 else 3),
            job_role="Manager" if number == ME else "SDR",
            phone_number_assignment=embed("phone_number_assignment", number),
            click_to_call_enabled=True,
            crm_connected=number <= 3,
            work_country="US",
        )
        sower.add("phone_number_assignments", "PhoneNumberAssignment", number=sower.phone(), user=embed("user", number))
        sower.add("phone_numbers/recording_settings", "RecordingSetting", recording_default=bool(number % 2))
        if number <= 3:
            sower.add("crm_users", "CrmUser", crm_id=f"0055e00000{number:05}AAA", user=embed("user", number))


def accounts(sower: Sower) -> None:
    """Make the companies."""
    for number, (name, industry, city, state, country) in enumerate(COMPANIES, 1):
        domain = "".join(letter for letter in name.lower() if letter.isalnum()) + ".example"
        sower.add(
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
            postal_code=f"{sower.dice.randint(10000, 99999)}",
            size=str(sower.dice.choice((25, 120, 800, 5000))),
            founded=str(sower.dice.randint(1950, 2020)),
            phone=sower.phone(),
            locale="US/Eastern",
            crm_id=f"0015e00000{number:05}AAA",
            crm_object_type="account",
            company_stage=embed("company_stage", sower.dice.randint(1, 4)),
            account_tier=embed("account_tier", sower.dice.randint(1, 3)),
            owner=sower.user(),
            creator=embed("creator", ME),
            custom_fields={"Segment": sower.dice.choice(("SMB", "Mid-Market", "Enterprise"))},
            tags=["conference"] if number % 4 == 0 else [],
        )


def cadences(sower: Sower) -> None:
    """Make cadences and their steps."""
    for number, name in enumerate(CADENCES, 1):
        sower.add(
            "cadences",
            "Cadence",
            name=name,
            cadence_function="outbound" if number % 2 else "inbound",
            shared=number != 5,
            team_cadence=number <= 2,
            remove_replies_enabled=True,
            remove_bounces_enabled=True,
            owner=sower.user(),
            creator=embed("creator", ME),
            added_stage=embed("added_stage", 2),
            replied_stage=embed("replied_stage", 3),
            bounced_stage=embed("bounced_stage", 4),
            groups=[embed("group", 2)],
            tags=[],
        )
        for index, (title, kind) in enumerate(STEPS, 1):
            instruction = sower.add(
                "action_details/call_instructions", "CallInstruction", instructions=f"{title}: ask about timing."
            )
            sower.add(
                "steps",
                "Step",
                name=title,
                display_name=f"Day {index * 2 - 1}: {title}",
                day=index * 2 - 1,
                step_number=index,
                type=kind,
                cadence=embed("cadence", number),
                details=linked("details", instruction),
            )


def people(sower: Sower) -> None:
    """Make the people of the accounts."""
    sower.add("imports", "Import", name="Conference list", current_people_count=40, imported_people_count=40)
    for number in range(1, PEOPLE + 1):
        first, last = sower.dice.choice(FIRST), sower.dice.choice(LAST)
        account = sower.records.all("accounts")[number % len(COMPANIES)]
        company = integer(account["id"])
        counts = account["counts"]
        assert isinstance(counts, dict)
        counts["people"] += 1
        sower.add(
            "people",
            "Person",
            first_name=first,
            last_name=last,
            email_address=f"{first}.{last}.{number}@{account['domain']}".lower(),
            title=sower.dice.choice(TITLES),
            job_seniority=sower.dice.choice(("executive", "director", "manager", "individual_contributor")),
            phone=sower.phone() if number % 5 else None,
            mobile_phone=sower.phone() if number % 3 == 0 else None,
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
            account=embed("account", company),
            owner=sower.user(),
            person_stage=embed("person_stage", sower.dice.randint(1, 5)),
            do_not_contact=number % 17 == 0,
            eu_resident=account["country"] in ("CZ", "DE", "GR", "DK", "IE", "ES"),
            tags=["vip"] if number % 10 == 0 else [],
            custom_fields={"Favorite Color": sower.dice.choice(("red", "green", "blue"))},
            success_count=0,
            untouched=number % 4 == 0,
            last_contacted_at=None if number % 4 == 0 else sower.ago(sower.dice.uniform(1, 60)),
            **{"import": embed("import", 1) if number <= 40 else None},
        )
