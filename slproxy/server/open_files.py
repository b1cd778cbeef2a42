"""Open files: how many connections fit into what the process may open (setrlimit(2), RLIMIT_NOFILE)."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

# Descriptors for all that is no connection: streams, the loop's own, listening sockets, the log, the store and
# its lock, resolvers, Redis; and connections that were accepted in one go, before others have been closed for them.
MARGIN = 32


@dataclass(frozen=True, kw_only=True)
class Room:
    """How many connections there may be: of ``clients``, past these, and to the ``upstream``.

    Those past the limit hold a descriptor until they have been told so; bodies that are kept in files share theirs.
    """

    clients: int
    past_limit: int
    upstream: int
    # What the limit on clients is called.
    limit: str = "limits.max_connections"


# The listener of `metrics.port`: a few scrapers, the kubelet, and who stays too long.
OPEN_ROOM = Room(clients=16, past_limit=8, upstream=0, limit="metrics.port takes")


def room_for(*, clients: int, upstream: int, has_open_listener: bool) -> Room:
    """Return the room for so many connections, and let the process open as many files as that takes, if it may."""
    besides = OPEN_ROOM.clients + OPEN_ROOM.past_limit if has_open_listener else 0
    files = _allowed(MARGIN + besides + upstream + 2 * clients)
    return shared_out(files - besides, clients=clients, upstream=upstream)


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
