"""Status in words: what ``status.json`` says of a running proxy and the team's budget."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import slproxy
from slproxy.cli import own_request, running_proxy
from slproxy.cli.describe import count, describe_rules
from slproxy.config import Settings
from slproxy.errors import KeyRequired

# How many clients and endpoints are named.
TOP = 5


def proxy_text(proxy: Mapping[str, object] | None, settings: Settings) -> str:
    where = own_request.address(settings.reach)
    if proxy is None:
        return f"not running at {where}"
    if "version" not in proxy:
        if proxy.get("type") == KeyRequired.type or "uid" in proxy:
            return running_proxy.described(settings.reach, proxy)
        return f"something answers at {where}, but not as slproxy: {proxy.get('detail', 'is it another program?')}"
    reason, token = proxy.get("reason"), proxy.get("token")
    of = "" if proxy.get("profile") == settings.profile else f", profile {proxy.get('profile')}"
    pid = f" (pid {proxy['pid']})" if isinstance(proxy.get("pid"), int) else ""
    parts = [f"up at {where}{pid}{of}"]
    if serves_another(proxy, settings):
        parts.append(f"forwarding to {proxy['upstream']}")
    if isinstance(token, dict):
        parts.append(f"using {token.get('grant') or 'no grant'}")
    parts.append(f"not ready: {reason.get('detail')} {reason.get('hint')}" if isinstance(reason, dict) else "ready")
    if isinstance(proxy.get("warning"), str):
        parts.append(f"WARNING: {proxy['warning']}")
    return ", ".join(parts)


def serves_another(proxy: Mapping[str, object], settings: Settings) -> bool:
    """Tell whether a proxy forwards elsewhere than these settings say, such as to a sandbox."""
    return proxy.get("upstream") not in (None, settings.upstream.api_url)


def renewal_text(proxy: Mapping[str, object]) -> str:
    """Return how the running proxy's last renewal went."""
    token = proxy.get("token")
    last = token.get("last_renewal") if isinstance(token, dict) else None
    if not isinstance(last, dict) or not isinstance(last.get("at"), float | int):
        return ""
    return f"{time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(last['at']))}: {last.get('outcome')}"


def rules_rows(proxy: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the rows on what the running proxy lets through: for everybody, and for each client."""
    policy, clients = proxy.get("policy"), proxy.get("clients")
    rows = [("policy", (describe_rules(policy) or "all of /v2/") if isinstance(policy, dict) else "")]
    for name, rules in clients.items() if isinstance(clients, dict) else ():
        rows.append(("client", f"{name}: {describe_rules(rules) or 'all that the policy lets through'}"))
    return rows


def budget_rows(proxy: Mapping[str, object] | None) -> list[tuple[str, str]]:
    """Return the rows on the team's budget: what is left, who waits, who has spent it."""
    budget = proxy.get("budget") if proxy else None
    # Another version's status.json may differ.
    if not isinstance(budget, dict) or proxy is None or proxy.get("version") != slproxy.__version__:
        return []
    queue, minute = budget["queue"], budget["this_minute"]
    parts = [f"{left_text(budget)}, resets in {math.ceil(budget['resets_in'])} s"]
    if waiting := queue["interactive"] + queue["bulk"]:
        parts.append(f"{count(waiting, 'request')} waiting: {top(budget['waiting'])}")
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
        ("clients", "; ".join(each for each in (top(minute["by_client"]), others) if each)),
        ("endpoints", top(minute["by_endpoint"])),
        ("history", ", ".join(past)),
    ]


def spared_text(proxy: Mapping[str, object] | None) -> str:
    """Return how many requests were not sent since nobody waited for them any more."""
    requests = proxy.get("requests") if proxy else None
    spared = requests.get("spared") if isinstance(requests, dict) else None
    if not isinstance(spared, int) or not spared:
        return ""
    return f"{count(spared, 'request')} not sent: the client left while it waited"


def left_text(budget: Mapping[str, object]) -> str:
    """Return what is left of this proxy's share, and the team's limit where that is more."""
    team = f"{'' if budget.get('told', True) else 'an assumed '}{budget['limit']}"
    if budget["ours"] == budget["limit"]:
        return f"{budget['remaining']} of {team} left"
    return f"{budget['remaining']} of {budget['ours']} left (the team has {team})"


def top(costs: Mapping[str, int]) -> str:
    """Name the largest spenders, and say how many more there are."""
    spent = [f"{who} {cost}" for who, cost in costs.items() if cost]
    more = f" and {len(spent) - TOP} more" if len(spent) > TOP else ""
    return ", ".join(spent[:TOP]) + more
