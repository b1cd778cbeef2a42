"""Facts: what the inspector tells of this proxy besides what happens, and what it must not show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from slproxy.auth import Credentials
from slproxy.config import Settings, is_loopback


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The settings and credentials of the moment, as far as they matter here."""

    profile: str
    grant: str | None
    api_url: str
    read_only: bool
    # The clients that only read.
    readers: frozenset[str] = frozenset()
    secrets: tuple[str, ...] = field(repr=False)

    @property
    def is_sandbox(self) -> bool:
        """Whether requests go to this machine, and not to SalesLoft."""
        return is_loopback(self.api_url.rpartition("//")[2].rpartition(":")[0].strip("[]"))


FactsOf = Callable[[], Facts]


def facts_of(settings: Settings, credentials: Credentials) -> Facts:
    """Return the facts that settings and credentials make."""
    keys = (*settings.keys.values(), settings.auth.api_key, settings.auth.client_secret, settings.store.key)
    return Facts(
        profile=settings.profile,
        grant=credentials.selection.grant,
        api_url=settings.upstream.api_url,
        read_only=settings.policy.read_only,
        readers=frozenset(name for name, each in settings.clients.items() if each.read_only),
        secrets=(*credentials.secrets(), *(each.reveal() for each in keys if each is not None)),
    )
