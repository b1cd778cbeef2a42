"""A request and its response, as the access log tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(kw_only=True, eq=False)
class Exchange:
    """A request and its response, as they go by. Times are in seconds; ``started`` is monotonic."""

    method: str
    path: str
    started: float
    status: int = 0
    attempts: int = 0
    # Whether its body is sent once, since it is not kept.
    once: bool = False
    upstream: float = 0.0
    # All waiting between sends, and what of it pacing has held it.
    wait: float = 0.0
    held: float = 0.0
    # Whether it was refused (429) and waits at its place among the others; and then for how long it may.
    queued: bool = False
    cure: float | None = None
    # Its place among those who wait for the budget, which a repeat keeps.
    place: int | None = None
    # The type of the proxy's own answer, such as "login-required"; empty when the reply is SalesLoft's.
    error: str = ""
    # What the proxy's own answer says besides, as headers.
    remarks: Sequence[tuple[str, str]] = ()
    # How the answer ended, when it did not end well: "client left", "upstream broke off".
    ended: str = ""

    @property
    def told_attempts(self) -> list[tuple[str, str]]:
        """The header that tells the client how often its request was sent, where there is something to tell."""
        if self.once and self.attempts:
            return [("X-Slproxy-Attempts", f"{self.attempts}; not-replayable")]
        return [("X-Slproxy-Attempts", str(self.attempts))] if self.attempts > 1 else []

    def fields(self, now: float) -> dict[str, object]:
        """Return what the JSON line holds; ``now`` is monotonic."""
        fields: dict[str, object] = {
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "attempts": self.attempts,
            "ms": round((now - self.started) * 1000, 1),
        }
        if self.wait >= 0.001:
            fields["waited_ms"] = round(self.wait * 1000, 1)
        if self.error:
            fields["error"] = self.error
        if self.ended:
            fields["ended"] = self.ended
        return fields


def path_of(target: str) -> str:
    """Return what may be logged of a request target: its path, with nothing that a terminal would obey.

    Of an absolute target, the authority is left out as well: it may hold a password.
    """
    path = target.partition("?")[0].partition("#")[0]
    if not path.startswith("/") and "://" in path:
        path = "/" + path.partition("://")[2].partition("/")[2]
    return "".join(character if character.isprintable() else "?" for character in path)[:500]
