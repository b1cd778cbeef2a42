"""``slproxy status``: shows the login, the running proxy and the team's budget."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

import slproxy
from slproxy.access import Access
from slproxy.cli import running_proxy
from slproxy.cli.describe import describe_token
from slproxy.cli.output import print_result
from slproxy.cli.status_rows import budget_rows, proxy_text, renewal_text, rules_rows, serves_another, spared_text
from slproxy.cli.table import print_table
from slproxy.cli.watch import watch
from slproxy.cli.watch_text import ANOTHER_VERSION
from slproxy.config import Settings
from slproxy.errors import LoginRequired, Problem, StoreError


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy status``. Raises StoreError, after everything else is printed."""
    if args.watch:
        return await watch(settings, as_json=args.json)
    here: Mapping[str, object] | None = None
    problem: Problem | None = None
    fault: StoreError | None = None
    try:
        async with Access(settings) as access:
            problem, here = access.credentials.problem(), access.credentials.snapshot()
    except StoreError as error:
        fault = error
    proxy = await running_proxy.status_of(settings.reach)
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
                ("proxy", proxy_text(proxy, settings)),
                ("renewal", renewal_text(ours) if ours else ""),
                ("restart", _restart_text(ours, here, settings) if ours and here else ""),
                *rules_rows(ours or {}),
                *budget_rows(proxy),
                ("spared", spared_text(proxy)),
            ]
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            # Another version, or another program that looks like one.
            rows = [*(_login_rows(here, needed) if here else []), ("proxy", ANOTHER_VERSION)]
        shown = [("profile", settings.profile), *((name, value) for name, value in rows if value)]
        print_table(shown, gap=1, least=9)
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


def _restart_text(ours: Mapping[str, object], here: Mapping[str, object], settings: Settings) -> str:
    """Return the grant that a new start would use, where the running proxy uses another."""
    token = _running_token(ours)
    if token is None or here["grant"] in (None, token["grant"]) or serves_another(ours, settings):
        return ""
    return f"a new start would use {here['grant']} ({here['why']})"
