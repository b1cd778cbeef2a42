"""``slproxy run -- CMD``: runs a program behind a proxy of its own, with a key that is worth nothing elsewhere."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from slproxy.app import App
from slproxy.cli.child import Child
from slproxy.cli.output import print_error, print_note
from slproxy.config import ListenSettings, MetricsSettings, Secret, Settings, check
from slproxy.errors import CannotRunError, LoginRequired
from slproxy.sockets import reachable

# The variables of this program, and those of others that hold a secret of SalesLoft's by their names.
_OURS = re.compile(
    r"SLPROXY_.*|SALESLOFT_(CLIENT_ID|REDIRECT_URI|SCOPE)(_FILE)?|SALESLOFT_.*(KEY|SECRET|TOKEN|PASSWORD).*"
)
_EGRESS = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


async def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run ``slproxy run``."""
    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        args.refuse("what is to be run? slproxy run -- CMD ARGS")
    with Child() as child:
        try:
            async with contextlib.AsyncExitStack() as stack:
                # Those of other proxies too: this one's rules must not be what they get around.
                hidden = [each.reveal() for each in (*_credentials(settings), *settings.keys.values())]
                settings, store = _of_its_own(settings, args.name), None
                if args.sandbox is not None:
                    from slproxy.cli.builtin_sandbox import running_sandbox  # noqa: PLC0415  # not part of a real proxy

                    point, store = await stack.enter_async_context(running_sandbox(settings))
                    settings = point(settings)
                app = await stack.enter_async_context(App(settings, store=store, listeners=args.listeners))
                await app.listen()
                if isinstance(problem := app.credentials.problem(), LoginRequired):
                    print_note(f"slproxy: warning: not ready: {problem.detail} {problem.hint}")
                return await child.run(argv, environment_of(os.environ, reachable(app.urls[0]), args.key, hidden))
        except CannotRunError as error:
            print_error(error)
            return error.code
        except asyncio.CancelledError:
            if not child.ended_by:
                raise
            return 128 + child.ended_by


def _of_its_own(settings: Settings, name: str) -> Settings:
    """Return the settings of a proxy that serves this client alone, on any free port of this machine."""
    settings = replace(
        settings,
        listen=ListenSettings(port=0),
        metrics=MetricsSettings(),
        clients={name: settings.clients[name]},
    )
    check(settings)
    return settings


def _credentials(settings: Settings) -> Iterator[Secret]:
    known = (settings.auth.api_key, settings.auth.client_secret, settings.store.key, settings.store.redis_url)
    yield from (each for each in known if each is not None)


def environment_of(environ: Mapping[str, str], url: str, key: str, hidden: Sequence[str]) -> dict[str, str]:
    """Return the environment of the program: where the proxy is and its key, and nothing that is to be ``hidden``."""
    kept = {
        name: value
        for name, value in environ.items()
        if not _OURS.fullmatch(name) and not any(secret in value for secret in hidden)
    }
    # A client that uses an egress proxy must not ask it for this address.
    if any(kept.get(name) for name in _EGRESS):
        for name in ("no_proxy", "NO_PROXY"):
            kept[name] = ",".join(part for part in (kept.get(name, ""), "127.0.0.1,localhost") if part)
    return kept | {"SALESLOFT_BASE_URL": url, "SLPROXY_URL": url, "SALESLOFT_API_KEY": key, "SLPROXY_KEY": key}
