"""The proxy's own pages under ``/_slproxy/``: health, readiness, status and metrics. They hold no secret."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Mapping

from slproxy.config import OWN_PAGES
from slproxy.errors import Draining, MethodRefused, NotFound, Problem
from slproxy.forward import OWN_METHODS, Answer
from slproxy.http import http_date

# What is open to everybody on a listener of its own: whoever scrapes and probes knows neither key nor Host.
OPEN = ("healthz", "readyz", "metrics")
PAGES = tuple(OWN_PAGES + name for name in (*OPEN, "status.json"))

State = Mapping[str, object]


def page(
    method: str,
    path: str,
    *,
    tells_reason: bool,
    not_ready: Callable[[], Problem | None],
    warning: str | None,
    state: Callable[[], State],
    metrics: Callable[[], tuple[str, bytes]],
) -> Answer:
    """Return one of the proxy's own pages; without ``tells_reason`` the probes say no more than yes or no.

    ``metrics`` are given with their content type.

    Raises:
        Problem: there is no such page, or ``readyz`` is asked while no token can be had.
    """
    if method not in OWN_METHODS:
        raise MethodRefused(
            "The proxy's own pages are only read.", hint="Use GET.", headers=(("Allow", ", ".join(OWN_METHODS)),)
        )
    match path.removeprefix(OWN_PAGES):
        case "healthz":
            return _json({"status": "alive"})
        case "readyz":
            if (problem := not_ready()) is not None:
                raise problem if tells_reason else _without_reason(problem)
            return _json({"status": "ready"} | ({"warning": warning} if warning and tells_reason else {}))
        case "status.json":
            return _json(state())
        case "metrics":
            return _page(*metrics())
    nearest = difflib.get_close_matches(path, PAGES, n=1, cutoff=0.8)
    raise NotFound(
        "The proxy has no such page.",
        hint=f"{f'Did you mean {nearest[0]}? ' if nearest else ''}There are {', '.join(PAGES)}.",
    )


def open_page(
    method: str, path: str, *, not_ready: Callable[[], Problem | None], metrics: Callable[[], tuple[str, bytes]]
) -> Answer:
    """Return one of the pages that are open to everybody, under ``/_slproxy/`` or right below the root.

    Raises:
        Problem: as ``page``.
    """
    name = path.removeprefix(OWN_PAGES).removeprefix("/")
    if name not in OPEN:
        raise NotFound(
            "There is no such page at metrics.port.", hint=f"There are {', '.join(f'/{each}' for each in OPEN)}."
        )
    return page(
        method,
        OWN_PAGES + name,
        tells_reason=False,
        not_ready=not_ready,
        warning=None,
        state=dict,
        metrics=metrics,
    )


def not_ready(token_problem: Problem | None, *, draining: bool) -> Problem | None:
    """Return why the proxy is not ready, or ``None`` when it is."""
    if draining:
        return Draining("The proxy is shutting down.", hint="Ask another one.")
    return token_problem


def _without_reason(problem: Problem) -> Problem:
    """Return a problem less its texts, which may hold paths of this machine."""
    bare = Problem.__new__(type(problem))
    vars(bare).update(vars(problem))
    bare.detail = f"{problem.title}."
    bare.hint = "Ask by a name that this proxy answers to, such as localhost, for the reason."
    return bare


def _json(document: Mapping[str, object]) -> Answer:
    return _page("application/json", json.dumps(document, indent=2).encode() + b"\n")


def _page(content_type: str, body: bytes) -> Answer:
    return Answer(
        status=200,
        headers=[
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Date", http_date(time.time())),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            # Without an error: what has no Proxy-Status is SalesLoft's.
            ("Proxy-Status", "slproxy"),
        ],
        body=body,
    )
