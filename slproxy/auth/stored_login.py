"""Login in the store, reconciled with the one in use: of the two, the newer one counts.

The store is behind where a write has failed, or where it was wiped: a folder that vanished, a Redis that came back
empty or from an old snapshot. The login in use is behind where another process has renewed, or a person has logged in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from slproxy import config
from slproxy.config import Grant, Settings
from slproxy.errors import StaleWriteError, StoreError, UnwritableError
from slproxy.store import Owner, Record, Token, TokenStore, owner_of

log = logging.getLogger("slproxy.auth")

# No stamp of any store.
_NOTHING = object()


class StoredLogin:
    """The login of one client in one store."""

    def __init__(self, store: TokenStore, owner: Owner) -> None:
        self.store = store
        # Why the token in use is not in the store; None where it is.
        self.unpersisted: str | None = None
        # What makes the stored login somebody else's; nothing where it is ours, or there is none.
        self.foreign = ""
        self._owner = owner
        # The stamp of what was looked at last, and what was last logged of a look that failed.
        self._seen: object = _NOTHING
        self._logged = ""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Keep other processes from renewing this login. Raises StoreError when that takes too long."""
        return self.store.lock()

    def first(self, token: Token) -> Record:
        """Return the first record of this client, with a token that no login brought."""
        owner = self._owner
        return Record(
            client_id=owner.client_id,
            accounts_url=owner.accounts_url,
            profile=owner.profile,
            api_url=owner.api_url,
            token=token,
        )

    async def read(self) -> Record | None:
        """Return the stored login, if it is this client's. Raises StoreError."""
        return self._ours(await self.store.read())

    async def newest(self, in_use: Record | None) -> Record | None:
        """Return the newer of the stored login and the one in use, which is then stored; under the lock.

        ``None`` is a logout, or another client's login. Raises StoreError.
        """
        try:
            stored = await self.store.read()
        except StoreError as error:
            if not await self.store.was_wiped():
                raise
            log.warning("%s %s", error.detail, error.hint)
            stored = None
        if in_use is not None and await self._is_behind(stored, in_use):
            try:
                await self.write(in_use)
            except StaleWriteError:
                stored = await self.store.read()
            else:
                return in_use
        self.unpersisted = None
        return self._ours(stored)

    async def look(self, in_use: Callable[[], Record | None]) -> Record | None:
        """Return which login counts now, as ``newest`` does, but without lock or write; read only what has changed.

        Only a clean answer ends the use of a login. Raises StoreError where there is none, which is logged once.
        """
        before = in_use()
        try:
            if (stamp := await self.store.stamp()) == self._seen:
                return in_use()
            stored = await self.store.read()
            is_behind = before is not None and await self._is_behind(stored, before)
            login = before if is_behind else self._ours(stored)
            is_settled = login is not None or stamp == await self.store.stamp()
        except StoreError as error:
            if before is not None and error.detail != self._logged:
                log.warning("%s %s The login in use is kept.", error.detail, error.hint)
            self._logged = error.detail
            raise
        if not is_settled or in_use() is not before:
            return in_use()  # something was stored meanwhile, or a renewal has ended: the next look will tell
        is_lost = stored is None or (before is not None and stored.login == before.login)
        if is_behind and is_lost and self.unpersisted is None:
            # In memory alone, so that no reload and no end gives it up; whoever follows stores it again.
            self.unpersisted = "Its store has lost it, or holds an older one."
            log.warning("%s has lost the login in use, or holds an older one. It is kept.", self.store.description)
        # A login that was lost leaves the same stamp as one that is logged out later.
        self._seen, self._logged = _NOTHING if is_behind and stored is None else stamp, ""
        return login

    def _ours(self, stored: Record | None) -> Record | None:
        self.foreign = "" if stored is None else stored.differs_from(self._owner)
        return None if self.foreign else stored

    async def _is_behind(self, stored: Record | None, in_use: Record) -> bool:
        if stored is None:
            return await self.store.was_wiped()
        return stored.belongs_to(self._owner) and stored.is_older_than(in_use)

    async def write(self, record: Record) -> None:
        """Store a login; where that fails it stays in memory alone, which is better than lost.

        Raises StaleWriteError: what is stored is newer.
        """
        try:
            await self.store.write(record)
        except StaleWriteError:
            self.unpersisted = None
            raise
        except StoreError as error:
            self.unpersisted = error.detail
            log.error(  # noqa: TRY400  # the hint says more than a traceback
                "%s The newest token is only in memory. %s", error.detail, error.hint
            )
        else:
            self.unpersisted = None

    async def check_writable(self, record: Record) -> None:
        """Write the stored login once more, before its refresh token is spent.

        Raises:
            UnwritableError: the renewed token would be in this process's memory alone.
            StaleWriteError: another process has renewed meanwhile: what is in hand has been spent.
        """
        if self.unpersisted is not None:
            return  # it is in memory alone already
        try:
            await self.store.write(record)
        except StaleWriteError:
            raise
        except StoreError as error:
            raise UnwritableError(error.detail, hint=error.hint) from error.__cause__

    async def mark_refused(self, record: Record) -> Record | None:
        """Store that SalesLoft refuses a login, so that no process tries its refresh token again.

        Return the newer login, if it is not dead but was renewed by another process: one that hung with the lock.
        """
        try:
            await self.store.write(record)
        except StaleWriteError:
            newer = await self.read()
            return None if newer is None or newer.refused else newer
        except StoreError as error:
            log.warning("%s That the login is refused is only in memory. %s", error.detail, error.hint)
        return None


async def hides_login(settings: Settings, store: TokenStore, grant: Grant | None) -> bool:
    """Tell whether an API key goes before a login that is stored. Raises StoreError."""
    if settings.auth.grant != "auto" or grant != "api_key":
        return False
    record = await store.read()
    return record is not None and record.belongs_to(owner_of(settings))


async def check_found(settings: Settings, store: TokenStore, grant: Grant | None) -> None:
    """Raise ConfigError where a file that nobody named would decide where the login that ``grant`` uses goes."""
    if not config.has_redirects(settings) or grant not in ("authorization_code", None):
        return
    record = await store.read()
    if record is not None:
        config.check_login(settings, api_url=record.api_url, accounts_url=record.accounts_url)
    elif grant is not None:
        config.check_login(settings, api_url=None, accounts_url=None)
