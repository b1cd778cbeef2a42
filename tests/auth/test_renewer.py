"""One renewal: what it leaves in use."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from slproxy.auth.oauth import Form
from slproxy.auth.renewer import Renewer
from slproxy.auth.stored_login import StoredLogin
from slproxy.auth.token_endpoint import TokenEndpoint
from slproxy.auth.token_in_use import TokenInUse
from slproxy.auth.token_reply import TokenEndpointReply
from slproxy.config import AuthSettings, Secret
from slproxy.observe import TAKEN_OVER
from slproxy.store import MemoryStore, Record, Token

NOW = 1000.0
ACCOUNTS = "https://accounts.test"
LOGIN = Record(
    client_id="c",
    accounts_url=ACCOUNTS,
    login=1_795_000_000_000,
    token=Token(access_token="login", refresh_token="refresh", obtained_at=NOW, expires_at=NOW + 7200.0),
)


def renewer(in_use: TokenInUse, *, rejected: str | None = None, store: MemoryStore | None = None) -> Renewer:
    """Return one by client credentials, during whose request somebody's login comes into use."""

    async def post_form(_: Form) -> TokenEndpointReply:
        in_use.set_record(LOGIN, now=NOW)
        body = json.dumps({"access_token": "granted", "expires_in": 7200}).encode()
        return TokenEndpointReply(status=200, headers={}, body=body)

    endpoint = TokenEndpoint(
        AuthSettings(client_id="c", client_secret=Secret("s")),
        post_form=post_form,
        now=lambda: NOW,
        monotonic=lambda: NOW,
        sleep=asyncio.sleep,
        jitter=lambda: 0.0,
    )
    return Renewer(
        in_use=in_use,
        stored=StoredLogin(store or MemoryStore(), LOGIN.owner),
        endpoint=endpoint,
        grant="client_credentials",
        rejected=rejected,
        due=in_use.record,
        keeps_running=True,
        now=lambda: NOW,
    )


async def test_a_login_that_came_into_use_meanwhile_is_not_replaced_by_an_older_token() -> None:
    in_use = TokenInUse(leeway=120.0, leeway_is_set=False, jitter=0.0)
    await renewer(in_use).renew()
    assert in_use.record == LOGIN


async def test_what_came_into_use_while_the_lock_was_waited_for_is_not_renewed_once_more() -> None:
    store = MemoryStore(LOGIN)
    in_use = TokenInUse(leeway=120.0, leeway_is_set=False, jitter=0.0)
    in_use.set_record(LOGIN, now=NOW)
    async with store.lock():
        renewing = asyncio.create_task(renewer(in_use, store=store, rejected="login").renew())
        await asyncio.sleep(0)
        await store.write(newer := LOGIN.renewed(replace(LOGIN.token, access_token="theirs", refresh_token="next")))
        in_use.set_record(newer, now=NOW)
    assert await renewing == TAKEN_OVER
    assert in_use.record == newer


def test_the_rejected_token_is_in_no_repr() -> None:
    in_use = TokenInUse(leeway=120.0, leeway_is_set=False, jitter=0.0)
    in_use.set_record(LOGIN, now=NOW)
    assert "secret-token" not in repr(renewer(in_use, rejected="secret-token"))
