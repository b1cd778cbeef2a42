"""Listeners: everybody who is told what happens, each made here, from the settings."""

from __future__ import annotations

from collections.abc import Sequence

from slproxy.config import Settings
from slproxy.observe import Listener, Observer, Tally


class Listeners:
    """The listeners of a process, under their names; ``observer`` tells them, in the order in which they stand here."""

    def __init__(self, settings: Settings, *, given: Sequence[Listener] = ()) -> None:  # noqa: ARG002  # for those to come
        """Make those that the settings ask for; ``given`` are told first."""
        self.tally = Tally()
        self.observer = Observer([*given, self.tally])

    def include(self, listener: Listener, *, wanted: bool) -> None:
        """Tell a listener from now on as well, or no more."""
        others = [each for each in self.observer.listeners if each is not listener]
        self.observer.tell([*others, listener] if wanted else others)
