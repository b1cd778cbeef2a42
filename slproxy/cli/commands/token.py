"""``slproxy token``: prints a valid access token, for scripts."""

from __future__ import annotations

import argparse
import json

from slproxy.access import Access
from slproxy.cli.output import DONE, print_result
from slproxy.config import Settings
from slproxy.errors import LoginRequired


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy token``."""
    try:
        async with Access(settings) as access:
            bearer = await access.credentials.bearer()
    except LoginRequired as error:
        from slproxy.cli import own_request, running_proxy  # noqa: PLC0415  # with a token there is nobody to ask

        proxy = await running_proxy.serving(settings)
        if proxy is None or proxy.get("ready") is not True:
            raise
        where = own_request.address(settings.reach)
        raise LoginRequired(
            f"{error.detail} The proxy at {where} has a token, and does not hand it out.",
            hint=f"Send requests to that proxy, or get a token of your own. {error.hint}",
        ) from error
    print_result(json.dumps({"access_token": bearer.token}) if args.json else bearer.token)
    return DONE
