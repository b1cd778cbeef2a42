"""Where a value came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value came from: what ``slproxy config`` prints beside it."""

    layer: Literal["default", "file", "dotenv", "env", "flag"]
    # Such as slproxy.toml:12, .env:3, SLPROXY_LISTEN__PORT, --port.
    place: str = ""
    # The mounted file that the place names, when the value was read from one.
    path: str = ""
    # The file that gave it, where nobody had named that file: ./slproxy.toml, ./.env.
    found: str = ""

    def __str__(self) -> str:
        prefix = "" if self.layer == "dotenv" else self.layer
        return " ".join(part for part in (prefix, self.place, self.path and f"({self.path})") if part)


DEFAULT = Origin(layer="default")
