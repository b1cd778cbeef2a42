"""Token events: listeners are told of renewals, logins, logouts and refusals; no defect of theirs costs a token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from slproxy.config import Grant
from slproxy.errors import CredentialsRefused, LoginRequired, Problem, StoreError
from slproxy.observe import Observer, Renewal, TokenEvent, TokenEventKind
from slproxy.store import Record

log = logging.getLogger("slproxy.auth")

E = TypeVar("E", Renewal, TokenEvent)


class TokenEvents:
    """Tells of what happens to the token, and which login it is of."""

    def __init__(self, observer: Observer, *, where: str, monotonic: Callable[[], float]) -> None:
        """Tell ``observer``; ``where`` describes the store."""
        self._observer = observer
        self._where = where
        self._monotonic = monotonic
        # When the login in use was made, which is what tells one from another.
        self._login: int | None = None

    @contextmanager
    def renewal(self, reason: str) -> Iterator[Renewal]:
        """Tell of the start of a renewal, and of its end."""
        renewal = Renewal(reason=reason, began=self._monotonic())
        _tell(self._observer.renewal_began, renewal)
        try:
            yield renewal
        finally:
            renewal.ended = self._monotonic()
            _tell(self._observer.renewal_ended, renewal)

    def begin_with(self, record: Record | None) -> None:
        """Begin with the login that was found at the start, which is no event."""
        self._login = None if record is None else record.login

    def found(self, grant: Grant | None, record: Record | None) -> None:
        """Tell of a login or a logout, by another process, if the record in use is of another login than before."""
        if grant != "authorization_code":
            return
        before = self._login
        self.begin_with(record)
        if record is not None and record.login != before:
            whose = "" if record.user_id is None else f" of user {record.user_id} of team {record.team_id}"
            self._event("login", grant, f"A login{whose} was found in {self._where}.")
        elif record is None and before is not None:
            self._event("logout", grant, f"The login was deleted from {self._where}.")

    def failed(self, grant: Grant | None, error: Problem | StoreError, record: Record | None) -> None:
        """Log that a renewal failed; tell if it was refused. Without a ``record``, there was no login any more."""
        # The system's own words help; another library's may quote what it was given.
        cause = f" ({error.__cause__})" if isinstance(error.__cause__, OSError) else ""
        log.warning("renewing the token failed: %s %s%s", error.detail, error.hint, cause)
        if isinstance(error, CredentialsRefused) or (isinstance(error, LoginRequired) and record is not None):
            self.refused(grant, error.detail)

    def refused(self, grant: Grant | None, detail: str) -> None:
        """Tell that SalesLoft has refused the token, or the credentials that it is granted for."""
        self._event("refusal", grant, detail)

    def _event(self, kind: TokenEventKind, grant: Grant | None, detail: str) -> None:
        _tell(self._observer.token_event, TokenEvent(kind=kind, grant=grant or "", detail=detail))


def _tell(listeners: Iterable[Callable[[E], None]], event: E) -> None:
    """Tell each listener; one that fails is logged, and ends neither this renewal nor the next ones."""
    for each in listeners:
        try:
            each(event)
        except Exception:
            # The outermost frame of a listener: what it raises is its own defect.
            log.exception("a defect in a listener, told of the token")
