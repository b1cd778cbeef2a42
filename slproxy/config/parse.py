"""Parsing a value: from TOML's types, or from text, to the setting's own type and within its bounds.

It sees one value at a time. What two settings exclude is ``conflicts``'s.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import MappingProxyType

from slproxy.config.api_key import check_no_api_key
from slproxy.config.filled_in import check_filled_in
from slproxy.config.messages import REMEDY, expected, kind_of, redacted
from slproxy.config.schema import KIB, MIB
from slproxy.config.secret import Secret
from slproxy.config.setting import Setting
from slproxy.config.validators import VALIDATORS, visible_ascii
from slproxy.errors import ConfigError
from slproxy.untrusted import parse_json

_UNITS = MappingProxyType({"KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB})
_SWITCHES = MappingProxyType(
    {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_SIZE = re.compile(r"([0-9]{1,15}) ?(KiB|MiB|GiB)")
_MODE = re.compile(r"(?:0o)?([0-7]{3,4})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def parse(setting: Setting, value: object, *, text: bool, base: Path) -> object:
    """Return ``value`` as the setting's own type.

    ``text`` says that it comes from where all types are spelt in letters, such as the environment; a relative path
    starts from ``base``. Raises ConfigError, worded to follow the name of the setting, and without any secret.
    """
    if not setting.secret:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                # The password for an egress proxy is no key of SalesLoft's, whatever it looks like.
                check_no_api_key(each.rpartition("@")[2] if setting.kind == "proxy" else each)
    try:
        typed = _within(setting, _typed(setting, value, text=text))
    except (ValueError, OverflowError):
        got = kind_of(value) if setting.from_file else redacted(value, text=text)
        raise ConfigError(f"expected {expected(setting)}, got {got}", hint=REMEDY) from None
    result: object = typed
    if isinstance(typed, str):
        _check_text(setting, typed)
        if setting.secret or setting.credential:
            check_filled_in(setting, typed)
        if setting.secret:
            result = Secret(visible_ascii(typed))
        if setting.kind in ("path", "file"):
            result = _path(typed, base)
    validator = VALIDATORS.get(setting.generic_key)
    return validator(result) if validator else result


def _within(setting: Setting, value: object) -> object:
    low, high = setting.minimum, setting.maximum
    if isinstance(value, int | float) and not (
        math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
    ):
        raise ValueError
    return value


def _typed(setting: Setting, value: object, *, text: bool) -> object:
    match setting.kind:
        case "switch":
            return _switch(value, text=text)
        case "integer":
            return _integer(value, text=text)
        case "number":
            return _number(value, text=text)
        case "size":
            return _size(value, text=text)
        case "mode":
            return _mode(value)
        case "list":
            return _list(value, text=text)
        case _:
            # Other programs have their log levels in capitals.
            chosen = value.lower() if isinstance(value, str) and setting.choices else value
            if not isinstance(chosen, str) or (setting.choices and chosen not in setting.choices):
                raise ValueError
            return chosen


def _switch(value: object, *, text: bool) -> bool:
    if text and isinstance(value, str) and value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    if isinstance(value, bool):
        return value
    raise ValueError


def _integer(value: object, *, text: bool) -> int:
    if text and isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError


def _number(value: object, *, text: bool) -> float:
    if text and isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError


def _size(value: object, *, text: bool) -> int:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match[1]) * _UNITS[match[2]]
    return _integer(value, text=text)


def _mode(value: object) -> int:
    if isinstance(value, str) and (match := _MODE.fullmatch(value)):
        return int(match[1], 8)
    return _integer(value, text=False)


def _list(value: object, *, text: bool) -> tuple[str, ...]:
    if text and isinstance(value, str):
        value = (
            parse_json(value)
            if value.startswith("[")
            else [part for item in value.split(",") if (part := item.strip())]
        )
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(value)


def _check_text(setting: Setting, value: str) -> None:
    # An empty host is every address; `conflicts` asks for a key then.
    if not value and setting.key != "listen.host":
        raise ConfigError("is empty", hint="set a value, or remove it")
    if not setting.secret and _CONTROL.search(value):
        raise ConfigError(
            "looks mangled: it holds a control character", hint="type it again, or copy it without line breaks"
        )


def _path(value: str, base: Path) -> Path:
    try:
        return base / Path(value).expanduser()
    except RuntimeError:
        raise ConfigError("starts with '~', but its home folder is unknown", hint="write the path in full") from None
