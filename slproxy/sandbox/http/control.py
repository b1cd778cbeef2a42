"""Control pages under `/_sandbox/`: recorded requests, faults, the clock, a reset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from slproxy.sandbox.limits.faults import ACCEPTED, ArmedFault, FaultError
from slproxy.sandbox.request_log import masked, masked_headers

if TYPE_CHECKING:
    from slproxy.sandbox.salesloft import SalesLoft

INDEX: Mapping[str, str] = {
    "GET /oauth/authorize?…&sandbox_consent=allow": "log in without the consent page; or deny",
    "GET /_sandbox/state": "counters, and what is left of the budget",
    "GET /_sandbox/requests": "recorded API requests, tokens masked",
    "GET /_sandbox/faults": "the armed faults",
    "POST /_sandbox/faults": '{"fault": "status=503;times=2", "on": "api" or "token", "path": "/v2/people"}',
    "DELETE /_sandbox/faults": "disarm all faults",
    "POST /_sandbox/clock": '{"advance": SECONDS}',
    "POST /_sandbox/reset": "start anew: no tokens, writes, faults or recorded requests; the real clock, a full budget",
}


def response_to(salesloft: SalesLoft, method: str, path: str, body: bytes) -> tuple[int, Mapping[str, object]]:
    """Answer one request."""
    try:
        given = json.loads(body) if body.strip() else {}
    except ValueError:
        given = None
    if not isinstance(given, dict):
        return 400, {"error": "the body must be a JSON object"}
    match "GET" if method == "HEAD" else method, path.rstrip("/").removeprefix("/_sandbox"):
        case "GET", "":
            return 200, {"sandbox": "a fake SalesLoft", "pages": INDEX, "faults": ACCEPTED}
        case "GET", "/state":
            return 200, state(salesloft)
        case "GET", "/requests":
            return 200, {"requests": requests(salesloft)}
        case "GET", "/faults":
            return 200, {"faults": [described(armed) for armed in salesloft.faults]}
        case "POST", "/faults":
            return arm(salesloft, given)
        case "DELETE", "/faults":
            salesloft.clear_faults()
            return 200, {"faults": []}
        case "POST", "/clock":
            return move(salesloft, given.get("advance"))
        case "POST", "/reset":
            salesloft.reset()
            return 200, state(salesloft)
        case _:
            return 404, {"error": "Not Found", "pages": INDEX}


def state(salesloft: SalesLoft) -> Mapping[str, object]:
    """Return the counters, the clock and the budget."""
    return {
        "now": salesloft.now(),
        "requests": len(salesloft.requests),
        "token_requests": len(salesloft.token_requests),
        "tokens_alive": salesloft.alive(),
        "budget_remaining": salesloft.remaining(),
    }


def requests(salesloft: SalesLoft) -> list[Mapping[str, object]]:
    """Return the recorded requests, credentials masked, bodies as length and SHA-256."""
    return [
        {
            "at": request.at,
            "method": request.method,
            "target": request.target,
            "token": request.token and masked(request.token),
            "headers": masked_headers(request.headers),
            "length": request.length,
            "sha256": request.sha256,
            "status": request.status,
        }
        for request in salesloft.requests
    ]


def described(armed: ArmedFault) -> Mapping[str, object]:
    """Return an armed fault as JSON."""
    return {"fault": armed.fault.text, "on": armed.on, "path": armed.path, "left": armed.left}


def arm(salesloft: SalesLoft, given: Mapping[str, object]) -> tuple[int, Mapping[str, object]]:
    """Arm the fault that was posted."""
    spec, side, path = given.get("fault"), given.get("on", "api"), given.get("path")
    if not isinstance(spec, str) or side not in ("api", "token") or not isinstance(path, str | None):
        return 400, {"error": INDEX["POST /_sandbox/faults"], "accepted": ACCEPTED}
    try:
        return 200, described(salesloft.fault(spec, on="token" if side == "token" else "api", path=path))
    except FaultError as bad:
        return 400, {"error": str(bad), "accepted": bad.accepted}


def move(salesloft: SalesLoft, seconds: object) -> tuple[int, Mapping[str, object]]:
    """Move the clock."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return 400, {"error": INDEX["POST /_sandbox/clock"]}
    salesloft.advance(seconds)
    return 200, {"now": salesloft.now()}
