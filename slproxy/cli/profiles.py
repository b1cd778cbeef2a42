"""``slproxy profiles``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

from slproxy import config
from slproxy.app import App
from slproxy.cli.output import DONE
from slproxy.cli.status import told_token
from slproxy.config import Settings
from slproxy.errors import (
    LoginRequired,
    SlproxyError,
)

# Profiles.


def profile_names(args: argparse.Namespace) -> list[str]:
    return config.profiles(config=args.config, environ=os.environ, cwd=Path.cwd())


def settings_of_profile(name: str, args: argparse.Namespace) -> Settings:
    return config.load(config=args.config, profile=name, flags={}, environ=os.environ, cwd=Path.cwd())


async def profiles(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy profiles``."""
    rows: list[Mapping[str, object]] = []
    for name in sorted({settings.profile, *profile_names(args)}):
        try:
            async with App(settings_of_profile(name, args)) as app:
                problem, token = app.credentials.problem(), app.credentials.snapshot()
            state = "login needed" if isinstance(problem, LoginRequired) else told_token(token)
            kept_in = token["store"]
        except SlproxyError as error:
            state, kept_in = f"broken: {'; '.join(error.detail.splitlines())}", None
        rows.append({"profile": name, "chosen": name == settings.profile, "token": state, "kept_in": kept_in})
    if args.json:
        print(json.dumps(rows, indent=2))
        return DONE
    width = max(len(str(row["profile"])) for row in rows)
    for row in rows:
        place = f", kept in {row['kept_in']}" if row["kept_in"] else ""
        print(f"{'*' if row['chosen'] else ' '} {row['profile']:<{width}}  {row['token']}{place}")
    return DONE
