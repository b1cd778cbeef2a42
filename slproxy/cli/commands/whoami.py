"""``slproxy whoami``: asks SalesLoft who the token belongs to."""

from __future__ import annotations

import argparse
import json
import sys

from slproxy.app import App
from slproxy.auth import parse_identity
from slproxy.cli.output import DONE, print_note
from slproxy.config import Settings


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy whoami``."""
    async with App(settings) as app:
        status, body = await app.ask("/v2/me.json")
        selection = app.credentials.selection
    who = parse_identity(status, body, grant=selection.grant)
    if args.json:
        print(json.dumps({**json.loads(body), "grant": selection.grant}, indent=2))
        return DONE
    print(f"Authenticated as: {who}", flush=True)
    if sys.stderr.isatty():
        print_note(f"  Auth: {selection.grant} ({selection.why})")
    return DONE
