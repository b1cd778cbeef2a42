"""``slproxy profiles``: lists the profiles and their logins."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from slproxy.app import App
from slproxy.cli.describe import describe_token
from slproxy.cli.output import DONE, print_result
from slproxy.cli.settings import load_settings, profile_names
from slproxy.config import Settings
from slproxy.errors import LoginRequired, SlproxyError


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy profiles``."""
    rows: list[Mapping[str, object]] = []
    for name in sorted({settings.profile, *profile_names(args)}):
        try:
            async with App(load_settings(args, name)) as app:
                problem, token = app.credentials.problem(), app.credentials.snapshot()
            state = "login needed" if isinstance(problem, LoginRequired) else describe_token(token)
            kept_in = token["store"]
        except SlproxyError as error:
            state, kept_in = f"broken: {'; '.join(error.detail.splitlines())}", None
        rows.append({"profile": name, "chosen": name == settings.profile, "token": state, "kept_in": kept_in})
    if args.json:
        print_result(json.dumps(rows, indent=2))
        return DONE
    width = max(len(str(row["profile"])) for row in rows)
    for row in rows:
        place = f", stored in {row['kept_in']}" if row["kept_in"] else ""
        print_result(f"{'*' if row['chosen'] else ' '} {row['profile']:<{width}}  {row['token']}{place}")
    return DONE
