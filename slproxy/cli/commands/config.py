"""``slproxy config``: prints the settings in force, and where each came from."""

from __future__ import annotations

import argparse
import json

from slproxy.cli.output import DONE, print_result
from slproxy.cli.table import print_table
from slproxy.config import Settings, effective


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy config``."""
    rows = effective(settings)
    if args.json:
        print_result(json.dumps({row.key: {"value": row.plain, "origin": row.origin} for row in rows}, indent=2))
        return DONE
    print_table([(row.key, row.value, row.origin) for row in rows])
    return DONE
