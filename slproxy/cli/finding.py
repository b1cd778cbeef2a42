"""Finding: what ``doctor`` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from slproxy.errors import SlproxyError

# How long one check may take, in seconds.
DEADLINE = 5.0
NO_ANSWER = f"no answer in {DEADLINE:g} s"

State = Literal["ok", "warning", "broken", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One check: its result, and what to do about it."""

    check: str
    state: State
    detail: str
    remedy: str = ""

    def fields(self) -> dict[str, str]:
        """Return what ``doctor --json`` prints."""
        return asdict(self)


def finding_from(check: str, error: SlproxyError) -> Finding:
    """Return an error as a finding."""
    return Finding(check, "broken", error.detail, error.hint or "Fix what the message names.")
