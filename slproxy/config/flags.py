"""Settings on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slproxy.config.messages import redacted
from slproxy.config.origin import Origin
from slproxy.config.raw_value import RawValue
from slproxy.config.schema import CLIENT, CLIENT_NAME, SCHEMA, client_schema
from slproxy.config.setting import Setting
from slproxy.errors import ConfigError


def from_flags(flags: Mapping[str, object], cwd: Path) -> list[RawValue]:
    """Return the values of the command line, as its parser typed them or still as text.

    Those of a client are for one that the command line names. Raises ConfigError: it may not be called so.
    """
    return [
        RawValue(
            setting=setting,
            value=list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value,
            origin=Origin(layer="flag", place=_flag(setting)),
            text=isinstance(value, str),
            base=cwd,
        )
        for key, value in flags.items()
        if value is not None
        for setting in [_setting(key)]
    ]


def _flag(setting: Setting) -> str:
    # One that may be repeated is named in the singular.
    name = setting.name.removesuffix("s") if setting.kind == "list" else setting.name
    if setting.key == "log.level":
        name = "log_level"
    return "--" + name.replace("_", "-")


def _setting(key: str) -> Setting:
    if key in SCHEMA:
        return SCHEMA[key]
    _, name, setting = key.split(".", 2)
    if not CLIENT.fullmatch(name):
        raise ConfigError(
            f"client (flag --name): expected {CLIENT_NAME}, got {redacted(name, text=True)}", hint="choose another name"
        )
    return client_schema(name)[setting]
