"""Own pages: what the proxy tells of itself, read from its parts at the moment that somebody asks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import slproxy
from slproxy.auth import Credentials
from slproxy.config import OWN_PAGES, ClientSettings, PolicySettings, Settings
from slproxy.errors import LoginRequired, Problem
from slproxy.forward import Answer, Client, Inbound
from slproxy.http import ByName
from slproxy.inspect import INSPECTOR, Inspector, InspectorPages
from slproxy.listeners import Listeners
from slproxy.observe import Metrics, Readings, Tally
from slproxy.pace import Pacer
from slproxy.server import pages
from slproxy.upstream import Upstream

if TYPE_CHECKING:
    from slproxy.server import Server


class Parts(Protocol):
    """What is told about; a reload replaces some of it."""

    settings: Settings
    credentials: Credentials
    upstream: Upstream
    pacer: Pacer
    inspector: Inspector
    listeners: Listeners
    server: Server | None

    @property
    def is_draining(self) -> bool: ...


class OwnPages:
    """The pages, of the parts as they are when one is asked for."""

    def __init__(self, parts: Parts, tally: Tally, *, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._parts = parts
        self._now, self._monotonic = now, monotonic
        self._started = monotonic()
        self._metrics = Metrics(tally, self._read)

    async def page(
        self, inbound: Inbound, target: str, tells_reason: bool, headers: ByName, client: Client | None
    ) -> Answer:
        """Return a page under ``/_slproxy/``; a ``client`` with a key of its own sees nothing of others.

        Raises Problem.
        """
        path = target.partition("?")[0]
        if path == OWN_PAGES or path.startswith(INSPECTOR):
            return await InspectorPages(self._parts.inspector).page(inbound, target, headers, client)
        return pages.page(
            inbound.method,
            path,
            tells_reason=tells_reason,
            not_ready=self._not_ready,
            warning=self.warning,
            state=lambda: self.state(None if client is None else client.name),
            metrics=lambda: self._metrics.page(_accept(headers)),
        )

    def open_page(self, method: str, path: str, headers: ByName) -> Answer:
        """Return a page for whoever reaches the listener of ``metrics.port``. Raises Problem."""
        return pages.open_page(
            method, path, not_ready=self._not_ready, metrics=lambda: self._metrics.page(_accept(headers))
        )

    @property
    def warning(self) -> str | None:
        """What a person should know although requests are served."""
        parts, audit = self._parts, self._parts.listeners.audit
        warnings = (parts.credentials.warning, parts.upstream.warning, None if audit is None else audit.warning)
        return " ".join(each for each in warnings if each) or None

    def state(self, client: str | None = None) -> dict[str, object]:
        """Return the document of ``status.json``; a ``client`` sees nothing of the others."""
        parts, problem = self._parts, self._not_ready()
        return {
            "version": slproxy.__version__,
            "pid": os.getpid(),
            "profile": parts.settings.profile,
            "ready": problem is None,
            "reason": problem and {"type": problem.type, "detail": problem.detail, "hint": problem.hint},
            "warning": self.warning,
            "draining": parts.is_draining,
            "uptime": round(self._monotonic() - self._started, 1),
            "upstream": parts.settings.upstream.api_url,
            "policy": _rules(parts.settings.policy),
            "clients": {
                name: {
                    **_rules(each),
                    "priority": each.priority,
                    "budget": each.budget,
                    "spent": parts.pacer.spent_by(name),
                }
                for name, each in parts.settings.clients.items()
                if client in (None, name)
            },
            "token": parts.credentials.snapshot(),
            "budget": parts.pacer.state(client),
            "requests": {each: getattr(parts.server, each, 0) for each in ("served", "in_flight", "spared")},
        }

    def _not_ready(self) -> Problem | None:
        parts, audit = self._parts, self._parts.listeners.audit
        problem = parts.credentials.problem() or (None if audit is None else audit.problem())
        return pages.not_ready(problem, draining=parts.is_draining)

    def _read(self) -> Readings:
        parts = self._parts
        expires_in, server = parts.credentials.snapshot()["expires_in"], parts.server
        return Readings(
            version=slproxy.__version__,
            is_ready=self._not_ready() is None,
            needs_login=isinstance(parts.credentials.problem(), LoginRequired),
            token_expiry=self._now() + expires_in if isinstance(expires_in, float) else None,
            budget=parts.pacer.reading(),
            in_flight=0 if server is None else server.in_flight,
            client_connections=0 if server is None else len(server.admission.connections),
            upstream_connections=parts.upstream.connections,
        )


def _rules(section: PolicySettings | ClientSettings) -> dict[str, object]:
    return {name: getattr(section, name) for name in ("read_only", "accept_paths", "reject_paths")}


def _accept(headers: ByName) -> str:
    return b",".join(headers.get(b"accept", ())).decode("latin-1")
