"""Access: the credentials of these settings, for commands that serve nothing and mostly send nothing.

The token in its store is all they need. What talks to SalesLoft takes longer to load, and to read certificates, than
all the rest: it is made once a token has to be renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from slproxy.auth import Credentials, Form, TokenEndpointReply, check_found
from slproxy.config import Settings
from slproxy.listeners import audit_of
from slproxy.observe import Observer
from slproxy.store import TokenStore, owner_of, token_store

if TYPE_CHECKING:
    from slproxy.upstream import Upstream


@dataclass(frozen=True, kw_only=True)
class TimeSource:
    """Where time and chance come from. ``now`` is Unix time, ``jitter`` is uniform in [0, 1)."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random


REAL_TIME = TimeSource()


def credentials_of(
    settings: Settings,
    store: TokenStore,
    *,
    observer: Observer,
    post_form: Callable[[Form], Awaitable[TokenEndpointReply]],
    time_source: TimeSource = REAL_TIME,
) -> Credentials:
    """Return the credentials that the settings name."""
    return Credentials(
        auth=settings.auth,
        api_key_from=str(settings.origin("auth.api_key")) if settings.is_set("auth.api_key") else "",
        owner=owner_of(settings),
        redirect_uri_is_set=settings.is_set("auth.redirect_uri"),
        leeway_is_set=settings.is_set("auth.leeway"),
        store=store,
        observer=observer,
        post_form=post_form,
        now=time_source.now,
        monotonic=time_source.monotonic,
        sleep=time_source.sleep,
        jitter=time_source.jitter,
    )


class Access:
    """A token and its store. Used inside ``async with``, which raises SlproxyError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = token_store(settings)
        self._stack = contextlib.AsyncExitStack()
        self._upstream: Upstream | None = None
        audit = audit_of(settings)
        self._observer = Observer([] if audit is None else [audit])
        self.credentials = credentials_of(settings, self._store, observer=self._observer, post_form=self._post_form)

    async def __aenter__(self) -> Self:
        self._stack.callback(self._observer.close)
        self._stack.push_async_callback(self._store.close)
        self._stack.push_async_callback(self._close_upstream)
        self._stack.push_async_callback(self.credentials.close)
        try:
            await self.credentials.load()
            await check_found(self._settings, self._store, self.credentials.selection.grant)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Last in, first out: a renewal under way is kept, the upstream closes, and then the store.
        await self._stack.aclose()

    async def _post_form(self, form: Form) -> TokenEndpointReply:
        if self._upstream is None:
            from slproxy.upstream import Upstream  # noqa: PLC0415  # see above

            self._upstream = await Upstream(self._settings.upstream).__aenter__()
        return await self._upstream.post_form(form)

    async def _close_upstream(self) -> None:
        if self._upstream is not None:
            await self._upstream.__aexit__(None, None, None)
