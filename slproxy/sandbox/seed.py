"""Fill a fresh sandbox with a believable team, the same one for the same seed."""

from __future__ import annotations

from . import team, work
from .definition import Definition
from .records import Records
from .sower import Sower


def seeded(definition: Definition, seed: int) -> Records:
    """Return the records of a team that has been at work for a while; what is referred to is made first."""
    records = Records(definition)
    sower = Sower(records, seed)
    for make in (team.settings, team.users, team.accounts, team.cadences, team.people):
        make(sower)
    for make in (work.activities, work.emails, work.meetings, work.jobs):
        make(sower)
    return records
