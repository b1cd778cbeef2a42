"""Add records to a team's past."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

from slproxy.sandbox.data.records import CrmRecord, CrmRecords, derive, reference
from slproxy.sandbox.data.values import timestamp

START = datetime(2024, 1, 8, 14, 30, tzinfo=UTC).timestamp()
HOUR, DAY = 3600.0, 86400.0


class Seeder:
    """Own the dice and the calendar while the records are made."""

    def __init__(self, records: CrmRecords, seed: int) -> None:
        """Start at the team's first day."""
        self.records = records
        self.dice = Random(seed)  # noqa: S311  # believable data, not secrets
        self._at = START

    def add(self, collection: str, schema: str, **values: object) -> CrmRecord:
        """Add a record, some time after the last one."""
        # Uneven steps, so that no two records share a timestamp.
        self._at += self.dice.uniform(0.1, 1.5) * HOUR
        record = self.records.add(collection, schema, values, self._at)
        derive(collection, record, self._at)
        return record

    def ago(self, days: float) -> str:
        """Return a time before the present record's; a negative number is after it."""
        return timestamp(self._at - days * DAY)

    def phone(self) -> str:
        """Return a number that nobody has: the North American Numbering Plan keeps 555-01xx for fiction."""
        return f"+1{self.dice.randint(201, 989)}55501{self.dice.randint(0, 99):02}"

    def user(self) -> CrmRecord:
        """Return one of the team's six users, in short form."""
        return reference("user", self.dice.randint(1, 6))
