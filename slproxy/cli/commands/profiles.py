"""``slproxy profiles``: lists the profiles and their logins."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from slproxy.access import Access
from slproxy.cli.describe import describe_token
from slproxy.cli.output import DONE, print_result
from slproxy.cli.settings import load_settings, profile_names
from slproxy.cli.table import print_table
from slproxy.config import Settings
from slproxy.errors import ConfigError, LoginRequired, SlproxyError


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy profiles``."""
    names = sorted({settings.profile, *profile_names(args)})
    if args.names:
        print_result(json.dumps(names) if args.json else "\n".join(names))
        return DONE
    rows: list[Mapping[str, object]] = []
    for name in names:
        try:
            async with Access(load_settings(args, name)) as access:
                problem, token = access.credentials.problem(), access.credentials.snapshot()
            reason = problem.detail if isinstance(problem, LoginRequired) else None
            found = {"token": token, "login_needed": reason is not None, "reason": reason, "error": None}
        except SlproxyError as error:
            kind = "config" if isinstance(error, ConfigError) else "store"
            what = {"type": kind, "detail": "; ".join(error.detail.splitlines()), "hint": error.hint}
            found = {"token": None, "login_needed": None, "reason": None, "error": what}
        rows.append({"profile": name, "chosen": name == settings.profile, **found})
    if args.json:
        print_result(json.dumps(rows, indent=2))
        return DONE
    print_table([(f"{'*' if row['chosen'] else ' '} {row['profile']}", _describe(row)) for row in rows])
    return DONE


def _describe(row: Mapping[str, object]) -> str:
    token, error = row["token"], row["error"]
    if isinstance(error, dict):
        return f"broken: {error['detail']}"
    assert isinstance(token, dict), "there is one or the other"
    if row["login_needed"]:
        return f"login needed: {row['reason']}"
    place = f", stored in {token['store']}" if token["store"] else ""
    return f"{describe_token(token)}{place}"
