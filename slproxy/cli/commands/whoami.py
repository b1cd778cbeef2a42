"""``slproxy whoami``: asks SalesLoft who the token belongs to."""

from __future__ import annotations

import argparse
import json
import sys

from slproxy.cli.identify import identify
from slproxy.cli.output import DONE, print_note, print_result
from slproxy.config import Settings


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy whoami``."""
    found = await identify(settings)
    if args.json:
        print_result(json.dumps({**found.reply, "grant": found.grant}, indent=2))
        return DONE
    print_result(f"Authenticated as: {found.who}")
    if sys.stderr.isatty():
        by = f", by the proxy at {found.proxy}" if found.proxy else ""
        print_note(f"  Auth: {found.grant} ({found.why}){by}")
    return DONE
