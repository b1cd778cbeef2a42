"""Settings on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slproxy.config.origin import Origin
from slproxy.config.raw_value import RawValue
from slproxy.config.schema import SCHEMA


def from_flags(flags: Mapping[str, object], cwd: Path) -> list[RawValue]:
    """Return the values of the command line, as its parser typed them or still as text."""
    return [
        RawValue(
            setting=SCHEMA[key],
            value=list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value,
            origin=Origin(layer="flag", place="--" + SCHEMA[key].name.replace("_", "-")),
            text=isinstance(value, str),
            base=cwd,
        )
        for key, value in flags.items()
        if value is not None
    ]
