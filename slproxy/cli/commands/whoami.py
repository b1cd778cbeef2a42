"""``slproxy whoami``: asks SalesLoft who the token belongs to."""

from __future__ import annotations

import argparse
import json

from slproxy.app import App
from slproxy.auth import parse_identity
from slproxy.cli.output import DONE
from slproxy.config import Settings


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy whoami``."""
    async with App(settings) as app:
        status, body = await app.ask("/v2/me.json")
    who = parse_identity(status, body)
    print(json.dumps(json.loads(body), indent=2) if args.json else f"Authenticated as: {who}")
    return DONE
