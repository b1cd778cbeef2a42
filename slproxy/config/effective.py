"""The settings in force, as ``slproxy config`` prints them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from slproxy.config.schema import Settings
from slproxy.config.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of ``slproxy config``; nothing in it is secret."""

    key: str
    value: str
    # As JSON has it: of its own type.
    plain: object
    origin: str


def effective(settings: Settings) -> list[Row]:
    """Return every setting as it stands and where it came from, secrets masked."""
    plain = {key: _plain(setting, settings.value(setting)) for key, setting in settings.schema.items()}
    return [
        Row(key=key, value=_text(value), plain=value, origin=str(settings.origin(key))) for key, value in plain.items()
    ]


def _plain(setting: Setting, value: object) -> object:
    if value is None or isinstance(value, bool | int | tuple):
        return f"{value:04o}" if setting.kind == "mode" else value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return str(value)


def _text(value: object) -> str:
    if value is None:
        return "(none)"
    return json.dumps(value) if isinstance(value, bool | tuple) else str(value)
