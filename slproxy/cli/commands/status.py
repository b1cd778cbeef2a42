"""``slproxy status``: shows the login, the running proxy and the team's budget."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping

import slproxy
from slproxy.access import Access
from slproxy.cli import own_request, running_proxy
from slproxy.cli.describe import count, describe_token
from slproxy.cli.output import print_result
from slproxy.config import Settings
from slproxy.errors import KeyRequired, LoginRequired, Problem, StoreError
from slproxy.untrusted import printable

# How many clients and endpoints are named.
TOP = 5


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy status``. Raises StoreError, after everything else is printed."""
    here: Mapping[str, object] | None = None
    problem: Problem | None = None
    fault: StoreError | None = None
    try:
        async with Access(settings) as access:
            problem, here = access.credentials.problem(), access.credentials.snapshot()
    except StoreError as error:
        fault = error
    proxy = await running_proxy.status_of(settings.listen)
    ours = proxy if proxy and proxy.get("profile") == settings.profile else None
    # What runs is what counts: it may hold what no file does, or serve the sandbox.
    token = _running_token(ours) or here
    needed = _login_hint(problem, ours)
    if args.json:
        facts = {"profile": settings.profile, "token": token, "login_needed": needed is not None, "proxy": proxy}
        print_result(json.dumps(facts, indent=2))
    else:
        try:
            rows = [
                *(_login_rows(token, needed) if token else []),
                ("proxy", _proxy_text(proxy, settings)),
                ("renewal", _renewal_text(ours) if ours else ""),
                ("restart", _restart_text(ours, here, settings) if ours and here else ""),
                *_budget_rows(proxy),
                ("spared", _spared_text(proxy)),
            ]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            # Another version, or another program that looks like one.
            rows = [*(_login_rows(here, needed) if here else []), ("proxy", "up, but another version: restart it")]
        for name, value in (("profile", settings.profile), *rows):
            if value:
                print_result(f"{name:<9} {printable(value)}")
    if fault is not None:
        raise fault
    return 0 if needed is None else LoginRequired.exit_code


