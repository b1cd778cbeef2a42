"""Raw value: a setting as written, with its origin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slproxy.config.origin import Origin
from slproxy.config.setting import Setting


@dataclass(frozen=True, kw_only=True)
class RawValue:
    """A value as somebody gave it, before it is parsed."""

    setting: Setting
    value: object
    origin: Origin
    # Text of an environment or a command line, where all types are spelt out in letters.
    text: bool
    # The value is the path of a file that holds the value.
    from_file: bool = False
    # What a relative path starts from.
    base: Path
