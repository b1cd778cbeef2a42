"""Faults on demand: what fails, when, and how often.

A fault is written `NAME`, or `NAME=VALUE`, then `;times=N` and, for a status, `;retry-after=SECONDS`:
`status=503;times=2`, `slow=1.5`, `reset`. It comes as the header `X-Sandbox-Fault` of the request to fail, or is armed
beforehand for any request. In a header it counts requests with the same method, target and text: the first N fail, the
next one passes and the count starts over; without `times` every one fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from slproxy.sandbox.data.definition import segments

Side: TypeAlias = Literal["api", "token"]

API = (
    "status=NNN",
    "status=NNN;retry-after=SECONDS",
    "reset",
    "reset-mid-body",
    "slow=SECONDS",
    "expire-token",
    "revoke-token",
    "html-500",
)
# The errors of RFC 6749 §5.2. `lost` and `slow` commit first: the new pair is in force, and its reply is not there.
TOKEN = (
    "invalid_grant",
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
    "down",
    "lost",
    "slow=SECONDS",
    "slow-before=SECONDS",
    "html-200",
    "status=NNN",
    "status=NNN;retry-after=SECONDS",
)
ACCEPTED: dict[Side, tuple[str, ...]] = {"api": API, "token": TOKEN}

# A replay would never succeed if these hit it again, so in a header they hit once, then let one pass.
ONCE = ("expire-token", "revoke-token")


class FaultError(ValueError):
    """A fault that cannot be parsed; ``accepted`` are those that can."""

    def __init__(self, text: str, on: Side) -> None:
        """Keep what is accepted, for the response."""
        super().__init__(
            f"cannot parse the fault {text!r} of the {on} endpoint; see 'accepted', each with an optional ;times=N"
        )
        self.accepted = ACCEPTED[on]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Hold one fault; `value` is a status, or seconds."""

    text: str
    name: str
    value: float = 0.0
    retry_after: str | None = None
    times: int | None = None


@dataclass(frozen=True, kw_only=True)
class ArmedFault:
    """Hold a fault that waits for requests, and how many more it hits; no path means any."""

    fault: Fault
    on: Side
    path: str | None
    left: int


def parse_fault(text: str, on: Side = "api") -> Fault:
    """Parse a fault; raise FaultError with what is accepted."""
    head, *rest = (part.strip() for part in text.split(";"))
    name, _, value = head.partition("=")
    options = dict(part.partition("=")[::2] for part in rest if part)
    valued = {entry.partition("=")[0]: "=" in entry for entry in ACCEPTED[on]}
    times, retry_after = options.pop("times", None), options.pop("retry-after", None)
    if (
        options
        or valued.get(name) is not bool(value)
        or (times is not None and not re.fullmatch(r"[1-9]\d{0,8}", times, re.ASCII))
        or (name == "status" and not re.fullmatch(r"[2-5]\d\d", value, re.ASCII))
        or (value and not re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII))
        or (retry_after is not None and (name != "status" or not re.fullmatch(r"[ -~]+", retry_after)))
    ):
        raise FaultError(text, on)
    return Fault(
        text=text,
        name=name,
        value=float(value or 0),
        retry_after=retry_after,
        times=int(times) if times else None,
    )


class Faults:
    """Own the armed faults, and the counts of those that came in headers."""

    def __init__(self) -> None:
        """Start with nothing armed."""
        self._armed: list[ArmedFault] = []
        self._hits: dict[tuple[str, str, str], int] = {}

    def __iter__(self) -> Iterator[ArmedFault]:
        """Walk the armed faults, oldest first."""
        return iter(tuple(self._armed))

    def clear(self) -> None:
        """Forget all faults and counts."""
        self._armed.clear()
        self._hits.clear()

    def arm(self, text: str, *, on: Side, path: str | None) -> ArmedFault:
        """Make the next request fail, or the next N; raise FaultError."""
        fault = parse_fault(text, on)
        armed = ArmedFault(fault=fault, on=on, path=path, left=fault.times or 1)
        self._armed.append(armed)
        return armed

    def fault_for(self, *, on: Side, method: str, target: str, header: str | None) -> Fault | None:
        """Return the fault that hits this request, and count it; raise FaultError for a bad header."""
        if header is not None:
            fault = parse_fault(header, on)
            times = 1 if fault.times is None and fault.name in ONCE else fault.times
            key = (method, target, header)
            hits = self._hits.get(key, 0)
            if times is None or hits < times:
                self._hits[key] = hits + 1
                return fault
            # One pass for each that was hit: see `let_pass`.
            self._hits[key] = hits - times
            return None
        for index, armed in enumerate(self._armed):
            if armed.on == on and (armed.path is None or segments(armed.path) == segments(target.partition("?")[0])):
                self._armed[index : index + 1] = [replace(armed, left=armed.left - 1)] if armed.left > 1 else []
                return armed.fault
        return None

    def let_pass(self, *, method: str, target: str, header: str | None) -> None:
        """Count a request that was to lose its token when another had already lost it.

        Its replay passes too: without this, a burst of such requests would end each other's new tokens for ever.
        """
        if header in ONCE:
            key = (method, target, header)
            self._hits[key] = self._hits.get(key, 0) + 1
