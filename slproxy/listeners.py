"""Listeners: everybody who is told what happens, each made here, from the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from slproxy.config import Settings
from slproxy.observe import Audit, Listener, Observer, Tally, start_tracing


class Listeners:
    """The listeners of a process, under their names; ``observer`` tells them, in the order in which they stand here."""

    def __init__(self, settings: Settings, *, given: Sequence[Listener] = ()) -> None:
        """Make those that the settings ask for, and tell those that are ``given`` as well."""
        self.tally = Tally()
        self.audit = audit_of(settings)
        self.observer = Observer([*([] if self.audit is None else [self.audit]), *given, self.tally])

    def start_tracing(self, *, api_url: Callable[[], str]) -> None:
        """Make the traces that the environment asks for; ``api_url`` tells where requests go now."""
        for each in start_tracing(api_url=api_url):
            self.include(each, wanted=True)

    def include(self, listener: Listener, *, wanted: bool) -> None:
        """Tell a listener from now on as well, or no more."""
        others = [each for each in self.observer.listeners if each is not listener]
        self.observer.tell([*others, listener] if wanted else others)


def audit_of(settings: Settings) -> Audit | None:
    """Return the audit, if there is to be one."""
    rules = settings.log
    if rules.audit is None:
        return None
    return Audit(rules.audit, required=rules.audit_required, profile=settings.profile)
