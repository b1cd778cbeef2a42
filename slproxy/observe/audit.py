"""Audit: a line in a file for each request that was answered or refused, and for each event of the token.

The line of an answer is in the file before the answer's last byte goes to the client: whatever ends the process, there
is a line for each answer that a client has whole. A power cut may take the lines that the system had not brought to the
disk yet.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from slproxy.errors import AuditUnwritable, ConfigError, Problem
from slproxy.observe.audit_file import AuditFile
from slproxy.observe.exchange import Exchange, Renewal, TokenEvent
from slproxy.observe.lines import json_line
from slproxy.observe.observer import Listener
from slproxy.observe.request_line import json_of, level_of

log = logging.getLogger("slproxy.audit")


class Audit(Listener):
    """Writes the lines; where they are ``required``, nothing is sent to SalesLoft while they cannot be written."""

    def __init__(self, path: Path, *, required: bool, profile: str) -> None:
        self._file = AuditFile(path, gap=_gap)
        self._required = required
        self._profile = profile
        # Whether it was logged that lines cannot be written.
        self._is_told = False

    def open(self) -> None:
        """Open the file. Raises ConfigError."""
        self._file.open()

    def reopen(self) -> None:
        """Open the file anew, as after it was rotated; where that fails, go on with the old one."""
        try:
            self._file.open()
        except ConfigError as error:
            log.error("%s The old file is still written to.", error.sentence)  # noqa: TRY400  # says it all

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def warning(self) -> str | None:
        """What a person should know although requests are served, or why they are not."""
        fault, lost = self._file.fault, self._file.lost
        lines = f"; {'1 line is' if lost == 1 else f'{lost} lines are'} lost" if lost else ""
        return fault and f"The audit log {self._file.path} cannot be written: {fault}{lines}."

    def problem(self) -> Problem | None:
        """Return why nothing may be sent to SalesLoft now, after another look whether lines can be written."""
        if not self._required or self._file.fault is None or self._file.catch_up():
            return None
        return AuditUnwritable(
            f"The audit log cannot be written ({self._file.fault}), and log.audit_required is set.",
            hint="Make room for the file that log.audit names, or have whoever runs this proxy do so.",
        )

    def append(self, exchange: Exchange) -> bool:
        """Write the line of an answer whose last byte is about to go; return whether it may.

        What SalesLoft has answered may not, where lines are required and this one could not be written.
        """
        if exchange.is_audited or exchange.is_probe:
            return True
        exchange.is_audited = True
        exchange.line = json_of(exchange, level=level_of(exchange), at=time.time())
        return self._write(exchange.line) or not (self._required and exchange.attempts)

    def request_ended(self, exchange: Exchange) -> None:
        """Write the line of an answer that did not come to its end, or that no client waited for."""
        self.append(exchange)

    def renewal_ended(self, renewal: Renewal) -> None:
        """Write how a renewal ended."""
        level = "warning" if renewal.has_failed else "info"
        milliseconds = round((renewal.ended - renewal.began) * 1000, 1)
        self._write_event("renewal", level, reason=renewal.reason, outcome=renewal.outcome, ms=milliseconds)

    def token_event(self, event: TokenEvent) -> None:
        """Write a login, a logout or a refusal."""
        level = "warning" if event.kind == "refusal" else "info"
        self._write_event(event.kind, level, grant=event.grant, detail=event.detail)

    def _write_event(self, kind: str, level: str, **fields: object) -> None:
        self._write(json_line({"kind": kind, "profile": self._profile, **fields}, at=time.time(), level=level))

    def _write(self, line: str) -> bool:
        is_written = self._file.append(f"{line}\n".encode())
        if is_written is self._is_told:
            self._is_told = not is_written
            self._tell()
        return is_written

    def _tell(self) -> None:
        """Log that lines cannot be written, or can be again."""
        if not self._is_told:
            log.warning("the audit log is written again")
        else:
            effect = "requests are refused" if self._required else "requests are served without it"
            log.error("%s Meanwhile %s.", self.warning, effect)


def _gap(lost: int) -> bytes:
    """Return the line that says how many lines are missing before it."""
    return f"{json_line({'kind': 'gap', 'lost': lost}, at=time.time(), level='error')}\n".encode()
