"""Open files: how many connections fit into what the process may open (setrlimit(2), RLIMIT_NOFILE)."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

# Connections to the listener of `metrics.port`: a few scrapers, the kubelet, and who stays too long.
OPEN_LISTENER = 16
# Descriptors for all that is no client's connection: streams, the loop's own, listening sockets, the log, the store and
# its lock, resolvers, Redis; and connections that were accepted in one go, before others have been closed for them.
MARGIN = 32 + OPEN_LISTENER


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many connections there may be: of ``clients``, past these, and to the ``upstream``.

    Those past the limit hold a descriptor until they have been told so; bodies that are kept in files share theirs.
    """

    clients: int
    past_limit: int
    upstream: int


def room_for(*, clients: int, upstream: int) -> Room:
    """Return the room for so many connections, and let the process open as many files as that takes, if it may."""
    return shared_out(_allowed(MARGIN + upstream + 2 * clients), clients=clients, upstream=upstream)


def shared_out(files: int, *, clients: int, upstream: int) -> Room:
    """Share out ``files`` descriptors, a fourth of them to the upstream at most."""
    spare = files - MARGIN
    upstream = max(min(upstream, spare // 4), 1)
    spare -= upstream
    clients = max(min(clients, spare * 2 // 3), 1)
    return Room(clients=clients, past_limit=max(min(clients, spare - clients), 1), upstream=upstream)


def _allowed(wanted: int) -> int:
    """Raise the limit to ``wanted``, no further than it may be, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit of its own beside "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        return more
    return soft
