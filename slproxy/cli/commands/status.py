"""``slproxy status``: what there is to know of the login, of the proxy that runs here, and of the team's budget."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections.abc import Mapping

import slproxy
from slproxy.app import App
from slproxy.cli import probe
from slproxy.cli.describe import count, describe_token
from slproxy.config import Settings
from slproxy.errors import LoginRequired, Problem, StoreError

# How many clients and endpoints are named.
NAMED = 5


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy status``. Raises StoreError once all the rest has been told."""
    here: Mapping[str, object] | None = None
    problem: Problem | None = None
    fault: StoreError | None = None
    try:
        async with App(settings) as app:
            problem, here = app.credentials.problem(), app.credentials.snapshot()
    except StoreError as error:
        fault = error
    proxy = await asyncio.to_thread(probe.status_of, settings.listen)
    ours = proxy if proxy and proxy.get("profile") == settings.profile else None
    # What runs is what counts: it may hold what no file does, or serve the sandbox.
    token = _token_of(ours) or here
    needed = _login_needed(problem, ours)
    if args.json:
        facts = {"profile": settings.profile, "token": token, "login_needed": needed is not None, "proxy": proxy}
        print(json.dumps(facts, indent=2))
    else:
        try:
            rows = [
                *(_told_login(token, needed) if token else []),
                ("proxy", _told_proxy(proxy, settings)),
                ("renewal", _told_renewal(ours) if ours else ""),
                ("restart", _told_restart(ours, here, settings) if ours and here else ""),
                *_told_budget(proxy),
            ]
        except (AttributeError, KeyError, TypeError, ValueError):
            # It is from a time before this version, or only calls itself so.
            rows = [*(_told_login(here, needed) if here else []), ("proxy", "up, but another version: restart it")]
        for name, value in (("profile", settings.profile), *rows):
            if value:
                print(f"{name:<9} {value}", flush=True)
    if fault is not None:
        raise fault
    return 0 if needed is None else LoginRequired.exit_code


def _token_of(proxy: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Return what a running proxy tells of its token; one of another version may tell other things."""
    token = proxy.get("token") if proxy and proxy.get("version") == slproxy.__version__ else None
    return token if isinstance(token, dict) else None


def _login_needed(problem: Problem | None, ours: Mapping[str, object] | None) -> str | None:
    """Return why a person must log in, or ``None``: a proxy that is ready needs nobody.

    A token that has expired, or was never asked for, is no fault: it is renewed when it is wanted.
    """
    if ours and ours.get("ready") is True:
        return None
    reason = ours.get("reason") if ours else None
    if isinstance(reason, dict) and reason.get("type") == LoginRequired.type:
        return f"{reason.get('detail')} {reason.get('hint')}"
    return f"{problem.detail} {problem.hint}" if isinstance(problem, LoginRequired) else None


def _told_login(token: Mapping[str, object], needed: str | None) -> list[tuple[str, str]]:
    return [
        ("auth", f"{token['grant'] or 'none'} ({token['why']})"),
        ("token", needed or describe_token(token)),
        ("user", f"{token['user_id']} of team {token['team_id']}" if token["user_id"] is not None else ""),
        ("stored in", ", ".join(str(each) for each in (token["store"], token["encryption"]) if each)),
    ]


def _told_proxy(proxy: Mapping[str, object] | None, settings: Settings) -> str:
    where = f"unix:{settings.listen.uds}" if settings.listen.uds else f"{settings.listen.host}:{settings.listen.port}"
    if proxy is None:
        return f"not running at {where}"
    if "version" not in proxy:
        return f"something answers at {where}, but not as slproxy: {proxy.get('detail', 'is it another program?')}"
    reason, token = proxy.get("reason"), proxy.get("token")
    of = "" if proxy.get("profile") == settings.profile else f", profile {proxy.get('profile')}"
    told = [f"up at {where}{of}"]
    if _serves_another(proxy, settings):
        told.append(f"forwarding to {proxy['upstream']}")
    told.append(f"not ready: {reason.get('detail')} {reason.get('hint')}" if isinstance(reason, dict) else "ready")
    if isinstance(token, dict):
        told.append(f"using {token.get('grant')}")
    if isinstance(proxy.get("warning"), str):
        told.append(f"WARNING: {proxy['warning']}")
    return ", ".join(told)


def _serves_another(proxy: Mapping[str, object], settings: Settings) -> bool:
    """Tell whether a proxy forwards elsewhere than these settings say, such as to a sandbox."""
    return proxy.get("upstream") not in (None, settings.upstream.api_url)


def _told_restart(ours: Mapping[str, object], here: Mapping[str, object], settings: Settings) -> str:
    """Return how a new start would come by its token, where that is not how the running proxy does."""
    token = _token_of(ours)
    if token is None or here["grant"] in (None, token["grant"]) or _serves_another(ours, settings):
        return ""
    return f"a new start would use {here['grant']} ({here['why']})"


def _told_renewal(proxy: Mapping[str, object]) -> str:
    """Return how the running proxy's last renewal went."""
    token = proxy.get("token")
    last = token.get("last_renewal") if isinstance(token, dict) else None
    if not isinstance(last, dict) or not isinstance(last.get("at"), float | int):
        return ""
    return f"{time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(last['at']))}: {last.get('outcome')}"


def _told_budget(proxy: Mapping[str, object] | None) -> list[tuple[str, str]]:
    """Return what the running proxy tells of the team's budget: what is left, who waits, who has spent it."""
    budget = proxy.get("budget") if proxy else None
    # One of another version may tell other things.
    if not isinstance(budget, dict) or proxy is None or proxy.get("version") != slproxy.__version__:
        return []
    queue, minute = budget["queue"], budget["this_minute"]
    told = [f"{_told_left(budget)}, resets in {math.ceil(budget['resets_in'])} s"]
    if waiting := queue["interactive"] + queue["bulk"]:
        told.append(f"{count(waiting, 'request')} waiting: {_named(budget['waiting'])}")
    if budget["mode"] == "observe":
        told.append("only observed")
    if budget["window"] == "sliding":
        told.append("sliding window: sent evenly")
    if budget["shared"]:
        told.append(f"shared by {budget['shared']}" + (", which does not answer" if budget["alone"] else ""))
    others = f"{minute['by_others']} by others" if minute["by_others"] else ""
    past = [f"{each['at'][11:16]}Z {each['spent']}" for each in budget["last_minutes"] if each["spent"]]
    return [
        ("budget", "; ".join(told)),
        ("clients", "; ".join(part for part in (_named(minute["by_client"]), others) if part)),
        ("endpoints", _named(minute["by_endpoint"])),
        ("history", ", ".join(past)),
    ]


def _told_left(budget: Mapping[str, object]) -> str:
    """Return what is left of this proxy's share, and the team's limit where that is more."""
    team = f"{'' if budget.get('told', True) else 'an assumed '}{budget['limit']}"
    if budget["ours"] == budget["limit"]:
        return f"{budget['remaining']} of {team} left"
    return f"{budget['remaining']} of {budget['ours']} left (the team has {team})"


def _named(costs: Mapping[str, int]) -> str:
    """Name the largest spenders, and say how many more there are."""
    spent = [f"{who} {cost}" for who, cost in costs.items() if cost]
    more = f" and {len(spent) - NAMED} more" if len(spent) > NAMED else ""
    return ", ".join(spent[:NAMED]) + more
