"""``slproxy status``: what there is to know of the login, of the proxy that runs here, and of the team's budget."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping

import slproxy
from slproxy import probe
from slproxy.app import App
from slproxy.errors import LoginRequired
from slproxy.settings import Settings

# How many clients and endpoints are named.
NAMED = 5


async def status(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy status``."""
    async with App(settings) as app:
        problem = app.credentials.problem()
        # A token that has expired, or was never asked for, is no fault: it is renewed when it is wanted.
        needs_login = isinstance(problem, LoginRequired)
        token = app.credentials.snapshot()
    proxy = await asyncio.to_thread(probe.status_of, settings.listen)
    if args.json:
        facts = {"profile": settings.profile, "token": token, "login_needed": needs_login, "proxy": proxy}
        print(json.dumps(facts, indent=2))
        return LoginRequired.exit_code if needs_login else 0
    rows = [
        ("profile", settings.profile),
        ("grant", f"{token['grant'] or 'none'}: {token['why']}"),
        ("token", f"{problem.detail} {problem.hint}" if needs_login and problem else told_token(token)),
        ("user", f"{token['user_id']} of team {token['team_id']}" if token["user_id"] is not None else ""),
        ("kept in", ", ".join(str(each) for each in (token["store"], token["encryption"]) if each)),
        ("proxy", _told_proxy(proxy, settings)),
        ("renewal", _told_renewal(proxy) if proxy and proxy.get("profile") == settings.profile else ""),
    ]
    for name, value in (*rows, *_told_budget(proxy)):
        if value:
            print(f"{name:<8} {value}")
    return LoginRequired.exit_code if needs_login else 0


def told_token(token: Mapping[str, object]) -> str:
    """Return what a person reads of a token."""
    if token["grant"] == "api_key":
        return "an API key; it does not expire"
    expires_in, age = token["expires_in"], token["age"]
    if token["generation"] is None:
        return "none yet; it is asked for when it is wanted"
    known = f"generation {token['generation']}, {_span(age)} old"
    if not isinstance(expires_in, float | int):
        return f"does not expire, {known}"
    if expires_in <= 0:
        return f"expired, {known}; it is renewed when it is wanted"
    return f"valid for {_span(expires_in)}, {known}"


def _span(seconds: object) -> str:
    minutes, rest = divmod(int(seconds) if isinstance(seconds, float | int) else 0, 60)
    return f"{minutes // 60} h {minutes % 60} min {rest} s"


def _told_proxy(proxy: Mapping[str, object] | None, settings: Settings) -> str:
    where = f"unix:{settings.listen.uds}" if settings.listen.uds else f"{settings.listen.host}:{settings.listen.port}"
    if proxy is None:
        return f"none answers at {where}"
    if "version" not in proxy:
        return f"something answers at {where}, but not with its status: {proxy.get('detail', 'is it another program?')}"
    reason, token = proxy.get("reason"), proxy.get("token")
    of = "" if proxy.get("profile") == settings.profile else f", of the profile {proxy.get('profile')}"
    told = [f"up at {where}{of}"]
    told.append(f"not ready: {reason.get('detail')} {reason.get('hint')}" if isinstance(reason, dict) else "ready")
    if isinstance(token, dict):
        told.append(f"by {token.get('grant')}")
    if isinstance(proxy.get("warning"), str):
        told.append(f"WARNING: {proxy['warning']}")
    return ", ".join(told)


def _told_renewal(proxy: Mapping[str, object]) -> str:
    """Return how the running proxy's last renewal went."""
    token = proxy.get("token")
    last = token.get("last_renewal") if isinstance(token, dict) else None
    if not isinstance(last, dict) or not isinstance(last.get("at"), float | int):
        return ""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(last['at']))}: {last.get('outcome')}"


def _told_budget(proxy: Mapping[str, object] | None) -> list[tuple[str, str]]:
    """Return what the running proxy tells of the team's budget: what is left, who waits, who has spent it."""
    budget = proxy.get("budget") if proxy else None
    # One of another version may tell other things.
    if not isinstance(budget, dict) or proxy is None or proxy.get("version") != slproxy.__version__:
        return []
    queue, minute = budget["queue"], budget["this_minute"]
    told = [f"{budget['remaining']} of {budget['limit']} left", f"a new minute in {budget['resets_in']:.0f} s"]
    if waiting := queue["interactive"] + queue["bulk"]:
        told.append(f"{waiting} waiting, {queue['bulk']} of them bulk")
    if budget["mode"] == "observe":
        told.append("only observed")
    if budget["window"] == "sliding":
        told.append("a sliding minute: sent evenly")
    if budget["shared"]:
        told.append(f"shared by {budget['shared']}" + (", which does not answer" if budget["alone"] else ""))
    spent = {"clients": minute["by_client"], "on": minute["by_endpoint"]}
    return [
        ("budget", ", ".join(told)),
        *(
            (name, ", ".join(f"{who} {cost}" for who, cost in list(costs.items())[:NAMED]))
            for name, costs in spent.items()
        ),
        ("minutes", ", ".join(f"{past['at'][11:16]}Z {past['spent']}" for past in budget["last_minutes"])),
    ]
