"""``slproxy token``: prints a valid access token, for scripts."""

from __future__ import annotations

import argparse
import json

from slproxy.app import App
from slproxy.cli.output import DONE
from slproxy.config import Settings


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy token``."""
    async with App(settings) as app:
        bearer = await app.credentials.bearer()
    print(json.dumps({"access_token": bearer.token}) if args.json else bearer.token)
    return DONE
