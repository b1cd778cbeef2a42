"""Parts of error messages: what a setting expects, and what it got, redacted."""

from __future__ import annotations

import json

from slproxy.config.api_key import may_be_secret
from slproxy.config.setting import Setting

REMEDY = "fix or remove it"
LISTED = "config.example.toml lists them all"


def expected(setting: Setting) -> str:
    """Say what values a setting takes, for a message."""
    if setting.choices:
        return "one of " + ", ".join(setting.choices)
    low, high = setting.minimum, setting.maximum
    limits = "" if low is None else f" from {low:g} to {high:g}" if high is not None else f" of at least {low:g}"
    match setting.kind:
        case "integer":
            return f"an integer{limits}" + ("" if setting.default is None else f", e.g. {setting.default}")
        case "number":
            return f"a number{limits}, e.g. {setting.default:g}"
        case "size":
            return f'a size{limits}, in bytes or with a unit as in "1 MiB" (KiB, MiB, GiB)'
        case "mode":
            return 'a file mode in octal, e.g. "0600"'
        case "switch":
            return "true or false"
        case "list":
            return 'a list of strings, e.g. ["a", "b"]'
        case _:
            return "a string"


def kind_of(value: object) -> str:
    """Name the TOML type of a value, without the value."""
    kinds = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def redacted(value: object, *, text: bool = False) -> str:
    """Show a value in a message: shortened, and not at all where it may be a secret, or a URL that carries one."""
    match value:
        case str() if "@" in value:
            return "text with an '@' (not shown: it may hold a password)"
        case str() if may_be_secret(value):
            return "text that is not shown: it may be a secret"
        case str():
            short = repr(value if len(value) <= 60 else value[:60] + "…")
            return short if text else f"the string {short}"
        case bool():
            return json.dumps(value)
        case float():
            return f"{value:g}"
        case int():
            return str(value) if abs(value) < 1e15 else "a huge number"
        case _:
            return kind_of(value)
