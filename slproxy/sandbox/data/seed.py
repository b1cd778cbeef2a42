"""Fill a fresh sandbox with a believable team, the same one for the same seed."""

from __future__ import annotations

from slproxy.sandbox.data import team, work
from slproxy.sandbox.data.definition import Definition
from slproxy.sandbox.data.records import CrmRecords
from slproxy.sandbox.data.seeder import Seeder


def seeded(definition: Definition, seed: int) -> CrmRecords:
    """Return the records of a team that has been at work for a while; what is referred to is made first."""
    records = CrmRecords(definition)
    seeder = Seeder(records, seed)
    for make in (team.settings, team.users, team.accounts, team.cadences, team.people):
        make(seeder)
    for make in (work.activities, work.emails, work.meetings, work.jobs):
        make(seeder)
    return records
