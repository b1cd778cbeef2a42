"""Verification: asks SalesLoft whom requests act as, once, and again while it rejects the token."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

from slproxy.app import App
from slproxy.auth import Credentials, hides_login, parse_identity
from slproxy.errors import DamagedError, LoginRequired, SlproxyError, StoreError

log = logging.getLogger("slproxy")

# How often it is looked whether a request is due, and how far apart two are, in seconds: each costs budget.
POLL_INTERVAL, CHECK_INTERVAL = 2.0, 30.0


async def keep_verifying(app: App) -> None:
    """Say once for all credentials and logins who is authenticated, or what is wrong; look whether rejected ones are.

    With no traffic nothing else would tell that SalesLoft accepts it again, and an orchestrator sends none to a proxy
    that is not ready.
    """
    await _tell_of_hidden_login(app)
    verified: tuple[Credentials, int | None] | None = None
    while True:
        pause = POLL_INTERVAL
        try:
            # Others, after a reload or a login, are as unknown as the first.
            credentials = (app.credentials, app.credentials.login)
            if credentials != verified and not isinstance(app.credentials.problem(), LoginRequired):
                verified = credentials
                await _verify(app)
                pause = CHECK_INTERVAL if app.credentials.needs_check else POLL_INTERVAL
            elif app.credentials.needs_check:
                pause = CHECK_INTERVAL
                await _check(app)
        except SlproxyError as error:
            # Offline, say: that disturbs nobody, and the next request will tell.
            log.warning("not verified whom requests act as: %s %s", error.detail, error.hint)
        except Exception:
            # The outermost frame of this task: without it a defect would end the checks, and say nothing.
            log.exception("a defect in slproxy, while verifying the token")
        await asyncio.sleep(pause)


async def _tell_of_hidden_login(app: App) -> None:
    try:
        if await hides_login(app.settings, app.store, app.credentials.selection.grant):
            log.warning("the API key goes before the login that is stored in %s", app.store.description)
    except DamagedError as error:
        log.warning("%s %s", error.detail, error.hint)  # it was quarantined just now
    except StoreError:
        pass  # whoever needs no login is not stopped by what became of an old one


async def _verify(app: App) -> None:
    rules = app.settings.upstream
    if (proxy := rules.proxy.proxy_for(urlsplit(rules.api_url).hostname or "")) is not None:
        log.info("SalesLoft is reached through the proxy %s (%s)", proxy, rules.proxy.named_in)
    status, body = await app.ask("/v2/me.json")
    who = parse_identity(status, body, grant=app.credentials.selection.grant)
    log.info("Authenticated as: %s", who)


async def _check(app: App) -> None:
    before = app.credentials.problem()
    await app.ask("/v2/me.json", is_check=True)
    after = app.credentials.problem()
    if before is not None and after is None:
        log.info("SalesLoft accepts the token again")
    elif before is None and after is not None:
        log.warning("%s %s", after.detail, after.hint)
