"""Running proxy: requests to the one on this machine, as any client makes them."""

from __future__ import annotations

import asyncio
import functools
import http.client
from collections.abc import Mapping

from slproxy.cli import own_request
from slproxy.cli.output import print_note
from slproxy.cli.own_request import address
from slproxy.cli.process import in_daemon_thread
from slproxy.config import ListenSettings, Settings
from slproxy.errors import KeyRequired, OtherUserError
from slproxy.untrusted import parse_json, printable

# How long a proxy on this machine may take to answer for itself, in seconds.
OWN_TIMEOUT = 2.0


async def ask(listen: ListenSettings, target: str, *, within: float = OWN_TIMEOUT) -> tuple[int, bytes]:
    """Ask the running proxy for something and return status and body. Raises what ``own_request.ask`` raises."""
    async with asyncio.timeout(2 * within):  # each read has that timeout, and there may be many
        return await in_daemon_thread(functools.partial(own_request.ask, listen, target, timeout=within))


async def status_of(listen: ListenSettings) -> dict[str, object] | None:
    """Return the ``status.json`` of the proxy at this address: ``None`` if nothing listens there.

    What answers otherwise has no ``version`` in it; ``detail`` may say why.
    """
    try:
        _, body = await ask(listen, "/_slproxy/status.json")
        document = parse_json(body)
    except OtherUserError as error:
        return {"detail": error.detail, "uid": error.uid}
    except TimeoutError:
        return {"detail": f"no answer in {OWN_TIMEOUT:g} s"}
    except OSError:
        return None
    except (http.client.HTTPException, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


async def recent_of(listen: ListenSettings) -> list[object] | None:
    """Return the inspector's rows of what has ended last, the newest at the end; ``None`` where it has none to show."""
    try:
        status, body = await ask(listen, "/_slproxy/inspector/recent")
        document = parse_json(body)
    except (OSError, TimeoutError, http.client.HTTPException, ValueError, OtherUserError):
        return None
    rows = document.get("rows") if status == 200 and isinstance(document, dict) else None
    return rows if isinstance(rows, list) else None


def described(listen: ListenSettings, proxy: Mapping[str, object]) -> str:
    """Return what a ``status.json`` says of who listens there, in a sentence; empty where it is no slproxy."""
    where = address(listen)
    if "version" in proxy:
        pid, profile = printable(str(proxy.get("pid"))), printable(str(proxy.get("profile")))
        return f"slproxy is already running at {where} (pid {pid}, profile {profile})."
    if proxy.get("type") == KeyRequired.type:
        return f"slproxy is already running at {where}, with another local key."
    return str(proxy["detail"]) if "uid" in proxy else ""


async def serving(settings: Settings) -> Mapping[str, object] | None:
    """Return the ``status.json`` of the proxy that is up with the login of this profile, and can be asked."""
    proxy = await status_of(settings.reach)
    if proxy is None or "version" not in proxy:
        if proxy is not None and (other := described(settings.reach, proxy)):
            print_note(f"slproxy: {other}")
        return None
    return proxy if proxy.get("profile") == settings.profile else None