def _running_token(proxy: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Return the token in a running proxy's ``status.json``, if the proxy is of this version."""
    token = proxy.get("token") if proxy and proxy.get("version") == slproxy.__version__ else None
    return token if isinstance(token, dict) else None


def _login_hint(problem: Problem | None, ours: Mapping[str, object] | None) -> str | None:
    """Return why a person must log in, or ``None``: a proxy that is ready needs nobody.

    A token that has expired, or was never fetched, is no fault: it is renewed on next use.
    """
    if ours and ours.get("ready") is True:
        return None
    reason = ours.get("reason") if ours else None
    if isinstance(reason, dict) and reason.get("type") == LoginRequired.type:
        return f"{reason.get('detail')} {reason.get('hint')}"
    return f"{problem.detail} {problem.hint}" if isinstance(problem, LoginRequired) else None


def _login_rows(token: Mapping[str, object], needed: str | None) -> list[tuple[str, str]]:
    return [
        ("auth", f"{token['grant'] or 'none'} ({token['why']})"),
        ("token", needed or describe_token(token)),
        ("user", f"{token['user_id']} of team {token['team_id']}" if token["user_id"] is not None else ""),
        ("stored in", ", ".join(str(each) for each in (token["store"], token["encryption"]) if each)),
    ]


def _proxy_text(proxy: Mapping[str, object] | None, settings: Settings) -> str:
    where = own_request.address(settings.listen)
    if proxy is None:
        return f"not running at {where}"
    if "version" not in proxy:
        if proxy.get("type") == KeyRequired.type or "uid" in proxy:
            return running_proxy.described(settings.listen, proxy)
        return f"something answers at {where}, but not as slproxy: {proxy.get('detail', 'is it another program?')}"
    reason, token = proxy.get("reason"), proxy.get("token")
    of = "" if proxy.get("profile") == settings.profile else f", profile {proxy.get('profile')}"
    parts = [f"up at {where}{of}"]
    if _serves_another(proxy, settings):
        parts.append(f"forwarding to {proxy['upstream']}")
    if isinstance(token, dict):
        parts.append(f"using {token.get('grant') or 'no grant'}")
    parts.append(f"not ready: {reason.get('detail')} {reason.get('hint')}" if isinstance(reason, dict) else "ready")
    if isinstance(proxy.get("warning"), str):
        parts.append(f"WARNING: {proxy['warning']}")
    return ", ".join(parts)


def _serves_another(proxy: Mapping[str, object], settings: Settings) -> bool:
    """Tell whether a proxy forwards elsewhere than these settings say, such as to a sandbox."""
    return proxy.get("upstream") not in (None, settings.upstream.api_url)


def _restart_text(ours: Mapping[str, object], here: Mapping[str, object], settings: Settings) -> str:
    """Return the grant that a new start would use, where the running proxy uses another."""
    token = _running_token(ours)
    if token is None or here["grant"] in (None, token["grant"]) or _serves_another(ours, settings):
        return ""
    return f"a new start would use {here['grant']} ({here['why']})"


def _renewal_text(proxy: Mapping[str, object]) -> str:
    """Return how the running proxy's last renewal went."""
    token = proxy.get("token")
    last = token.get("last_renewal") if isinstance(token, dict) else None
    if not isinstance(last, dict) or not isinstance(last.get("at"), float | int):
        return ""
    return f"{time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(last['at']))}: {last.get('outcome')}"


def _budget_rows(proxy: Mapping[str, object] | None) -> list[tuple[str, str]]:
    """Return the rows on the team's budget: what is left, who waits, who has spent it."""
    budget = proxy.get("budget") if proxy else None
    # Another version's status.json may differ.
    if not isinstance(budget, dict) or proxy is None or proxy.get("version") != slproxy.__version__:
        return []
    queue, minute = budget["queue"], budget["this_minute"]
    parts = [f"{_left_text(budget)}, resets in {math.ceil(budget['resets_in'])} s"]
    if waiting := queue["interactive"] + queue["bulk"]:
        parts.append(f"{count(waiting, 'request')} waiting: {_top(budget['waiting'])}")
    if budget["mode"] == "observe":
        parts.append("only observed")
    if budget["window"] == "sliding":
        parts.append("sliding window: sent evenly")
    if budget["shared"]:
        parts.append(f"shared by {budget['shared']}" + (", which does not answer" if budget["alone"] else ""))
    others = f"{minute['by_others']} by others" if minute["by_others"] else ""
    past = [f"{each['at'][11:16]}Z {each['spent']}" for each in budget["last_minutes"] if each["spent"]]
    return [
        ("budget", "; ".join(parts)),
        ("clients", "; ".join(each for each in (_top(minute["by_client"]), others) if each)),
        ("endpoints", _top(minute["by_endpoint"])),
        ("history", ", ".join(past)),
    ]


def _spared_text(proxy: Mapping[str, object] | None) -> str:
    """Return how many requests were not sent since nobody waited for them any more."""
    requests = proxy.get("requests") if proxy else None
    spared = requests.get("spared") if isinstance(requests, dict) else None
    if not isinstance(spared, int) or not spared:
        return ""
    return f"{count(spared, 'request')} not sent: the client left while it waited"


def _left_text(budget: Mapping[str, object]) -> str:
    """Return what is left of this proxy's share, and the team's limit where that is more."""
    team = f"{'' if budget.get('told', True) else 'an assumed '}{budget['limit']}"
    if budget["ours"] == budget["limit"]:
        return f"{budget['remaining']} of {team} left"
    return f"{budget['remaining']} of {budget['ours']} left (the team has {team})"


def _top(costs: Mapping[str, int]) -> str:
    """Name the largest spenders, and say how many more there are."""
    spent = [f"{who} {cost}" for who, cost in costs.items() if cost]
    more = f" and {len(spent) - TOP} more" if len(spent) > TOP else ""
    return ", ".join(spent[:TOP]) + more
