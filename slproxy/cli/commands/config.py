"""``slproxy config``: prints the settings in force, and where each came from."""

from __future__ import annotations

import argparse
import json

from slproxy.cli.output import DONE, print_result
from slproxy.config import Settings, effective


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy config``."""
    rows = effective(settings)
    if args.json:
        print_result(json.dumps({row.key: {"value": row.plain, "origin": row.origin} for row in rows}, indent=2))
        return DONE
    key_width = max(len(row.key) for row in rows)
    value_width = min(max(len(row.value) for row in rows), 48)
    for row in rows:
        print_result(f"{row.key:<{key_width}}  {row.value:<{value_width}}  {row.origin}")
    return DONE
